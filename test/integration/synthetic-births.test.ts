import { createHash } from 'node:crypto';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { isDeaf } from '../support/synthetic/faults.ts';
import { startSyntheticHouse, type SyntheticHouse } from '../support/synthetic/house.ts';
import type { SyntheticTarget } from '../support/synthetic/target.ts';

const MINT_SECONDS = 3;
let server: PostgresServer;
let house: SyntheticHouse;
let target: SyntheticTarget;
beforeAll(async () => {
  server = await startPostgres({ version: 18 });
  house = await startSyntheticHouse(server, { vault: 'handles' }, { MAYFLY_MINT_SECONDS: String(MINT_SECONDS) });
  target = house.target('vault');
});
afterAll(async () => {
  await house?.stop();
  await server?.stop();
});

/** Asks for a grant; the answer, or what was answered instead. */
function ask(task: string): Promise<unknown> {
  return house.issue(task, 'vault').then(
    ({ state }) => ({ state }),
    ({ code }: { code?: string }) => ({ code }),
  );
}

async function grantsOf(
  task: string,
): Promise<{ id: string; handle: string; state: string; ended_by: string | null }[]> {
  return await house.onStore('SELECT id, handle, state, ended_by FROM mayfly.grants WHERE task_id = $1', [
    task.slice(5),
  ]);
}

async function onlyGrant(task: string) {
  const [grant, ...others] = await grantsOf(task);
  if (grant === undefined || others.length > 0) throw new Error('there is not exactly one grant');
  return grant;
}

async function untilClean(grantId: string): Promise<void> {
  await vi.waitFor(async () => expect((await house.standing(grantId)).revocation).toBe('clean'), {
    timeout: 60_000,
    interval: 25,
  });
}

test('a fence that overtakes a mint under way: the mint then makes nothing', async () => {
  const task = await house.openTask('vault');
  const mint = target.holds.hold('mint.sent');
  const asked = ask(task);
  await mint.reached;
  const { id, handle } = await onlyGrant(task);
  await house.client.cancel(task);
  await untilClean(id);
  mint.release();
  expect(await asked).toEqual({ code: 'target_refused' });
  expect(target.system.find(handle)).toBeUndefined();
  expect(await onlyGrant(task)).toMatchObject({ state: 'revoked', ended_by: 'cancelled' });
});

test('a mint that comes to the target after its mint_by makes nothing, though nobody fenced it', async () => {
  const task = await house.openTask('vault');
  const fences = target.count('fence');
  const mint = target.holds.hold('mint.sent');
  const asked = ask(task);
  await mint.reached;
  const { id, handle } = await onlyGrant(task);
  target.turn(MINT_SECONDS * 1000 + 1);
  expect(target.count('fence')).toBe(fences);
  mint.release();
  expect(await asked).toEqual({ code: 'target_refused' });
  target.turn(-MINT_SECONDS * 1000 - 1);
  expect(target.system.find(handle)).toBeUndefined();
  await untilClean(id);
  expect(await onlyGrant(task)).toMatchObject({ state: 'revoked', ended_by: 'mint_failed' });
});

test('a mint that its broker gave up, and whose end was proven, makes nothing when it arrives at last', async () => {
  const task = await house.openTask('vault');
  const mint = target.holds.hold('mint.sent');
  // Its clock stands far behind: mint_by alone would let it pass.
  target.turn(-3_600_000);
  expect(await ask(task)).toEqual({ code: 'target_unavailable' });
  const { id, handle } = await onlyGrant(task);
  await untilClean(id);
  mint.release();
  await new Promise(setImmediate);
  expect(target.system.find(handle)).toBeUndefined();
  target.turn(3_600_000);
});

test('a target that neither mints nor ends when it is told to holds no caller for ever', async () => {
  const task = await house.openTask('vault');
  target.faults.set('mint', isDeaf);
  expect(await ask(task)).toEqual({ code: 'target_unavailable' });
  target.faults.delete('mint');
  await untilClean((await onlyGrant(task)).id);
});

const ends = {
  cancel: (task: string) => house.client.cancel(task),
  complete: (task: string) => house.client.complete(task),
};

test.each(
  (['guarantee.sent', 'guarantee.done', 'mint.sent', 'mint.done'] as const).flatMap((point) =>
    (['cancel', 'complete'] as const).map((end) => ({ point, end })),
  ),
)('$end while a birth is held at $point: nothing is delivered and nothing stays', async ({ point, end }) => {
  const task = await house.openTask('vault');
  const birth = target.holds.hold(point);
  const asked = ask(task);
  await birth.reached;
  await ends[end](task);
  birth.release();
  expect(await asked).toMatchObject({ code: expect.stringMatching(/^(task_ended|target_refused)$/) });
  const grants = await grantsOf(task);
  expect(grants).toHaveLength(point.startsWith('guarantee') ? 0 : 1);
  for (const { id, handle } of grants) {
    await untilClean(id);
    expect(target.system.find(handle)).toBeUndefined();
  }
});

test('a grant released while it is minted is not delivered', async () => {
  const task = await house.openTask('vault');
  const birth = target.holds.hold('mint.done');
  const asked = ask(task);
  await birth.reached;
  const { id, handle } = await onlyGrant(task);
  await house.release(`grt_${id}`);
  birth.release();
  expect(await asked).toEqual({ code: 'task_ended' });
  await untilClean(id);
  expect(target.system.find(handle)).toBeUndefined();
});

/** The lock of a task tree (src/store/locks.ts), held so that who waits for it is known. */
async function holdTree(task: string) {
  const ROOT = 0x4d460003;
  const key = createHash('sha256').update(task.slice(5)).digest().readInt32BE(0);
  const waiting = async () => {
    const [row] = await house.onStore<{ count: number }>(
      `SELECT count(*)::int FROM pg_locks WHERE locktype = 'advisory' AND classid = $1 AND NOT granted`,
      [ROOT],
    );
    return row?.count ?? 0;
  };
  const holder = await house.connect();
  await holder.query('SELECT pg_advisory_lock($1, $2)', [ROOT, key]);
  return {
    untilWaiting: (count: number) =>
      vi.waitFor(async () => expect(await waiting()).toBe(count), { timeout: 60_000, interval: 10 }),
    release: () => holder.query('SELECT pg_advisory_unlock($1, $2)', [ROOT, key]),
  };
}

test.each(['the end', 'the birth'])('both wait for the tree, and %s comes first', async (first) => {
  const task = await house.openTask('vault');
  const birth = target.holds.hold('mint.done');
  const asked = ask(task);
  await birth.reached;
  const { id, handle } = await onlyGrant(task);
  const tree = await holdTree(task);
  const steps = [() => void ended.push(house.client.cancel(task)), () => birth.release()];
  const ended: Promise<unknown>[] = [];
  if (first === 'the birth') steps.reverse();
  for (const [index, step] of steps.entries()) {
    step();
    await tree.untilWaiting(index + 1);
  }
  await tree.release();
  await Promise.all(ended);
  expect(await asked).toEqual(first === 'the end' ? { code: 'task_ended' } : { state: 'active' });
  await untilClean(id);
  expect(target.system.find(handle)).toBeUndefined();
  expect(await onlyGrant(task)).toMatchObject({ state: 'revoked', ended_by: 'cancelled' });
});
