import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import { ask, type Reply } from '../support/ask.ts';
import { Agent, delegationByIssuer, eventOf } from '../support/delegating.ts';
import { type House, startHouse } from '../support/house.ts';

const roles = ['viewer', 'operator', 'approver', 'auditor', 'admin'] as const;
type Role = (typeof roles)[number];

/** Something of its own for each call: what a call ends no other can end. */
interface Given {
  readonly task: string;
  readonly grant: string;
  readonly revocation: string;
}

interface Asked {
  readonly path: string;
  readonly body?: unknown;
}

/** What one operation answers to whom: DESIGN §4, "by". */
interface Row {
  readonly owner: number;
  readonly foreign: number;
  readonly operators: Readonly<Record<Role, number>>;
  /** What an operator in scope is shown of a list; one elsewhere is shown nothing. */
  readonly listed?: (body: Reply['body']) => number;
  /** It is about no target: a role in any scope is enough. */
  readonly anyScope?: true;
  /** It changes nothing, though it is no GET. */
  readonly reads?: true;
  /** Why a workload is refused, where that is not `operator_only`. */
  readonly refusal?: string;
  readonly given: () => Promise<Given | undefined>;
  readonly asked: (given: Given) => Asked | Promise<Asked>;
}

const REASON = { reason: 'said by the matrix' };
const ENTITLEMENT = 'ledger-db/read-invoices';
const APPROVED = 'ledger-db/read-payments';
const KILL = '/v1/kill';
const TARGET = { scope: 'target', id: 'ledger-db', ...REASON };
const PAUSE = '/v1/targets/ledger-db/pause';
const RESUME = '/v1/targets/ledger-db/resume';

let house: House;

beforeAll(async () => {
  house = await startHouse();
  const everyone = roles.map(
    (role) =>
      `${role}: [{ roles: [${role}], scope: { owner: team-finance } }], ${role}-elsewhere: [{ roles: [${role}], scope: { owner: team-else } }]`,
  );
  const groups = [...roles, ...roles.map((role) => `${role}-elsewhere`), 'root'].map((who) => `${who}: [finance]`);
  const trust = (house.files['trust.yaml'] ?? '')
    .replace('claim: roles', 'claim: sub')
    .replace(/roles: \{[^}]*\}/, `roles: { root: [admin], ${everyone.join(', ')} }, groups: { ${groups.join(', ')} }`)
    .replace('max_task_seconds', 'subjects: [{ operators: dev-operators, prefix: "user:" }], max_task_seconds');
  const policies = (house.files['policies/test.cedar'] ?? '').replace(
    '@max_ttl("2m")',
    '@max_ttl("2m") @require_approval("finance")',
  );
  const sources = `
signal_sources:
  - { name: desk, workloads: ["dev:desk"], proof_of_possession: none, kinds: [change_freeze], max_age_seconds: 60 }
`;
  const webhooks = `- { name: ledger, url: https://127.0.0.1:1/, events: [kill.*], secret: file:key, targets: [ledger-db] }`;
  await house.broker.apply({
    ...house.files,
    ...{ 'trust.yaml': `${trust}${sources}`, 'webhooks.yaml': webhooks, 'policies/test.cedar': policies },
  });
});
afterAll(async () => {
  await house?.stop();
});

async function operatorToken(subject: string): Promise<string> {
  const asked = { subject, roles: ['viewer' as const], audience: house.url, ttl_seconds: 900 };
  return (await house.issuer.signOperatorToken(asked)).token;
}

const asRoot = async (method: string, path: string, body?: unknown) =>
  await ask(house.url, method, path, { token: await operatorToken('root'), ...(body === undefined ? {} : { body }) });

const nothing = async () => undefined;

/** Ids of the kills that stand. */
const standing = async () =>
  z
    .object({ items: z.array(z.object({ id: z.string() })) })
    .parse((await asRoot('GET', `${KILL}?standing=true`)).body)
    .items.map(({ id }) => id);

async function liftAll(): Promise<undefined> {
  for (const id of await standing()) await asRoot('DELETE', `${KILL}/${id}`);
}

async function killed(): Promise<undefined> {
  await asRoot('POST', KILL, TARGET);
}

