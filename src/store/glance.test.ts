import { describe, expect, test, vi } from 'vitest';
import { glance } from './glance.ts';

describe('a glance', () => {
  test('is one read for all who ask at once, and for a while after', async () => {
    let reads = 0;
    const read = vi.fn<() => Promise<number>>(async () => ++reads);
    const look = glance(60_000, 1_000, read);
    expect(await Promise.all([look(), look(), look()])).toEqual([1, 1, 1]);
    expect(await look()).toBe(1);
    expect(read).toHaveBeenCalledTimes(1);
  });

  test('that is old is read again', async () => {
    let reads = 0;
    const read = vi.fn<() => Promise<number>>(async () => ++reads);
    const look = glance(0, 1_000, read);
    expect([await look(), await look()]).toEqual([1, 2]);
  });

  test('that failed is not kept', async () => {
    const read = vi.fn<() => Promise<string>>(async () => 'seen').mockRejectedValueOnce(new Error('down'));
    const look = glance(60_000, 1_000, read);
    await expect(look()).rejects.toThrow('down');
    expect(await look()).toBe('seen');
  });

  test('at what says nothing is given up, and asks it no second time meanwhile', async () => {
    let say: (what: string) => void = () => {};
    const read = vi.fn<() => Promise<string>>(
      () =>
        new Promise<string>((resolve) => {
          say = resolve;
        }),
    );
    const look = glance(60_000, 1, read);
    await expect(look()).rejects.toThrow('in time');
    await expect(look()).rejects.toThrow('in time');
    expect(read).toHaveBeenCalledTimes(1);
    say('late');
    await vi.waitFor(async () => expect(await look()).toBe('late'));
    expect(read).toHaveBeenCalledTimes(1);
  });
});
