import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { applyCatalog } from '../../src/broker/apply-catalog.ts';
import { loadCatalog } from '../../src/catalog/load.ts';
import { loadProviders } from '../../src/catalog/provider-registry.ts';
import type { TaskBody, TaskStanding } from '../../src/client/index.ts';
import { makeKey, signToken } from '../../src/identity/testing/keys.ts';
import { Database } from '../../src/store/database.ts';
import { ask } from '../support/ask.ts';
import { Agent, delegationByIssuer, eventOf, outcome } from '../support/delegating.ts';
import { type House, startHouse } from '../support/house.ts';

// Whom the catalog trusts, for tasks that were delegated and for what is said of them later.

const POD = 'system:serviceaccount:finance:recon';
const GITHUB = 'https://token.actions.githubusercontent.com';

let house: House;
const clusterKey = makeKey('cluster');
const githubKey = makeKey('github', 'RS256');
const keys = ({ jwk }: { jwk: object }) => JSON.stringify({ inline: { keys: [jwk] } });
let files: Readonly<Record<string, string>>;

beforeAll(async () => {
  house = await startHouse();
  const trust = house.files['trust.yaml'] ?? '';
  files = {
    ...house.files,
    'trust.yaml': trust.replace('"dev:agent-support"]', `"dev:agent-support", "cluster:${POD}"]`).replace(
      'workload_sources:',
      `  - { kind: token, name: runs, source: github, purposes: [answer.customer], workloads: ["github:65/74"], max_task_seconds: 600,
      purpose: answer.customer, subject: actor, entitlements: [ledger-db/read-invoices], not_after: token, proof_of_possession: none }
workload_sources:
  - { name: cluster, kind: kubernetes, issuer: "https://cluster.example", jwks: ${keys(clusterKey)}, algorithms: [ES256] }
  - { name: github, kind: github-actions, jwks: ${keys(githubKey)}, repositories: [{ repository_owner_id: "65", repository_id: "74" }] }`,
    ),
  };
  await house.broker.apply(files);
});
afterAll(() => house?.stop());

const times = () => {
  const now = Math.floor(Date.now() / 1000);
  return { aud: house.url, iat: now, exp: now + 300 };
};
const pod = (uid: number) =>
  signToken(clusterKey, {
    ...{ ...times(), iss: 'https://cluster.example', sub: POD },
    'kubernetes.io': {
      namespace: 'finance',
      pod: { name: `recon-${uid}`, uid: `22222222-2222-4222-8222-22222222222${uid}` },
      serviceaccount: { name: 'recon', uid: '33333333-3333-4333-8333-333333333333' },
    },
  });
const run = (claims: object = {}, header: object = {}) =>
  signToken(
    githubKey,
    {
      ...{
        ...times(),
        iss: GITHUB,
        sub: 'repo:o/r:ref:refs/heads/main',
        repository_owner_id: '65',
        repository_id: '74',
      },
      ...{ run_id: '9001', run_attempt: '1', actor: 'octocat', jti: crypto.randomUUID(), ...claims },
    },
    { ...header },
  );

describe('a task without a key', () => {
  let parent: TaskBody;
  let id: string;
  /** What another copy was told that brought the delegation. */
  let foreign: unknown;
  const call = (uid: number, method: string, path: string, body?: object) =>
    ask(house.url, method, path, { token: pod(uid), ...(body && { body }) });
  beforeEach(async () => {
    const request = await house.sign({ workload: POD, maxDepth: 1 });
    const opened = await ask(house.url, 'POST', '/v1/tasks', { token: pod(1), body: { request } });
    parent = opened.body['task'] as TaskBody;
    const delegation = await delegationByIssuer(house, parent, await Agent.make(house, POD), ({ claims }) => {
      Reflect.deleteProperty(claims, 'cnf');
    });
    const path = `/v1/tasks/${parent.id}/children`;
    foreign = outcome(await call(2, 'POST', path, { delegation }));
    const offered = await call(1, 'POST', path, { delegation });
    ({ id } = offered.body['task'] as TaskStanding);
  });

  test('belongs to the copy that claims it first, and is given by the copy that owns its parent', async () => {
    expect(foreign).toEqual([404, 'not_found']);
    for (const uid of [2, 3]) expect((await call(uid, 'GET', `/v1/tasks/${id}`)).status).toBe(200);
    expect((await call(3, 'POST', `/v1/tasks/${id}/claim`)).status).toBe(200);
    expect(outcome(await call(2, 'POST', `/v1/tasks/${id}/claim`))).toEqual([404, 'not_found']);
    expect(outcome(await call(2, 'GET', `/v1/tasks/${id}`))).toEqual([404, 'not_found']);
    expect((await call(3, 'GET', `/v1/tasks/${id}`)).body).toMatchObject({ state: 'active' });
    const [told] = await house.onStore(
      `SELECT payload FROM mayfly.audit_events WHERE task_id = $1 AND type = 'task.claimed'`,
      [id.slice(5)],
    );
    expect(told?.['payload']).toMatchObject({ instance: { id: '22222222-2222-4222-8222-222222222223' } });
  });

  test('that many copies claim at once belongs to one of them', async () => {
    const replies = await Promise.all([1, 2, 3, 4, 5].map((uid) => call(uid, 'POST', `/v1/tasks/${id}/claim`)));
    expect(replies.filter(({ status }) => status === 200)).toHaveLength(1);
    expect(replies.filter(({ status }) => status === 404)).toHaveLength(4);
  });
});