async function granted(): Promise<Given> {
  await liftAll();
  await asRoot('POST', RESUME);
  const client = house.client();
  const { task } = await client.openTask(await house.sign());
  const { grant } = await client.issue(task.id, { entitlement: ENTITLEMENT });
  return { task: task.id, grant: grant.id, revocation: grant.revocation.id };
}

async function frozen(): Promise<undefined> {
  const about = { kind: 'change_freeze', scope: { target: 'ledger-db' }, state: 'on' };
  const body = { ...about, id: randomUUID(), occurred_at: new Date().toISOString() };
  await ask(house.url, 'POST', '/v1/signals', { token: await house.token('desk'), body });
}

async function suspended(): Promise<Given> {
  const given = await granted();
  await asRoot('POST', `/v1/tasks/${given.task}/suspend`, REASON);
  return given;
}

/** Its revocation is due on a paused target, and waits for its next try. */
async function heldBack(): Promise<Given> {
  const given = await granted();
  await asRoot('POST', PAUSE, REASON);
  await asRoot('DELETE', `/v1/grants/${given.grant}`);
  await house.onStore(`UPDATE mayfly.revocations SET try_at = try_at + interval '1 hour' WHERE id = $1`, [
    given.revocation.slice(4),
  ]);
  return given;
}

/** A word of the issuer's that gives a part of that task to another workload, without a key. */
async function delegationTo(workload: string, task: string, by: string): Promise<string> {
  const parent = await house.client(by).task(task);
  return await delegationByIssuer(house, parent, await Agent.make(house, workload), ({ claims }) => {
    delete claims['cnf'];
  });
}

/** Waits for its approval, whose id stands for its revocation's. */
async function waiting(): Promise<Given> {
  await liftAll();
  const request = await house.sign({ phase: 'execute', entitlements: [APPROVED] });
  const { task } = await house.client().openTask(request);
  const body = { entitlement: APPROVED };
  const reply = await ask(house.url, 'POST', `/v1/tasks/${task.id}/grants`, { token: await house.token(), body });
  const { grant, approval } = z
    .object({ grant: z.object({ id: z.string() }), approval: z.object({ id: z.string() }) })
    .parse(reply.body);
  return { task: task.id, grant: grant.id, revocation: approval.id };
}

async function approved(): Promise<Given> {
  const given = await waiting();
  await asRoot('POST', `/v1/approvals/${given.revocation}`, { decision: 'approve', ...REASON });
  return given;
}

async function opened(workload: string): Promise<Given> {
  const request = await house.sign({ workload, purpose: 'answer.customer', maxDepth: 1 });
  const { task } = await house.client(workload).openTask(request);
  return { task: task.id, grant: '', revocation: '' };
}

async function offered(): Promise<Given> {
  const { task } = await opened('agent-support');
  const child = await house
    .client('agent-support')
    .delegate(task, await delegationTo('agent-recon', task, 'agent-support'));
  return { task: child.task.id, grant: '', revocation: '' };
}

const all = (status: number): Row['operators'] => ({
  viewer: status,
  operator: status,
  approver: status,
  auditor: status,
  admin: status,
});
const only = (status: number, ...may: Role[]): Row['operators'] => ({
  ...all(403),
  ...Object.fromEntries(may.map((role) => [role, status])),
});
/** What an agent does, and no operator for it. */
const agents = (status: number, foreign: number, more: Pick<Row, 'given' | 'asked' | 'refusal'>): Row => ({
  owner: status,
  foreign,
  operators: all(401),
  ...more,
});
const owned = (status: number, operators: Row['operators'], asked: Row['asked']): Row => ({
  owner: status,
  foreign: 404,
  operators,
  given: granted,
  asked,
});
const operating = (operators: Row['operators'], given: Row['given'], asked: Row['asked']): Row => ({
  owner: 403,
  foreign: 403,
  operators,
  given,
  asked,
});
/** Anybody's. */
const open = (path: string, status = 200): Row => ({
  owner: status,
  foreign: status,
  operators: all(status),
  given: nothing,
  asked: () => ({ path }),
});
const listOf = (body: Reply['body']) => z.object({ items: z.array(z.unknown()) }).parse(body).items.length;

