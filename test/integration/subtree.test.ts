import { afterAll, beforeAll, expect, test } from 'vitest';
import { Agent } from '../support/delegating.ts';
import { type House, startHouse } from '../support/house.ts';

const DESCENDANTS = 10_000;

let house: House;
beforeAll(async () => {
  house = await startHouse({ proofOfPossession: 'required' });
});
afterAll(() => house?.stop());

/** A chain of half of them, each with one that is only offered beside it. */
const GROW = `WITH n AS (
    SELECT i, gen_random_uuid() AS id, gen_random_uuid() AS beside FROM generate_series(1, $2 / 2) i),
  hung AS (
    SELECT id, coalesce(lag(id) OVER (ORDER BY i), $1::uuid) AS parent, i AS depth, 'active' AS state FROM n
    UNION ALL SELECT beside, id, i + 1, 'offered' FROM n)
  INSERT INTO mayfly.tasks SELECT r.* FROM mayfly.tasks t, hung h, jsonb_populate_record(t, jsonb_build_object('id', h.id,
    'parent_id', h.parent, 'depth', h.depth, 'external_id', h.id, 'jti', h.id, 'state', h.state, 'claim_by', t.not_after)) r WHERE t.id = $1`;

test(`a parent ends with ${DESCENDANTS} descendants and what they hold, in one transaction`, async () => {
  const owner = await Agent.make(house);
  const other = await Agent.make(house, 'agent-support');
  const parent = await owner.open();
  const child = await owner.beget(parent, other);
  const { grant } = await other.client().issue(child.id, { entitlement: 'ledger-db/read-invoices' });
  const bystander = await owner.open();
  await house.onStore(GROW, [parent.id.slice(5), DESCENDANTS]);

  const { revocations } = await owner.client().cancel(parent.id, { wait: 30 });
  expect(revocations.map(({ grant_id: id }) => id)).toEqual([grant.id]);
  const ended = await house.onStore(
    `SELECT t.state, t.ended_by, count(*)::integer, count(DISTINCT t.ended_at)::integer AS moments FROM mayfly.tasks t
     WHERE t.root_id = $1 GROUP BY 1, 2 ORDER BY 3, 1`,
    [parent.id.slice(5)],
  );
  expect(ended).toEqual([
    { state: 'cancelled', ended_by: 'cancelled', count: 1, moments: 1 },
    { state: 'cancelled', ended_by: 'parent_ended', count: DESCENDANTS / 2, moments: 1 },
    { state: 'revoked', ended_by: 'parent_ended', count: DESCENDANTS / 2 + 1, moments: 1 },
  ]);
  const written = await house.onStore(
    `SELECT count(*)::integer AS tasks, count(DISTINCT x.by)::integer AS transactions FROM (
       SELECT xmin::text AS by FROM mayfly.tasks WHERE root_id = $1
       UNION ALL SELECT e.xmin::text FROM mayfly.audit_events e JOIN mayfly.tasks t ON t.id = e.task_id
       WHERE t.root_id = $1 AND e.type IN ('task.cancelled', 'task.revoked', 'grant.ended')) x`,
    [parent.id.slice(5)],
  );
  expect(written).toEqual([{ tasks: 2 * (DESCENDANTS + 2) + 1, transactions: 1 }]);
  expect((await owner.client().task(bystander.id)).state).toBe('active');
  // Shown as far as a tree may grow.
  expect((await owner.client().task(parent.id)).children).toHaveLength(1_000);
});