describe('a task that a token stated', () => {
  const open = async (token = run()) => {
    const { body } = await ask(house.url, 'POST', '/v1/tasks', { token, body: { request: token } });
    return { token, task: body['task'] as TaskBody };
  };

  test('is not the orchestrator’s to say anything of, nor its own issuer’s, which signs none', async () => {
    const { token, task } = await open();
    const tell = (event: string) => ask(house.url, 'POST', `/v1/tasks/${task.id}/events`, { token, body: { event } });
    expect(outcome(await tell(await eventOf(house, task.id, { op: 'cancel' })))).toEqual([404, 'not_found']);
    const claims = { task_id: task.id, op: 'cancel' };
    const refused = await tell(run(claims, { typ: 'agent-task-event+jwt' }));
    expect(outcome(refused)).toEqual([401, 'request_issuer_unknown']);
    expect(refused.body['detail']).toBe('This issuer states tasks by tokens, and signs no events.');
    expect(outcome(await tell(run(claims)))).toEqual([401, 'request_type_wrong']);
    expect((await ask(house.url, 'GET', `/v1/tasks/${task.id}`, { token })).body).toMatchObject({ state: 'active' });
  });

  test('gives nothing to others', async () => {
    const { token, task } = await open(run({ run_id: '9002' }));
    const delegation = await delegationByIssuer(house, task, await Agent.make(house));
    const reply = await ask(house.url, 'POST', `/v1/tasks/${task.id}/children`, { token, body: { delegation } });
    expect(outcome(reply)).toEqual([403, 'excessive_delegation']);
  });
});

describe('under a catalog that changed unheard', () => {
  let owner: Agent;
  let other: Agent;
  let parent: TaskBody;
  beforeEach(async () => {
    owner = await Agent.make(house);
    other = await Agent.make(house, 'agent-support');
    parent = await owner.open();
  });
  afterEach(() => house.broker.apply(files));

  /** Nobody hears of it: a call finds out at the store, and begins again from its proofs. */
  async function apply(path: string, from: string, to: string): Promise<void> {
    const text = files[path] ?? '';
    expect(text).toContain(from);
    const db = new Database({ url: house.store.runtimeUrl, connections: 1, onError: () => {} });
    const changed = { ...files, [path]: text.replace(from, to) };
    const catalog = loadCatalog(changed, { providers: await loadProviders(['postgres']), allowDev: true });
    try {
      await applyCatalog({ db, published: async () => {} }, catalog, 'another', 'test');
    } finally {
      await db.close();
    }
  }

  test('a child is not born for a workload that may not be named any more', async () => {
    const delegation = await owner.offerOf(parent, other);
    await apply('trust.yaml', '"dev:agent-support", ', '');
    const reply = await owner.call('POST', `/v1/tasks/${parent.id}/children`, { delegation });
    expect(outcome(reply)).toEqual([403, 'issuer_may_not_state']);
  });

  test('nor claimed by it', async () => {
    const { id } = await owner.delegate(parent, other);
    await apply('trust.yaml', '"dev:agent-support", ', '');
    expect(outcome(await other.call('POST', `/v1/tasks/${id}/claim`, {}))).toEqual([403, 'issuer_may_not_state']);
  });

  test('a phase that was taken away is none', async () => {
    await apply('purposes.yaml', ', closing]', ']');
    const event = await eventOf(house, parent.id, { op: 'phase', phase: 'closing' });
    const reply = await owner.call('POST', `/v1/tasks/${parent.id}/events`, { event });
    expect(outcome(reply)).toEqual([403, 'issuer_may_not_state']);
  });

  test('a word of an issuer that is not trusted any more is none', async () => {
    const event = await eventOf(house, parent.id, { op: 'phase', phase: 'closing' });
    await apply('trust.yaml', `issuer: ${house.issuer.issuers.orchestrator}`, 'issuer: http://127.0.0.1:1/gone');
    const reply = await owner.call('POST', `/v1/tasks/${parent.id}/events`, { event });
    expect(outcome(reply)).toEqual([401, 'request_issuer_unknown']);
  });
});