/** One row for each operation of the OpenAPI document. */
const rows: Readonly<Record<string, Row>> = {
  openTask: agents(201, 403, {
    refusal: 'workload_not_named',
    given: nothing,
    asked: async () => ({ path: '/v1/tasks', body: { request: await house.sign() } }),
  }),
  issueGrant: agents(201, 404, {
    given: granted,
    asked: ({ task }) => ({ path: `/v1/tasks/${task}/grants`, body: { entitlement: ENTITLEMENT } }),
  }),
  delegateTask: agents(201, 404, {
    given: () => opened('agent-recon'),
    asked: async ({ task }) => ({
      path: `/v1/tasks/${task}/children`,
      body: { delegation: await delegationTo('agent-support', task, 'agent-recon') },
    }),
  }),
  claimTask: agents(200, 404, {
    given: offered,
    asked: ({ task }) => ({ path: `/v1/tasks/${task}/claim` }),
  }),
  // The word is the issuer's, whoever carries it.
  tellTaskEvent: {
    ...{ owner: 202, foreign: 202, operators: all(202), anyScope: true, given: granted },
    asked: async ({ task }) => ({
      path: `/v1/tasks/${task}/events`,
      body: { event: await eventOf(house, task, { op: 'complete' }) },
    }),
  },
  // Whose task it is not hears the same as of a task that is not there: a denial, which is an answer.
  evaluate: {
    ...agents(200, 200, {
      given: granted,
      asked: ({ task }) => ({
        path: '/access/v1/evaluation',
        body: {
          subject: { type: 'task', id: task },
          action: { name: 'read' },
          resource: { type: 'document', id: '1' },
        },
      }),
    }),
    reads: true,
  },
  evaluateAll: {
    ...agents(200, 200, {
      given: granted,
      asked: ({ task }) => ({
        path: '/access/v1/evaluations',
        body: {
          ...{ subject: { type: 'task', id: task }, action: { name: 'read' } },
          evaluations: [{ resource: { type: 'document', id: '1' } }],
        },
      }),
    }),
    reads: true,
  },
  renewGrant: agents(200, 404, {
    given: granted,
    asked: ({ grant }) => ({ path: `/v1/grants/${grant}/renew`, body: { ttl_seconds: 60 } }),
  }),
  readTask: owned(200, all(200), ({ task }) => ({ path: `/v1/tasks/${task}` })),
  readTimeline: owned(200, only(200, 'auditor', 'admin'), ({ task }) => ({ path: `/v1/tasks/${task}/timeline` })),
  completeTask: owned(202, only(202, 'operator', 'admin'), ({ task }) => ({ path: `/v1/tasks/${task}/complete` })),
  cancelTask: owned(202, only(202, 'operator', 'admin'), ({ task }) => ({ path: `/v1/tasks/${task}/cancel` })),
  readGrant: owned(200, all(200), ({ grant }) => ({ path: `/v1/grants/${grant}` })),
  releaseGrant: owned(202, only(202, 'operator', 'admin'), ({ grant }) => ({ path: `/v1/grants/${grant}` })),
  listRevocations: {
    ...operating(all(200), heldBack, () => ({ path: '/v1/revocations' })),
    listed: listOf,
  },
  readRevocation: operating(all(200), granted, ({ revocation }) => ({ path: `/v1/revocations/${revocation}` })),
  retryRevocation: operating(only(202, 'operator', 'admin'), heldBack, ({ revocation }) => ({
    path: `/v1/revocations/${revocation}/retry`,
  })),
  writeOffRevocation: operating(only(200, 'operator', 'admin'), heldBack, ({ revocation }) => ({
    path: `/v1/revocations/${revocation}/write-off`,
    body: REASON,
  })),
  listDecisions: { ...operating(all(200), granted, () => ({ path: '/v1/decisions' })), listed: listOf },
  explainDecision: operating(all(200), granted, async ({ grant }) => ({
    path: `/v1/decisions/${String((await asRoot('GET', `/v1/grants/${grant}`)).body['decision_id'])}`,
  })),
  collectGrant: agents(201, 404, { given: approved, asked: ({ grant }) => ({ path: `/v1/grants/${grant}/collect` }) }),
  listApprovals: { ...operating(all(200), waiting, () => ({ path: '/v1/approvals' })), listed: listOf },
  readApproval: operating(all(200), waiting, ({ revocation }) => ({ path: `/v1/approvals/${revocation}` })),
  decideApproval: operating(only(200, 'approver', 'admin'), waiting, ({ revocation }) => ({
    path: `/v1/approvals/${revocation}`,
    body: { decision: 'approve', ...REASON },
  })),
  raiseKill: operating(only(201, 'operator', 'admin'), liftAll, () => ({ path: KILL, body: TARGET })),
  listKills: { ...operating(all(200), killed, () => ({ path: KILL })), listed: listOf },
  liftKill: operating(only(200, 'operator', 'admin'), killed, async () => ({
    path: `${KILL}/${(await standing())[0]}`,
  })),
  // It takes a role that holds everywhere, and these have scopes: see kill-forgotten.test.ts.
  confirmKills: operating(all(403), nothing, () => ({ path: `${KILL}/confirm`, body: REASON })),
  sendSignals: {
    ...operating(all(403), nothing, () => ({
      path: '/v1/signals',
      body: { kind: 'heartbeat', id: 'x', occurred_at: new Date().toISOString() },
    })),
    refusal: 'signal_source_only',
  },
  listSignals: { ...operating(all(200), frozen, () => ({ path: '/v1/signals' })), listed: listOf },
  suspendTask: operating(only(200, 'operator', 'admin'), granted, ({ task }) => ({
    path: `/v1/tasks/${task}/suspend`,
    body: REASON,
  })),
  resumeTask: operating(only(200, 'operator', 'admin'), suspended, ({ task }) => ({
    path: `/v1/tasks/${task}/resume`,
  })),
  listTargets: { ...operating(all(200), nothing, () => ({ path: '/v1/targets' })), listed: listOf },
  pauseTarget: operating(only(200, 'operator', 'admin'), granted, () => ({ path: PAUSE, body: REASON })),
  resumeTarget: operating(only(200, 'operator', 'admin'), heldBack, () => ({ path: RESUME })),
  reconcileTarget: operating(only(202, 'operator', 'admin'), nothing, () => ({
    path: '/v1/targets/ledger-db/reconcile',
  })),
  checkTarget: operating(only(200, 'operator', 'admin'), nothing, () => ({ path: '/v1/targets/ledger-db/check' })),
  // These take a role that holds everywhere: nobody of these has one.
  checkCatalog: operating(all(403), nothing, () => ({ path: '/v1/catalog/check', body: { files: house.files } })),
  diffCatalog: operating(all(403), nothing, () => ({ path: '/v1/catalog/diff', body: { files: house.files } })),
  applyCatalog: operating(all(403), nothing, () => ({ path: '/v1/catalog/apply', body: { files: house.files } })),
  readTaskReach: operating(all(200), granted, ({ task }) => ({ path: `/v1/tasks/${task}/reach` })),
  readWorkloadReach: {
    ...operating(all(200), granted, () => ({ path: '/v1/workloads/dev%3Aagent-recon/reach' })),
    listed: listOf,
  },
  readEntitlementReach: operating(all(200), granted, () => ({ path: `/v1/entitlements/${ENTITLEMENT}/reach` })),
  readCatalog: { ...operating(all(200), nothing, () => ({ path: '/v1/catalog' })), anyScope: true },
  listWebhooks: { ...operating(all(200), nothing, () => ({ path: '/v1/webhooks' })), listed: listOf },
  testWebhook: operating(only(202, 'operator', 'admin'), nothing, () => ({ path: '/v1/webhooks/ledger/test' })),
  whoAmI: {
    ...operating(all(200), nothing, () => ({ path: '/v1/whoami' })),
    ...{ owner: 200, foreign: 200, anyScope: true },
  },
  explainToken: {
    ...operating(only(200, 'operator', 'admin'), nothing, async () => ({
      path: '/v1/whoami',
      body: { token: await house.token() },
    })),
    ...{ anyScope: true, reads: true },
  },
  readProtectedResource: open('/.well-known/oauth-protected-resource'),
  readAuthzenConfiguration: open('/.well-known/authzen-configuration'),
  // Nothing is set up for browsers here: test/integration/operator-login.test.ts does that.
  signIn: open('/login', 404),
  finishSignIn: { ...open('/login/callback', 401), refusal: 'login_failed' },
  signOut: { ...open('/logout', 403), refusal: 'cross_site_refused' },
  isAlive: open('/healthz'),
  isReady: open('/readyz'),
  readMetrics: open('/metrics'),
  readProblem: open('/problems/not_found'),
  readDocs: open('/docs'),
  readDocsAsset: open('/docs/swagger-ui.css'),
  readOpenApi: open('/openapi.json'),
};

