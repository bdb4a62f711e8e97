import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { applyCatalog } from '../../src/broker/apply-catalog.ts';
import { loadCatalog } from '../../src/catalog/load.ts';
import { loadProviders } from '../../src/catalog/provider-registry.ts';
import type { TaskBody } from '../../src/client/index.ts';
import type { StepName } from '../../src/domain/step.ts';
import { Database } from '../../src/store/database.ts';
import type { Reply } from '../support/ask.ts';
import type { RunningBroker } from '../support/broker-process.ts';
import { Agent, outcome } from '../support/delegating.ts';
import { type House, startHouse } from '../support/house.ts';
import { operatorsOf } from '../support/operators.ts';
import { FORBIDS, ISSUER, send, signal, sources } from '../support/signals.ts';

const WAIT = { timeout: 20_000, interval: 20 };
const INVOICES = 'ledger-db/read-invoices';
/** As in `store/locks.ts`. */
const CATALOG_LOCK = 0x4d460002;
const POLICIES = 'policies/test.cedar';

let house: House;
/** The other replica: what is said there comes while the first one is held. */
let replica: RunningBroker;
let owner: Agent;
let task: TaskBody;
let withSources: Readonly<Record<string, string>>;
beforeAll(async () => {
  house = await startHouse({ proofOfPossession: 'required', inProcess: false });
  replica = await house.startReplica();
  owner = await Agent.make(house);
  const trust = `${house.files['trust.yaml'] ?? ''}${sources(owner.key.thumbprint)}`;
  withSources = {
    ...house.files,
    'trust.yaml': trust.replace('change_freeze, device, user] }', 'change_freeze, device, user], suspends: [user] }'),
    [POLICIES]: `${house.files[POLICIES] ?? ''}${FORBIDS}
@id("no-renewals-here") forbid (principal, action == Mayfly::Action::"renew", resource) when { context.device == "compliant" };`,
  };
  await house.broker.apply(withSources);
});
afterAll(() => house?.stop());
beforeEach(async () => {
  await house.onStore('DELETE FROM mayfly.signals_standing');
  // Both replicas know the catalog that names the source.
  await vi.waitFor(async () => {
    for (const url of [house.url, replica.url])
      if ((await risk('low', url)).status !== 200) throw new Error('it does not know the source yet');
  }, WAIT);
  task = await owner.open();
});
afterEach(async () => {
  await house.broker.signal('SIGCONT');
  await house.broker.fallAt([]);
});

/** Asks the first replica, and holds all of it when it comes to that step. */
async function held(step: StepName, asking: () => Promise<Reply>): Promise<{ goOn: () => Promise<Reply> }> {
  await house.broker.fallAt([{ step, signal: 'SIGSTOP' }]);
  const asked = asking();
  await house.broker.reached(step);
  return {
    goOn: async () => {
      await house.broker.signal('SIGCONT');
      return await asked;
    },
  };
}

const waiting = (count: number) =>
  vi.waitFor(
    async () => expect(await house.onStore('SELECT FROM pg_locks WHERE NOT granted')).toHaveLength(count),
    WAIT,
  );
const risk = (level: string, url = replica.url) =>
  send(house, signal('workload_risk', { subject: { workload: 'dev:agent-recon' }, level }), 'risk-engine', url);
const freeze = (url = replica.url) =>
  send(house, signal('change_freeze', { scope: { target: 'ledger-db' }, state: 'on' }), 'risk-engine', url);
const device = () =>
  send(
    house,
    signal('device', { subject: { workload: 'dev:agent-recon' }, state: 'compliant' }),
    'risk-engine',
    replica.url,
  );
const disable = (url = replica.url) =>
  send(
    house,
    signal('user', { subject: { issuer: ISSUER, user: 'user:dana' }, state: 'disabled' }),
    'risk-engine',
    url,
  );
const issue = (url = house.url) => owner.call('POST', `/v1/tasks/${task.id}/grants`, { entitlement: INVOICES }, url);

