import { expect, test } from 'vitest';
import { InTurn } from './in-turn.ts';

test('one after another, in their order, also after one that failed', async () => {
  const turns = new InTurn(60_000);
  const done: number[] = [];
  let running = 0;
  const work = async (n: number) => {
    running += 1;
    expect(running).toBe(1);
    await new Promise(setImmediate);
    running -= 1;
    if (n === 1) throw new Error('no');
    done.push(n);
    return n;
  };
  const all = await Promise.allSettled([0, 1, 2, 3].map((n) => turns.run(() => work(n))));
  expect(all.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled', 'fulfilled']);
  expect(done).toEqual([0, 2, 3]);
});

test('one whose turn does not come is told when to come again, and is never done', async () => {
  const turns = new InTurn(1);
  let goOn = () => {};
  const first = turns.run(() => new Promise<void>((resolve) => (goOn = resolve)));
  let done = false;
  const second = turns.run(async () => {
    done = true;
  });
  await expect(second).rejects.toMatchObject({ code: 'policies_busy', status: 503, retryAfterSeconds: 5 });
  goOn();
  await first;
  await turns.run(async () => {});
  expect(done).toBe(false);
});