const documentSchema = z.object({
  paths: z.record(
    z.string(),
    z.record(z.string(), z.object({ operationId: z.string(), security: z.array(z.unknown()) })),
  ),
});

/** Every operation that the broker itself says it has. */
async function operations() {
  const { paths } = documentSchema.parse((await ask(house.url, 'GET', '/openapi.json')).body);
  return Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, { operationId, security }]) => ({
      name: operationId,
      method: method.toUpperCase(),
      path,
      guarded: security.length > 0,
    })),
  );
}

test('every operation of the OpenAPI document has its row, and no row is without one', async () => {
  expect((await operations()).map(({ name }) => name).sort()).toEqual(Object.keys(rows).sort());
});

interface Caller {
  readonly name: string;
  readonly token: () => Promise<string | undefined>;
  readonly status: (row: Row) => number;
}

const callers: readonly Caller[] = [
  { name: 'anonymous', token: async () => undefined, status: () => 401 },
  { name: 'a foreign workload', token: () => house.token('agent-support'), status: ({ foreign }) => foreign },
  { name: 'the owner', token: () => house.token(), status: ({ owner }) => owner },
  ...roles.flatMap((role): Caller[] => [
    { name: role, token: () => operatorToken(role), status: ({ operators }) => operators[role] },
    {
      name: `${role}-elsewhere`,
      token: () => operatorToken(`${role}-elsewhere`),
      // What is out of scope does not exist; of a list that is a shorter list.
      status: ({ operators, listed, anyScope }) =>
        operators[role] >= 400 || listed !== undefined || anyScope ? operators[role] : 404,
    },
  ]),
];

