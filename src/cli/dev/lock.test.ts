import type { ChildProcess } from 'node:child_process';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { compiledModule, endChild, firstLine, spawnModule } from '../../../test/support/dev-broker.ts';
import { acquireDevLock, type DevLock, readDevLock } from './lock.ts';
import { processBirth } from './process-table.ts';

let dir: string;
const children: ChildProcess[] = [];

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'mayfly-lock-'));
});
afterEach(async () => {
  await Promise.all(children.splice(0).map((child) => endChild(child)));
  await rm(dir, { recursive: true, force: true });
});

test('a second start is refused by name: pid, since when, how to stop it', async () => {
  const lock = await acquireDevLock(dir, () => new Date('2026-11-22T10:00:00Z'));
  await expect(acquireDevLock(dir)).rejects.toMatchObject({
    code: 'already_running',
    message: expect.stringMatching(
      new RegExp(`pid ${process.pid}, since 2026-11-22T10:00:00.000Z.*kill ${process.pid}`),
    ),
  });
  expect(await readDevLock(dir)).toEqual({ pid: process.pid, since: '2026-11-22T10:00:00.000Z' });
  await lock.release();
});

test('a released folder is free, also after a second release', async () => {
  const lock = await acquireDevLock(dir);
  await lock.release();
  await lock.release();
  expect(await readDevLock(dir)).toBeUndefined();
  await (await acquireDevLock(dir)).release();
});

test('a late second release does not free the lock of the next holder', async () => {
  const first = await acquireDevLock(dir);
  await first.release();
  const second = await acquireDevLock(dir);
  await first.release();
  await expect(acquireDevLock(dir)).rejects.toMatchObject({ code: 'already_running' });
  await second.release();
});

test('a folder that never had a broker has no holder', async () => {
  expect(await readDevLock(join(dir, 'nothing'))).toBeUndefined();
});

test('the lock of a killed process is taken over', async () => {
  const child = holder();
  expect(await firstLine(child)).toBe('held');
  expect((await readDevLock(dir))?.pid).toBe(child.pid);
  await expect(acquireDevLock(dir)).rejects.toThrow(`pid ${child.pid}`);
  await endChild(child);
  await (await acquireDevLock(dir)).release();
});

test('a pid that another program has by now holds nothing', async () => {
  await (await acquireDevLock(dir)).release();
  expect(await processBirth(process.ppid)).toBeDefined();
  await leave({ pid: process.ppid, birth: 'another time', since: '2026-11-22T10:00:00.000Z' });
  await (await acquireDevLock(dir)).release();
});

test('the very process that is named does hold it', async () => {
  await (await acquireDevLock(dir)).release();
  await leave({
    pid: process.ppid,
    birth: await processBirth(process.ppid),
    since: '2026-11-22T10:00:00.000Z',
  });
  await expect(acquireDevLock(dir)).rejects.toThrow(`pid ${process.ppid}`);
});

test('of many that take over one stale lock at once, one gets it, every time', async () => {
  // Out of step, in a different way each round: in lockstep all would look before the first acts, and nothing races.
  const after = async (turns: number): Promise<DevLock> => {
    for (let turn = 0; turn < turns; turn += 1) await nextTurn();
    return acquireDevLock(dir);
  };
  for (let round = 1; round <= 40; round += 1) {
    const tries = await Promise.allSettled(Array.from({ length: 12 }, (_, one) => after((one * round) % 23)));
    const won = tries.filter((one): one is PromiseFulfilledResult<DevLock> => one.status === 'fulfilled');
    expect(won).toHaveLength(1);
    // As a crash leaves it: the file stays, its process is another.
    await leave({ pid: process.pid, birth: 'another time', since: '2026-11-22T10:00:00.000Z' });
  }
  expect((await readdir(join(dir, 'lock'))).length).toBeLessThan(5);
});

test('of several processes that start at once, one gets it', async () => {
  await (await acquireDevLock(dir)).release();
  await leave({ pid: 2 ** 22 + 1, birth: 'long ago', since: '2026-11-22T10:00:00.000Z' });
  const starts = Array.from({ length: 4 }, holder);
  const said = await Promise.all(starts.map(firstLine));
  expect(said.sort()).toEqual(['already_running', 'already_running', 'already_running', 'held']);
});

/** Overwrites the newest lock file. */
async function leave(content: unknown): Promise<void> {
  const numbers = (await readdir(join(dir, 'lock'))).filter((name) => /^\d+$/.test(name)).map(Number);
  await writeFile(join(dir, 'lock', String(Math.max(...numbers))), JSON.stringify(content));
}

/** A process that takes the lock, says so, and keeps it until its input ends. */
function holder(): ChildProcess {
  const child = spawnModule(`
    const { acquireDevLock } = await import(${JSON.stringify(compiledModule('src/cli/dev/lock.ts'))});
    await acquireDevLock(${JSON.stringify(dir)}).then(() => console.log('held'), (error) => console.log(error.code));
    process.stdin.resume();`);
  children.push(child);
  return child;
}