/** Nothing of that task lives, here or there. */
async function nothingLives(): Promise<void> {
  await vi.waitFor(async () => {
    expect(
      await house.onStore(`SELECT state FROM mayfly.grants WHERE task_id = $1 AND state <> 'revoked'`, [
        task.id.slice(5),
      ]),
    ).toEqual([]);
  }, WAIT);
  const handles = await house.onStore<{ handle: string }>('SELECT handle FROM mayfly.grants WHERE task_id = $1', [
    task.id.slice(5),
  ]);
  expect(
    await house.onTarget('SELECT FROM pg_roles WHERE rolcanlogin AND rolname = ANY($1)', [
      handles.map(({ handle }) => handle),
    ]),
  ).toEqual([]);
}

describe('a grant that is asked for while a signal comes that forbids it', () => {
  test.each([
    ['its workload’s risk', () => risk('high', house.url), 'denied_by_policy', 403],
    ['a freeze of its target', () => freeze(house.url), 'denied_by_policy', 403],
    ['its user', () => disable(house.url), 'task_suspended', 409],
  ] as const)('is not begun, where the word about %s is not committed yet', async (_what, say, code, status) => {
    const saying = await held('signal.before', say);
    const asked = issue(replica.url);
    await waiting(1);
    expect((await saying.goOn()).status).toBe(200);
    expect(outcome(await asked)).toEqual([status, code]);
    await nothingLives();
  });

  test.each([
    ['its workload’s risk', () => risk('high'), 'denied_by_policy', 403],
    ['a freeze of its target', () => freeze(), 'denied_by_policy', 403],
    ['its user', () => disable(), 'task_suspended', 409],
  ] as const)('is not begun, where it was decided before the word about %s', async (_what, say, code, status) => {
    const asked = await held('intend.before', issue);
    expect((await say()).status).toBe(200);
    expect(outcome(await asked.goOn())).toEqual([status, code]);
    expect(await house.onStore('SELECT FROM mayfly.grants WHERE task_id = $1', [task.id.slice(5)])).toEqual([]);
  });

  test.each([
    ['its workload’s risk', 'mint.before', () => risk('high')],
    ['its workload’s risk', 'mint.after', () => risk('high')],
    ['a freeze of its target', 'activate.before', () => freeze()],
    ['its user', 'activate.before', () => disable()],
  ] as const)('is not delivered, where the word about %s finds it at %s', async (_what, step, say) => {
    const asked = await held(step, issue);
    expect((await say()).status).toBe(200);
    const { status } = await asked.goOn();
    expect(status).toBeGreaterThanOrEqual(400);
    const rows = await house.onStore('SELECT activated_at, ended_by FROM mayfly.grants WHERE task_id = $1', [
      task.id.slice(5),
    ]);
    expect(rows).toEqual([{ activated_at: null, ended_by: 'signal' }]);
    await nothingLives();
  });

  test('ends, where it became active before', async () => {
    const asked = await held('activate.after', issue);
    expect((await risk('high')).status).toBe(200);
    expect((await asked.goOn()).status).toBe(201);
    await nothingLives();
  });
});

test('a grant is delivered where the signal that came meanwhile leaves it permitted', async () => {
  const asked = await held('activate.before', issue);
  expect((await risk('medium')).status).toBe(200);
  expect((await asked.goOn()).status).toBe(201);
  const rows = await house.onStore('SELECT state FROM mayfly.grants WHERE task_id = $1', [task.id.slice(5)]);
  expect(rows).toEqual([{ state: 'active' }]);
});

test('a task that an operator lets go on at the moment when its user is disabled is suspended for that', async () => {
  const operators = operatorsOf(house);
  const path = `/v1/tasks/${task.id}`;
  expect((await operators.post(`${path}/suspend`, { reason: 'looked strange' })).status).toBe(200);
  const resuming = await held('resume-task.before', () => operators.post(`${path}/resume`));
  const saying = disable();
  await waiting(1);
  // What it then shows of the task may be from before the signal or after it.
  expect((await resuming.goOn()).status).toBe(200);
  expect((await saying).status).toBe(200);
  expect((await owner.client().task(task.id)).state).toBe('suspended');
  const user = signal('user', { subject: { issuer: ISSUER, user: 'user:dana' }, state: 'enabled' });
  expect((await send(house, user)).status).toBe(200);
  expect((await owner.client().task(task.id)).state).toBe('active');
});

