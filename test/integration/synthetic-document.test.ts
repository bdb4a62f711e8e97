import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { startSyntheticHouse, type SyntheticHouse } from '../support/synthetic/house.ts';

let server: PostgresServer;
let house: SyntheticHouse;
beforeAll(async () => {
  server = await startPostgres({ version: 18 });
  house = await startSyntheticHouse(server, {
    lives: 'document',
    waits: 'document',
    shared: 'document',
    wakes: 'document',
    named: 'document',
    slow: 'document',
  });
});
afterAll(async () => {
  await house?.stop();
  await server?.stop();
});

async function issue(task: string, name: string, ttl?: number): Promise<{ id: string; handle: string }> {
  const { id } = await house.issue(task, name, ttl);
  return { id, handle: id.replace('grt_', 'syn-') };
}

async function untilContained(...ids: string[]): Promise<void> {
  await vi.waitFor(
    async () => {
      for (const id of ids) expect(await house.standing(id)).toMatchObject({ state: 'revoked' });
    },
    { timeout: 60_000, interval: 25 },
  );
}

/** Its holder's claim is lost, as when it falls silent: another may take the obligation. */
async function loseClaim(id: string): Promise<void> {
  await house.onStore(
    `UPDATE mayfly.revocations SET state = 'due', try_at = clock_timestamp(), claimed_by = NULL, claimed_until = NULL
     WHERE grant_id = $1 AND state = 'running'`,
    [id.slice(4)],
  );
}

test('what lives and what is being made stays, whoever ends; what nobody knows of is cut', async () => {
  const target = house.target('lives');
  const task = await house.openTask('lives');
  const [ends, stays] = [await issue(task, 'lives'), await issue(task, 'lives')];
  const made = target.holds.hold('mint.done');
  const making = issue(task, 'lives');
  await made.reached;
  target.system.make({ handle: 'orphan', grantId: 'none', installation: 'none', endsAt: Infinity }, Infinity);
  // All of them were issued before the cut now.
  target.turn(61_000);
  await house.release(ends.id);
  await untilContained(ends.id);
  expect(target.system.accepts(ends.handle)).toBe(false);
  expect(target.system.accepts(stays.handle)).toBe(true);
  expect(target.system.accepts('orphan')).toBe(false);
  made.release();
  expect(target.system.accepts((await making).handle)).toBe(true);
  await house.client.cancel(task);
});

test('what must stay in the document stays until its credential is over: contained, no failure, then clean', async () => {
  const target = house.target('waits');
  const task = await house.openTask('waits');
  const { id, handle } = await issue(task, 'waits', 4);
  await house.client.complete(task);
  await vi.waitFor(
    async () => {
      const standing = await house.standing(id);
      expect(standing).toMatchObject({ revocation: 'contained', last_error: null, attempts: 1 });
      expect(target.count('reap')).toBeGreaterThan(0);
    },
    { timeout: 60_000, interval: 10 },
  );
  expect([...target.system.written().values()].some(({ denied }) => handle in denied)).toBe(true);
  await vi.waitFor(async () => expect(await house.standing(id)).toMatchObject({ revocation: 'clean' }), {
    timeout: 60_000,
    interval: 50,
  });
  expect([...target.system.written().values()].some(({ denied }) => handle in denied)).toBe(false);
  const failed = await house.onStore(
    `SELECT 1 FROM mayfly.audit_events WHERE grant_id = $1 AND type = 'revocation.attempted'`,
    [id.slice(4)],
  );
  expect(failed).toEqual([]);
});

test('two replicas and many ends at once: never two writers, and all of them are cut', async () => {
  const target = house.target('shared');
  const replica = await house.startReplica();
  const tasks = await Promise.all(Array.from({ length: 20 }, () => house.openTask('shared')));
  const grants = await Promise.all(tasks.map((task) => issue(task, 'shared')));
  const first = target.holds.hold('document.sent');
  for (const task of tasks) await house.client.complete(task);
  await first.reached;
  // Both replicas have claims in hand while the first writer is at work.
  await vi.waitFor(
    async () =>
      expect(
        await house.onStore(
          `SELECT DISTINCT replace(claimed_by, ' (writes)', '') FROM mayfly.revocations WHERE target = 'shared' AND state = 'running'`,
        ),
      ).toHaveLength(2),
    { timeout: 60_000, interval: 25 },
  );
  expect(target.writers).toEqual({ now: 1, most: 1 });
  first.release();
  await untilContained(...grants.map(({ id }) => id));
  expect(target.writers.most).toBe(1);
  for (const { handle } of grants) expect(target.system.accepts(handle)).toBe(false);
  await replica.stop();
});

test('a writer that wakes with an old document un-fences nothing', async () => {
  const target = house.target('wakes');
  const task = await house.openTask('wakes');
  const [first, second, stays] = [await issue(task, 'wakes'), await issue(task, 'wakes'), await issue(task, 'wakes')];
  const old = target.holds.hold('document.sent');
  await house.release(first.id);
  await old.reached;
  await loseClaim(first.id);
  // Another claims it, and a later writer cuts both.
  await house.release(second.id);
  await untilContained(first.id, second.id);
  const names = [...target.system.written().keys()];
  old.release();
  await vi.waitFor(() => expect(target.system.written().size).toBeGreaterThan(names.length), { timeout: 60_000 });
  expect(Math.max(...[...target.system.written().keys()].map(Number))).toBe(Math.max(...names.map(Number)));
  expect(target.system.accepts(first.handle)).toBe(false);
  expect(target.system.accepts(second.handle)).toBe(false);
  target.turn(61_000);
  expect(target.system.accepts(stays.handle)).toBe(true);
  await house.client.cancel(task);
});

test('without the epoch in its name the old document lets in what was cut: that is what the number is for', async () => {
  const target = house.target('named');
  target.epochInName = false;
  const task = await house.openTask('named');
  const [first, second] = [await issue(task, 'named'), await issue(task, 'named')];
  const old = target.holds.hold('document.sent');
  await house.release(first.id);
  await old.reached;
  await loseClaim(first.id);
  await house.release(second.id);
  await untilContained(first.id, second.id);
  old.release();
  await vi.waitFor(() => expect(target.system.accepts(second.handle)).toBe(true), { timeout: 60_000 });
  await house.client.cancel(task);
});

test('a document that is not seen everywhere yet: not contained, until it is', async () => {
  const target = house.target('slow');
  target.system.propagationMillis = 60_000;
  const task = await house.openTask('slow');
  const { id, handle } = await issue(task, 'slow');
  await house.client.complete(task);
  await vi.waitFor(
    async () => {
      const standing = await house.standing(id);
      expect(standing.attempts).toBeGreaterThanOrEqual(2);
      expect(standing).toMatchObject({ state: 'revoking', last_error: 'retryable' });
    },
    { timeout: 60_000, interval: 25 },
  );
  expect(target.system.accepts(handle)).toBe(true);
  target.turn(60_000);
  await untilContained(id);
  expect(target.system.accepts(handle)).toBe(false);
});
