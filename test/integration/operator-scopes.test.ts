import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { killsPageBody } from '../../src/http/kill-bodies.ts';
import { queuePageBody } from '../../src/http/queue-bodies.ts';
import { targetsPageBody } from '../../src/http/target-bodies.ts';
import { ask, type Reply } from '../support/ask.ts';
import { type House, makeTarget, prepareTarget, startHouse } from '../support/house.ts';

const LEDGER = 'ledger-db/read-invoices';
const PEOPLE = 'people-db/read-invoices';
const REASON = { reason: 'the target is being moved' };
/** Claim value → what it gives. Each is the subject of an operator too. */
const ROLES = `{
        finance: [{ roles: [operator, auditor], scope: { owner: team-finance } }],
        people: [{ roles: [operator, auditor], scope: { owner: team-people } }],
        both: [{ roles: [operator], scope: { owner: team-finance } }, { roles: [operator], scope: { environment: staging } }],
        staging: [{ roles: [operator], scope: { environment: staging } }],
        gold: [{ roles: [operator], scope: { labels: { tier: gold } } }],
        gold-finance: [{ roles: [operator], scope: { owner: team-finance, labels: { tier: gold } } }],
        nowhere: [{ roles: [admin], scope: { owner: team-nobody } }],
        looker: [viewer, { roles: [operator], scope: { owner: team-finance } }],
        root: [admin] }`;

let house: House;
let files: Record<string, string>;

beforeAll(async () => {
  const password = 'pw-of-the-people';
  house = await startHouse({ env: { MAYFLY_TARGET_PEOPLE_DB_PASSWORD: password } });
  const database = await makeTarget(house.targetServer);
  const trust = house.files['trust.yaml'] ?? '';
  const suffix = database.replace('ledger', '');
  files = {
    ...house.files,
    'trust.yaml': trust.replace('claim: roles', 'claim: sub').replace(/roles: \{[^}]*\}/, `roles: ${ROLES}`),
    'targets/people-db.yaml': `
name: people-db
provider: postgres
connection: { host: 127.0.0.1, port: ${house.targetServer.port}, database: ${database}, user: ${database}_broker, password: "env:MAYFLY_TARGET_PEOPLE_DB_PASSWORD", sslmode: disable }
environment: staging
owner: team-people
sensitivity: confidential
labels: { tier: gold }
`,
    'entitlements/people-db.yaml': `
- name: ${PEOPLE}
  target: people-db
  sensitivity: confidential
  actions: [read]
  max_ttl_seconds: 600
  provider: { template: mayfly_t_read_invoices${suffix}, privileges: [{ schema: billing, tables: [invoices], grant: [SELECT] }], connection_limit: 4, max_live: 500 }
`,
    'policies/people.cedar': `
@id("read-people") @max_ttl("5m")
permit (principal is Mayfly::Task, action, resource == Mayfly::Entitlement::"${PEOPLE}");
`,
  };
  await prepareTarget(house.targetServer, files, house.broker.installation, password, 'people-db');
  await house.broker.apply(files);
});
afterAll(async () => {
  await house?.stop();
});
beforeEach(async () => {
  for (const target of ['ledger-db', 'people-db']) await as('root', 'POST', `/v1/targets/${target}/resume`);
});

async function as(subject: string, method: string, path: string, body?: unknown): Promise<Reply> {
  // What its `roles` say counts for nothing: the catalog looks at `sub`.
  const asked = { subject, roles: ['viewer' as const], audience: house.url, ttl_seconds: 900 };
  const { token } = await house.issuer.signOperatorToken(asked);
  return await ask(house.url, method, path, { token, ...(body === undefined ? {} : { body }) });
}

async function taskWith(...entitlements: string[]) {
  const client = house.client();
  const { task } = await client.openTask(await house.sign({ entitlements }));
  const grants = await Promise.all(entitlements.map((entitlement) => client.issue(task.id, { entitlement })));
  return {
    task: task.id,
    grants: grants.map(({ grant }) => grant.id),
    revocations: grants.map(({ grant }) => grant.revocation.id),
  };
}

