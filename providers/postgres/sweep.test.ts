import { performance } from 'node:perf_hooks';
import { describe, expect, test } from 'vitest';
import { type KillAnswer, sweep } from './sweep.ts';

const never = new AbortController().signal;

/** A target that answers one after another of these, the last for ever, and keeps when it was asked for what. */
function scripted(answers: readonly Partial<KillAnswer>[]) {
  const asked: { at: number; suspects: readonly number[] }[] = [];
  return {
    asked,
    kill: async (_oids: readonly number[], suspects: readonly number[]): Promise<KillAnswer> => {
      const answer = answers[Math.min(asked.length, answers.length - 1)];
      asked.push({ at: performance.now(), suspects });
      return { seen: {}, asleep: [], ...answer };
    },
  };
}

describe('sessions', () => {
  test('are gone after three empty sweeps, at least 15 ms apart', async () => {
    const { kill, asked } = scripted([{}]);
    expect(await sweep(kill, [7], never)).toMatchObject({ sweeps: 3, asleep: 0 });
    const gaps = asked.slice(1).map(({ at }, i) => at - (asked[i]?.at ?? 0));
    expect(Math.min(...gaps)).toBeGreaterThanOrEqual(14);
  });

  test('that show up late start the count anew', async () => {
    const { kill } = scripted([{}, {}, { seen: { 7: [100] } }, {}, {}, { seen: { 7: [101] } }, {}]);
    const swept = await sweep(kill, [7], never);
    expect(swept).toMatchObject({ sweeps: 9 });
    expect(swept.alive.size).toBe(0);
    expect(swept.ended.get(7)).toBe(2);
  });

  test('are counted once, however often they are told, also before', async () => {
    const { kill } = scripted([{ seen: { 7: [100, 101] } }, { seen: { 7: [101] } }, {}]);
    const swept = await sweep(kill, [7, 8], never, [{ seen: { 7: [100], 8: [200] } }]);
    expect([...swept.ended]).toEqual([
      [7, 2],
      [8, 1],
    ]);
  });

  test('that are deaf are told as alive in the end, and their neighbours as gone', async () => {
    const { kill } = scripted([{ seen: { 7: [100] } }]);
    const swept = await sweep(kill, [7, 8], never);
    expect([...swept.alive]).toEqual([7]);
  });
});

describe('logins asleep', () => {
  test('are let be for 100 ms, then told to end', async () => {
    const { kill, asked } = scripted([...Array.from({ length: 12 }, () => ({ asleep: [55] })), {}]);
    expect(await sweep(kill, [7], never)).toMatchObject({ asleep: 0 });
    const told = asked.find(({ suspects }) => suspects.includes(55));
    expect((told?.at ?? 0) - (asked[0]?.at ?? 0)).toBeGreaterThanOrEqual(99);
    expect(asked.filter(({ suspects }) => suspects.length > 0)).not.toHaveLength(0);
  });

  test('that wake are waited for again: they may have become one of ours', async () => {
    const { kill } = scripted([{ asleep: [55] }, { asleep: [55] }, { asleep: [55] }, {}, { seen: { 7: [55] } }, {}]);
    const swept = await sweep(kill, [7], never);
    expect(swept.ended.get(7)).toBe(1);
    expect(swept.sweeps).toBe(8);
  });

  test('that begin after the third sweep have met the fence and hold nothing up', async () => {
    const { kill, asked } = scripted([
      { asleep: [1] },
      { asleep: [2] },
      { asleep: [3] },
      ...[4, 5, 6, 7, 8].map((pid) => ({ asleep: [pid] })),
    ]);
    const swept = await sweep(kill, [7], never);
    expect(swept).toMatchObject({ asleep: 0 });
    expect(swept.sweeps).toBeLessThan(9);
    expect(asked.flatMap(({ suspects }) => suspects).filter((pid) => pid > 3)).toEqual([]);
  });
});
