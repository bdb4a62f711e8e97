import { setImmediate } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { Coalescer } from './coalescer.ts';

function gate() {
  let open = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open, opened };
}

describe('a coalescer', () => {
  test('sends what is asked for in one turn together, and gathers behind a batch that is under way', async () => {
    const batches: number[][] = [];
    const first = gate();
    const coalescer = new Coalescer(async (items: readonly number[]) => {
      batches.push([...items]);
      if (batches.length === 1) await first.opened;
      return items.map((item) => item * 10);
    });
    const early = [1, 2].map((item) => coalescer.call(item));
    await setImmediate();
    expect(batches).toEqual([[1, 2]]);
    const late = [3, 4, 5].map((item) => coalescer.call(item));
    first.open();
    expect(await Promise.all([...early, ...late])).toEqual([10, 20, 30, 40, 50]);
    expect(batches).toEqual([
      [1, 2],
      [3, 4, 5],
    ]);
  });

  test('does not wait for a batch that is stuck', async () => {
    const stuck = gate();
    const coalescer = new Coalescer(async (items: readonly string[]) => {
      if (items.includes('stuck')) await stuck.opened;
      return items;
    });
    const slow = coalescer.call('stuck');
    await setImmediate();
    expect(await coalescer.call('quick')).toBe('quick');
    stuck.open();
    expect(await slow).toBe('stuck');
  });

  test('a batch that fails fails its own items only', async () => {
    const first = gate();
    const coalescer = new Coalescer(async (items: readonly string[]) => {
      if (items.includes('bad')) {
        await first.opened;
        throw new Error('down');
      }
      return items;
    });
    const bad = coalescer.call('bad');
    await setImmediate();
    const good = coalescer.call('good');
    first.open();
    await expect(bad).rejects.toThrow('down');
    expect(await good).toBe('good');
  });

  test('sends no more than its most at once, and leaves none behind', async () => {
    const sizes: number[] = [];
    const coalescer = new Coalescer(async (items: readonly number[]) => {
      sizes.push(items.length);
      await Promise.resolve();
      return items;
    }, 3);
    const answers = await Promise.all(Array.from({ length: 20 }, (_, item) => coalescer.call(item)));
    expect(answers).toEqual(Array.from({ length: 20 }, (_, item) => item));
    expect(Math.max(...sizes)).toBe(3);
  });
});