/** Grants on both targets that ended, and whose revocations wait, since both are paused. */
async function heldBack() {
  const [ledger, people] = [await taskWith(LEDGER), await taskWith(PEOPLE)];
  for (const [target, { task }] of [
    ['ledger-db', ledger],
    ['people-db', people],
  ] as const) {
    expect((await as('root', 'POST', `/v1/targets/${target}/pause`, REASON)).status).toBe(200);
    expect((await as('root', 'POST', `/v1/tasks/${task}/cancel`)).status).toBe(202);
  }
  return { ledger, people };
}

const queueOf = async (subject: string, query = '') =>
  queuePageBody.parse((await as(subject, 'GET', `/v1/revocations${query}`)).body);
const eventsBy = async (subject: string) =>
  (
    await house.onStore<{ type: string }>(
      `SELECT type FROM mayfly.audit_events WHERE payload->>'by' = $1 ORDER BY ts, id`,
      [`dev-operators:${subject}`],
    )
  ).map(({ type }) => type);

describe('lists hold what is in the scope of some role, and nothing else', () => {
  test.each([
    ['root', ['ledger-db', 'people-db']],
    ['looker', ['ledger-db', 'people-db']],
    ['both', ['ledger-db', 'people-db']],
    ['finance', ['ledger-db']],
    ['people', ['people-db']],
    ['staging', ['people-db']],
    ['gold', ['people-db']],
    ['gold-finance', []],
    ['nowhere', []],
  ])('%s sees %j', async (subject, wanted) => {
    await heldBack();
    const { items } = targetsPageBody.parse((await as(subject, 'GET', '/v1/targets')).body);
    expect(items.map(({ name }) => name)).toEqual(wanted);
    const queue = await queueOf(subject);
    expect([...new Set(queue.items.map(({ target }) => target))].sort()).toEqual(wanted);
    expect(queue.counts.map(({ target }) => target)).toEqual(wanted);
    for (const target of ['ledger-db', 'people-db'])
      expect((await queueOf(subject, `?target=${target}`)).items.length > 0).toBe(wanted.includes(target));
  });

  test('pages go on over what is out of scope', async () => {
    const earlier: Awaited<ReturnType<typeof taskWith>>[] = [];
    for (const entitlement of [PEOPLE, LEDGER, PEOPLE]) earlier.push(await taskWith(entitlement));
    await heldBack();
    for (const { task } of earlier) await as('root', 'POST', `/v1/tasks/${task}/cancel`);
    const seen: string[] = [];
    for (let cursor: string | null = ''; cursor !== null; ) {
      const page: Awaited<ReturnType<typeof queueOf>> = await queueOf(
        'people',
        `?limit=1${cursor === '' ? '' : `&cursor=${cursor}`}`,
      );
      seen.push(...page.items.map(({ target }) => target));
      cursor = page.next_cursor;
    }
    expect(seen.length).toBeGreaterThanOrEqual(3);
    expect(new Set(seen)).toEqual(new Set(['people-db']));
  });
});

