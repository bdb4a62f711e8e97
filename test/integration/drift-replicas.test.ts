import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { seedOutstanding } from '../bench/lib/outstanding.ts';
import type { RunningBroker } from '../support/broker-process.ts';
import { type House, startHouse } from '../support/house.ts';

const PAY = 'ledger-db/read-payments';
const POLICIES = 'policies/test.cedar';
/** Living grants that stay: they have the latest deadlines, so that they are decided before the few that do not. */
const SEEDED = 800;

let house: House;
let second: RunningBroker;
beforeAll(async () => {
  house = await startHouse({ inProcess: false });
  await seedOutstanding(house, SEEDED);
  second = await house.startReplica();
});
afterAll(() => house?.stop());

const forbidding = (sensitivity: string): Record<string, string> => ({
  ...house.files,
  [POLICIES]: `${house.files[POLICIES] ?? ''}
@id("no-${sensitivity}") forbid (principal is Mayfly::Task, action, resource is Mayfly::Entitlement) when { resource.sensitivity == "${sensitivity}" };`,
});

/** Some that drift where restricted data is forbidden. */
async function hold(count: number): Promise<string[]> {
  const client = house.client();
  const { task } = await client.openTask(await house.sign({ phase: 'execute', entitlements: [PAY] }));
  const issued = await Promise.all(
    Array.from({ length: count }, () => client.issue(task.id, { entitlement: PAY, ttl_seconds: 120 })),
  );
  return issued.map(({ grant }) => grant.id.slice(4));
}

async function untilAllDecided(): Promise<void> {
  await vi.waitFor(
    async () => {
      const [row] = await house.onStore<{ behind: number }>(
        `SELECT count(*)::int AS behind FROM mayfly.grants, mayfly.catalog_active a
         WHERE state IN ('minting', 'active') AND coalesce(retained_revision, decided_revision) < a.revision`,
      );
      expect(row?.behind).toBe(0);
    },
    { timeout: 60_000, interval: 100 },
  );
}

interface End extends Record<string, unknown> {
  readonly id: string;
  readonly told: number;
  readonly revision: number;
  /** The revision after the one that ended it was applied before. */
  readonly late: boolean;
}

const endsOf = async (ids: readonly string[]) =>
  await house.onStore<End>(
    `SELECT e.grant_id AS id, count(*)::int AS told, max(payload->>'revision')::int AS revision,
       bool_or(EXISTS (SELECT FROM mayfly.catalog_revisions c WHERE c.number > (payload->>'revision')::int AND c.applied_at < e.ts)) AS late
     FROM mayfly.audit_events e WHERE e.grant_id = ANY($1) AND e.type = 'grant.ended' AND e.cause = 'drift' GROUP BY 1`,
    [ids],
  );
const activeRevision = async () =>
  Number((await house.onStore<{ revision: string }>('SELECT revision FROM mayfly.catalog_active'))[0]?.revision);

test('what a replica that is killed in the middle had in hand, another decides: each ends once', async () => {
  const drifting = await hold(12);
  await house.broker.fallAt([{ step: 'decide-again.before', signal: 'SIGKILL' }]);
  await second.apply(forbidding('restricted'));
  await house.broker.reached('decide-again.before');
  await untilAllDecided();
  const ends = await endsOf(drifting);
  expect(ends.map(({ id }) => id).sort()).toEqual([...drifting].sort());
  expect(ends.every(({ told }) => told === 1)).toBe(true);
  const [left] = await house.onStore<{ n: number }>(
    `SELECT count(*)::int AS n FROM mayfly.grants WHERE state = 'active' AND entitlement <> '${PAY}'`,
  );
  expect(left?.n).toBe(SEEDED);
  house.broker = await house.restart();
  await second.apply(house.files);
  await untilAllDecided();
});

test('a catalog that changes while a sweep runs: nothing is ended by a revision that another has replaced', async () => {
  const drifting = await hold(8);
  await second.apply(forbidding('restricted'));
  await second.apply(house.files);
  await second.apply(forbidding('internal'));
  await untilAllDecided();
  const ends = await endsOf(drifting);
  expect(ends.filter(({ late }) => late)).toEqual([]);
  const last = await activeRevision();
  await second.apply(forbidding('restricted'));
  await untilAllDecided();
  const all = await endsOf(drifting);
  expect(all.map(({ id }) => id).sort()).toEqual([...drifting].sort());
  expect(all.filter(({ revision, late }) => late || revision > last + 1)).toEqual([]);
});
