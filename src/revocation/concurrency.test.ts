import { describe, expect, test } from 'vitest';
import { Concurrency } from './concurrency.ts';

describe('the concurrency on a target', () => {
  test('grows by about a lane for each round of full batches, up to eight', () => {
    const concurrency = new Concurrency();
    expect(concurrency.lanes).toBe(4);
    for (let n = 0; n < 5; n += 1) concurrency.told(50, 0);
    expect(concurrency.lanes).toBe(5);
    for (let n = 0; n < 100; n += 1) concurrency.told(50, 0);
    expect(concurrency.lanes).toBe(8);
  });

  test('does not grow by what was no load', () => {
    const concurrency = new Concurrency();
    for (let n = 0; n < 100; n += 1) concurrency.told(3, 0);
    expect(concurrency.lanes).toBe(4);
  });

  test('is halved when the target serves only some, and never less than one', () => {
    const concurrency = new Concurrency();
    concurrency.told(50, 1);
    expect(concurrency).toMatchObject({ lanes: 2, batch: 50 });
    for (let n = 0; n < 5; n += 1) concurrency.told(50, 49);
    expect(concurrency).toMatchObject({ lanes: 1, batch: 50 });
  });

  test('comes down to one item where it says nothing at all, and is back soon after', () => {
    const concurrency = new Concurrency();
    const batches = [0, 1, 2, 3].map(() => {
      concurrency.told(concurrency.batch, concurrency.batch);
      return concurrency.batch;
    });
    expect(batches).toEqual([12, 3, 1, 1]);
    for (let n = 0; n < 3; n += 1) concurrency.told(concurrency.batch, 0);
    expect(concurrency.batch).toBe(50);
  });
});