test('what is out of scope is told of as what does not exist, whatever is asked about it', async () => {
  const { ledger, people } = await heldBack();
  const unknown = '0198c0de-7a11-7000-8000-0123456789ab';
  const paths = (
    { task, grants, revocations }: { task: string; grants: readonly string[]; revocations: readonly string[] },
    target: string,
  ) =>
    [
      ['GET', `/v1/tasks/${task}`],
      ['GET', `/v1/tasks/${task}?wait=0`],
      ['GET', `/v1/tasks/${task}/timeline`],
      ['POST', `/v1/tasks/${task}/complete`],
      ['POST', `/v1/tasks/${task}/cancel`],
      ['GET', `/v1/grants/${grants[0]}`],
      ['DELETE', `/v1/grants/${grants[0]}`],
      ['GET', `/v1/revocations/${revocations[0]}`],
      ['POST', `/v1/revocations/${revocations[0]}/retry`],
      ['POST', `/v1/revocations/${revocations[0]}/write-off`, REASON],
      ['POST', `/v1/targets/${target}/pause`, REASON],
      ['POST', `/v1/targets/${target}/resume`],
      ['POST', `/v1/targets/${target}/reconcile`],
      ['POST', `/v1/targets/${target}/check`],
    ] as const;
  const said = async (subject: string, [method, path, body]: readonly [string, string, unknown?]) => {
    const reply = await as(subject, method, path, body);
    return { status: reply.status, body: { ...reply.body, instance: '' } };
  };
  const nothing = paths(
    { task: `task_${unknown}`, grants: [`grt_${unknown}`], revocations: [`rev_${unknown}`] },
    'no-such-db',
  );
  for (const [index, foreign] of paths(people, 'people-db').entries()) {
    const notThere = await said('finance', nothing[index] ?? foreign);
    expect([foreign, await said('finance', foreign)]).toEqual([foreign, notThere]);
    expect(notThere).toMatchObject({ status: 404, body: { code: 'not_found' } });
  }
  expect(await eventsBy('finance')).toEqual([]);
  expect((await queueOf('root', `?task=${people.task}`)).items).toMatchObject([{ state: 'due', attempts: 0 }]);

  // The same of its own.
  await house.onStore(`UPDATE mayfly.revocations SET try_at = try_at + interval '1 hour' WHERE id = $1`, [
    ledger.revocations[0]?.slice(4),
  ]);
  const statuses: number[] = [];
  for (const own of paths(ledger, 'ledger-db').filter(([, path]) => !/complete|write-off/.test(path)))
    statuses.push((await said('finance', own)).status);
  expect(statuses).toEqual([200, 200, 200, 202, 200, 202, 200, 202, 200, 200, 202, 200]);
  expect(await eventsBy('finance')).toEqual([
    'revocation.retried',
    'target.resumed',
    'target.reconcile_asked',
    'target.checked',
  ]);
});

describe('a kill', () => {
  const raise = async (subject: string, scope: string, id?: string) => {
    const { status, body } = await as(subject, 'POST', '/v1/kill', { scope, ...(id && { id }), ...REASON });
    return { status, code: body['code'], id: String(body['id']) };
  };
  const listed = async (subject: string) =>
    killsPageBody.parse((await as(subject, 'GET', '/v1/kill?standing=true')).body).items.map(({ id }) => id);
  afterEach(async () => {
    for (const id of await listed('root')) await as('root', 'DELETE', `/v1/kill/${id}`);
  });

  test('of a target, an entitlement or a task is raised, seen and lifted by those who have all of it in scope', async () => {
    const [{ task: own }, { task: foreign }, { task: shared }] = [
      await taskWith(LEDGER),
      await taskWith(PEOPLE),
      await taskWith(LEDGER, PEOPLE),
    ];
    const asked = [
      ['target', 'ledger-db', 'people-db'],
      ['entitlement', LEDGER, PEOPLE],
      ['task', own, foreign],
      ['task', own, shared],
    ] as const;
    for (const [scope, mine, not] of asked) {
      const refused = await raise('finance', scope, not);
      expect([scope, refused.status, refused.code]).toEqual([scope, 404, 'not_found']);
      const kill = await raise('root', scope, not);
      expect([kill.status, await listed('root'), await listed('finance')]).toEqual([201, [kill.id], []]);
      expect((await as('finance', 'DELETE', `/v1/kill/${kill.id}`)).status).toBe(404);
      expect(await listed('root')).toEqual([kill.id]);
      await as('root', 'DELETE', `/v1/kill/${kill.id}`);

      const { status, id } = await raise('finance', scope, mine);
      expect([scope, status, await listed('finance')]).toEqual([scope, 201, [id]]);
      expect((await as('finance', 'DELETE', `/v1/kill/${id}`)).status).toBe(200);
    }
    expect((await raise('both', 'task', shared)).status).toBe(201);
    expect(await listed('finance')).toEqual([]);
  });

  test('of an agent, an issuer or all takes a role that holds everywhere', async () => {
    const issuer = /issuer: (\S+\/orchestrator),/.exec(files['trust.yaml'] ?? '')?.[1];
    for (const [scope, named] of [['agent', 'dev:agent-support'], ['issuer', issuer], ['all']] as const) {
      for (const subject of ['finance', 'both', 'nowhere']) {
        const refused = await raise(subject, scope, named);
        expect([subject, scope, refused.status, refused.code]).toEqual([subject, scope, 403, 'operator_only']);
      }
      const kill = await raise('root', scope, named);
      expect([scope, kill.status, await listed('both')]).toEqual([scope, 201, []]);
      expect((await as('both', 'DELETE', `/v1/kill/${kill.id}`)).status).toBe(404);
      // Who may look everywhere sees it, and acts in its own scope only.
      expect(await listed('looker')).toEqual([kill.id]);
      expect((await as('looker', 'DELETE', `/v1/kill/${kill.id}`)).status).toBe(404);
      expect((await as('root', 'DELETE', `/v1/kill/${kill.id}`)).status).toBe(200);
    }
  });
});