test('a renewal that a signal overtakes takes back what the target was told, and ends by the policy that forbids it', async () => {
  const { grant } = await owner.client().issue(task.id, { entitlement: INVOICES, ttl_seconds: 60 });
  const asked = await held('renew.after', () =>
    owner.call('POST', `/v1/grants/${grant.id}/renew`, { ttl_seconds: 300 }),
  );
  // It forbids only to renew: nothing else would end it, with the longer life that its target was told of.
  expect((await device()).status).toBe(200);
  expect(outcome(await asked.goOn())).toEqual([409, 'grant_ended']);
  await nothingLives();
  const told = await owner.client().timeline(task.id);
  expect(told.filter(({ type }) => type === 'grant.renewed')).toEqual([]);
  expect(told.find(({ type }) => type === 'grant.ended')).toMatchObject({
    ...{ cause: 'signal', payload: { because: 'renewal_overtaken', policies: ['no-renewals-here'] } },
  });
});

test('a renewal goes on where the signal that came meanwhile leaves it permitted', async () => {
  const { grant } = await owner.client().issue(task.id, { entitlement: INVOICES, ttl_seconds: 60 });
  const asked = await held('renew.after', () =>
    owner.call('POST', `/v1/grants/${grant.id}/renew`, { ttl_seconds: 300 }),
  );
  expect((await risk('medium')).status).toBe(200);
  expect((await asked.goOn()).status).toBe(200);
  const after = await owner.client().grant(grant.id);
  expect(after.state).toBe('active');
  expect(Date.parse(after.deadline ?? '')).toBeGreaterThan(Date.parse(grant.deadline));
});

test('a source that a catalog withdraws at this moment is not heard, and leaves no suspension behind', async () => {
  const db = new Database({ url: house.store.runtimeUrl, connections: 1, onError: () => {} });
  let goOn = () => {};
  const gate = new Promise<void>((resolve) => (goOn = resolve));
  try {
    const catalog = loadCatalog(house.files, { providers: await loadProviders(['postgres']), allowDev: true });
    let reached = () => {};
    const holding = new Promise<void>((resolve) => (reached = resolve));
    const admit = async () => {
      reached();
      await gate;
      return {};
    };
    const applied = applyCatalog({ db, published: async () => {} }, catalog, 'test', 'withdrawn', { admit });
    await holding;
    const saying = disable();
    // It waits for the catalog, whatever else waits.
    await vi.waitFor(async () => {
      const waits = await house.onStore(
        "SELECT FROM pg_locks WHERE NOT granted AND locktype = 'advisory' AND classid = $1",
        [CATALOG_LOCK],
      );
      expect(waits).not.toEqual([]);
    }, WAIT);
    goOn();
    await applied;
    expect((await saying).status).toBeGreaterThanOrEqual(400);
    expect(await house.onStore(`SELECT FROM mayfly.suspensions WHERE task_id = $1`, [task.id.slice(5)])).toEqual([]);
    expect(await house.onStore('SELECT state FROM mayfly.tasks WHERE id = $1', [task.id.slice(5)])).toEqual([
      { state: 'active' },
    ]);
  } finally {
    goOn();
    await db.close();
    await house.broker.apply(withSources);
  }
});

test('of signals that are sent to two replicas at once by one source, each counts once and the newest stands', async () => {
  const levels = ['low', 'high', 'medium', 'critical', 'low'];
  const words = levels.flatMap((level) =>
    [1, 2].map(() => signal('workload_risk', { subject: { workload: 'dev:agent-recon' }, level })),
  );
  const replies = await Promise.all(
    words.flatMap((word) => [house.url, replica.url].map((url) => send(house, word, 'risk-engine', url))),
  );
  expect(new Set(replies.map(({ status }) => status))).toEqual(new Set([200]));
  const ids = words.map(({ id }) => id);
  expect(await house.onStore('SELECT FROM mayfly.signals WHERE key = ANY($1)', [ids])).toHaveLength(words.length);
  const [stands] = await house.onStore<{ key: string; value: string }>(
    'SELECT g.key, s.value FROM mayfly.signals_standing s JOIN mayfly.signals g ON g.id = s.signal_id',
  );
  expect(stands).toEqual({ key: words.at(-1)?.['id'], value: 'low' });
  expect(outcome(await issue())).toEqual([201, undefined]);
});
