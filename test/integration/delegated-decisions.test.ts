import pg from 'pg';
import { afterAll, beforeAll, beforeEach, expect, test, vi } from 'vitest';
import type { TaskBody, TaskStanding } from '../../src/client/index.ts';
import type { TaskId } from '../../src/domain/ids.ts';
import { birthLockKeys } from '../../src/store/locks.ts';
import { Agent, delegationByIssuer, outcome } from '../support/delegating.ts';
import { type House, startHouse } from '../support/house.ts';

// A task far below others is decided as they are now.

const READ = 'ledger-db/read-invoices';
const PAYMENTS = 'ledger-db/read-payments';

let house: House;
let owner: Agent;
let other: Agent;
let leaf: Agent;
let root: TaskBody;
let child: TaskBody;
let task: TaskBody;
beforeAll(async () => {
  house = await startHouse({
    proofOfPossession: 'required',
    env: { MAYFLY_SWEEP_SECONDS: '30', MAYFLY_OVERDUE_SECONDS: '60' },
  });
  owner = await Agent.make(house);
  other = await Agent.make(house, 'agent-support');
});
afterAll(() => house?.stop());
beforeEach(async () => {
  root = await owner.open({ params: { tenant: 'acme' }, maxTtl: 120, entitlements: [READ, PAYMENTS] });
  child = await owner.beget(root, other, { maxDepth: 1, entitlements: [READ, PAYMENTS] });
  leaf = await Agent.make(house);
  task = await other.beget(child, leaf, { entitlements: [READ, PAYMENTS] });
});

const issue = (agent: Agent, of: TaskStanding, entitlement = READ) =>
  agent.call('POST', `/v1/tasks/${of.id}/grants`, { entitlement });
/** As somebody who may write into the store. */
const set = (of: TaskStanding, what: string) =>
  house.onStore(`UPDATE mayfly.tasks SET ${what} WHERE id = $1`, [of.id.slice(5)]);

test.each<[string, string, [number, string]]>([
  ['the state', `state = 'suspended'`, [409, 'task_suspended']],
  ['the deadline', "not_after = clock_timestamp() + interval '50 milliseconds'", [409, 'task_ended']],
  ['the ceiling', `ceiling = jsonb_set(ceiling, '{entitlements}', '["${PAYMENTS}"]')`, [403, 'not_in_task']],
  ['the depth', 'max_depth = 0', [403, 'excessive_delegation']],
  ['the phase', `phase = 'closing'`, [403, 'not_in_phase']],
])('%s of a task high above it counts as it is now, for a grant and for a renewal', async (_what, change, refusal) => {
  const { grant } = await leaf.client().issue(task.id, { entitlement: READ, ttl_seconds: 60 });
  await set(root, change);
  await expect.poll(async () => outcome(await issue(leaf, task))).toEqual(refusal);
  const renewal = await leaf.call('POST', `/v1/grants/${grant.id}/renew`, { ttl_seconds: 60 });
  // A deadline that has passed may have ended the grant already.
  expect([refusal, [409, 'grant_ended']]).toContainEqual(outcome(renewal));
});

test('no grant outlives any of them, and none is longer than any of them allows', async () => {
  const soon = new Date(Date.now() + 30_000);
  await set(root, `not_after = '${soon.toISOString()}'`);
  const { grant } = await leaf.client().issue(task.id, { entitlement: READ, ttl_seconds: 100 });
  expect(Date.parse(grant.deadline)).toBeLessThanOrEqual(soon.getTime());
  expect(Date.parse(grant.deadline)).toBeGreaterThan(soon.getTime() - 10_000);
  await set(child, `ceiling = jsonb_set(ceiling, '{maxTtlSeconds}', '5')`);
  const { cut } = await leaf.client().issue(task.id, { entitlement: READ, ttl_seconds: 100 });
  expect(cut).toEqual({ by: 'request', asked_seconds: 100, granted_seconds: 5 });
});

test('its params are those of the task that was opened', async () => {
  await set(task, `ceiling = jsonb_set(ceiling, '{params}', '{"tenant": "evil"}')`);
  await leaf.client().issue(task.id, { entitlement: READ });
  const [{ inputs } = { inputs: '' }] = await house.onStore<{ inputs: string }>(
    'SELECT inputs::text FROM mayfly.decisions WHERE task_id = $1',
    [task.id.slice(5)],
  );
  expect(inputs).toContain('acme');
  expect(inputs).not.toContain('evil');
});

test('what changes above it between the decision and its commit is seen', async () => {
  const holder = new pg.Client({ connectionString: house.store.ownerUrl.reveal() });
  await holder.connect();
  try {
    // Held behind the read and before the intent is looked at again.
    const [, , , tree, births] = birthLockKeys(root.id.slice(5) as TaskId);
    await holder.query('BEGIN');
    await holder.query('SELECT pg_advisory_xact_lock($1::integer, $2::integer)', [births, tree]);
    const asked = issue(leaf, task);
    await vi.waitFor(async () => expect(await house.onStore('SELECT FROM pg_locks WHERE NOT granted')).toHaveLength(1));
    await set(root, `ceiling = jsonb_set(ceiling, '{entitlements}', '[]')`);
    await holder.query('ROLLBACK');
    expect(outcome(await asked)).toEqual([403, 'not_in_task']);
  } finally {
    await holder.end();
  }
});

test('what was offered until a moment ago can not be claimed, though nobody has ended it yet', async () => {
  const { id } = await owner.delegate(root, leaf);
  await set({ ...root, id }, `claim_by = clock_timestamp()`);
  expect(outcome(await leaf.call('POST', `/v1/tasks/${id}/claim`, {}))).toEqual([409, 'task_ended']);
});

test('an `act` that tells of others decides nothing', async () => {
  const delegation = await delegationByIssuer(house, root, other, ({ claims }) => {
    claims['act'] = { sub: 'agent-support', act: { sub: 'agent-recon', act: { sub: 'root' } } };
  });
  const { status, body } = await owner.call('POST', `/v1/tasks/${root.id}/children`, { delegation });
  expect([status, body['task']]).toEqual([201, expect.objectContaining({ workload: 'dev:agent-support' })]);
});