test('a role holds in its own scope only: who may look everywhere acts on its own', async () => {
  const { ledger, people } = await heldBack();
  expect((await as('looker', 'GET', `/v1/revocations/${people.revocations[0]}`)).status).toBe(200);
  expect((await as('looker', 'POST', `/v1/revocations/${people.revocations[0]}/retry`)).status).toBe(404);
  expect((await as('looker', 'POST', `/v1/revocations/${ledger.revocations[0]}/retry`)).status).toBe(202);
  expect((await as('looker', 'GET', `/v1/tasks/${ledger.task}/timeline`)).body['code']).toBe('operator_only');
});

test('a task that may reach beyond a scope is not in it; its grants are, each by its own target', async () => {
  const { task, grants } = await taskWith(LEDGER, PEOPLE);
  const [ledger, people] = grants;
  for (const subject of ['finance', 'people']) {
    expect((await as(subject, 'GET', `/v1/tasks/${task}`)).status).toBe(404);
    expect((await as(subject, 'POST', `/v1/tasks/${task}/cancel`)).status).toBe(404);
  }
  expect((await as('finance', 'GET', `/v1/grants/${people}`)).status).toBe(404);
  expect((await as('finance', 'DELETE', `/v1/grants/${ledger}`)).status).toBe(202);
  expect((await as('people', 'GET', `/v1/grants/${people}`)).body['state']).toBe('active');
  expect((await as('both', 'POST', `/v1/tasks/${task}/cancel`)).status).toBe(202);
  const [event] = await house.onStore<{ payload: object }>(
    `SELECT payload FROM mayfly.audit_events WHERE type = 'task.cancelled' AND task_id = $1`,
    [task.slice(5)],
  );
  expect(event?.payload).toEqual({ by: 'dev-operators:both' });
});

test('the scope is that of the catalog in force, and what left the catalog is for those whose role holds everywhere', async () => {
  const { people } = await heldBack();
  const path = `/v1/revocations/${people.revocations[0]}`;
  const { 'targets/people-db.yaml': target = '', ...others } = files;
  await house.broker.apply({ ...files, 'targets/people-db.yaml': target.replace('team-people', 'team-finance') });
  await vi.waitFor(async () => expect((await as('finance', 'GET', path)).status).toBe(200));
  expect((await as('people', 'GET', path)).status).toBe(404);

  const { 'entitlements/people-db.yaml': _, 'policies/people.cedar': __, ...without } = others;
  await house.broker.apply(without);
  await vi.waitFor(async () => expect((await as('finance', 'GET', path)).status).toBe(404));
  for (const subject of ['root', 'looker']) expect((await as(subject, 'GET', path)).status).toBe(200);
  await house.broker.apply(files);
});