test.each(Object.entries(rows))('%s', async (name, row) => {
  const operation = (await operations()).find((one) => one.name === name);
  if (operation === undefined) throw new Error('the OpenAPI document has no such operation');
  const { method, guarded } = operation;
  for (const caller of callers) {
    const { path, body } = await row.asked((await row.given()) ?? { task: '', grant: '', revocation: '' });
    const token = await caller.token();
    const reply = await ask(house.url, method, path, {
      ...(token === undefined ? {} : { token }),
      ...(body === undefined ? {} : { body }),
    });
    const status = guarded ? caller.status(row) : row.owner;
    const changes = guarded && method !== 'GET' && !row.reads;
    expect({
      caller: caller.name,
      status: reply.status,
      code: reply.status >= 400 ? reply.body['code'] : undefined,
      listed: status === 200 && row.listed ? row.listed(reply.body) > 0 : undefined,
      evidence: changes ? await evidenceOf(reply) : [],
    }).toEqual({
      caller: caller.name,
      status,
      code: status >= 400 ? codeOf(status, caller, row, guarded) : undefined,
      listed: status === 200 && row.listed ? !caller.name.endsWith('-elsewhere') : undefined,
      // What an operator changed is told with the operator's name; what was refused changed nothing.
      evidence: changes && status < 400 ? told(caller) : [],
    });
  }
});

function codeOf(status: number, { name }: Caller, row: Row, guarded: boolean): string {
  if (!guarded) return row.refusal ?? 'not_found';
  if (name === 'anonymous') return 'workload_token_missing';
  if (status === 401) return 'workload_token_invalid';
  if (status === 404) return 'not_found';
  return row.refusal ?? 'operator_only';
}

/** By whom the evidence says that it was done; of what an agent did, that it is there. */
async function evidenceOf({ headers }: Reply): Promise<string[]> {
  const events = await house.onStore<{ by: string | null }>(
    `SELECT DISTINCT regexp_replace(coalesce(payload->>'carrier', payload->>'by'), '^operator ', '') AS by FROM mayfly.audit_events WHERE correlation_id = $1`,
    [headers['x-request-id']],
  );
  const named = events.flatMap(({ by }) => (by?.startsWith('dev-operators:') ? [by] : []));
  return named.length > 0 || events.length === 0 ? named : ['an agent'];
}

function told({ name }: Caller): readonly string[] {
  return [roles.some((role) => name.replace('-elsewhere', '') === role) ? `dev-operators:${name}` : 'an agent'];
}
