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
  test('sends a lone item at once, and gathers what is asked for meanwhile', async () => {
    const batches: number[][] = [];
    const first = gate();
    const coalescer = new Coalescer(async (items: readonly number[]) => {
      batches.push([...items]);
      if (batches.length === 1) await first.opened;
      return items.map((item) => item * 10);
    });
    const answers = [1, 2, 3, 4].map((item) => coalescer.call(item));
    expect(batches).toEqual([[1]]);
    first.open();
    expect(await Promise.all(answers)).toEqual([10, 20, 30, 40]);
    expect(batches).toEqual([[1], [2, 3, 4]]);
  });

  test('does not wait for a batch that is stuck', async () => {
    const stuck = gate();
    const coalescer = new Coalescer(async (items: readonly string[]) => {
      if (items.includes('stuck')) await stuck.opened;
      return items;
    });
    const slow = coalescer.call('stuck');
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
