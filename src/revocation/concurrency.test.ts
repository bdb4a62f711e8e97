import { describe, expect, test } from 'vitest';
import { Concurrency } from './concurrency.ts';

describe('the concurrency on a target', () => {
  test('grows from two by about a lane for each round of full batches that are no slower for it, up to eight, and is four again after', () => {
    const concurrency = new Concurrency();
    expect(concurrency.lanes).toBe(4);
    concurrency.behind(true);
    expect(concurrency.lanes).toBe(2);
    for (let n = 0; n < 3; n += 1) concurrency.told(50, 0, 300);
    expect(concurrency.lanes).toBe(3);
    concurrency.behind(true);
    expect(concurrency.lanes).toBe(3);
    for (let n = 0; n < 100; n += 1) concurrency.told(50, 0, 300);
    expect(concurrency.lanes).toBe(8);
    concurrency.behind(false);
    expect(concurrency.lanes).toBe(4);
  });

  test('stays where another lane only makes the others wait', () => {
    const concurrency = new Concurrency();
    concurrency.behind(true);
    // One core: what all of them do takes so long, however many there are.
    for (let n = 0; n < 100; n += 1) {
      concurrency.told(50, 0, 80 * concurrency.lanes);
      expect(concurrency.lanes).toBeLessThanOrEqual(3);
    }
  });

  test('comes back to two where what was quick is slow now, and learns anew the next time', () => {
    const concurrency = new Concurrency();
    concurrency.behind(true);
    for (let n = 0; n < 100; n += 1) concurrency.told(50, 0, 100);
    for (let n = 0; n < 100; n += 1) concurrency.told(50, 0, 500);
    expect(concurrency.lanes).toBe(2);
    concurrency.behind(false);
    concurrency.behind(true);
    for (let n = 0; n < 100; n += 1) concurrency.told(50, 0, 500);
    expect(concurrency.lanes).toBe(8);
  });

  test('does not grow by what was no load, nor by cleaning', () => {
    const concurrency = new Concurrency();
    for (let n = 0; n < 100; n += 1) concurrency.told(3, 0, 10);
    expect(concurrency.lanes).toBe(4);
    concurrency.behind(true);
    for (let n = 0; n < 100; n += 1) concurrency.told(100, 0);
    expect(concurrency.lanes).toBe(2);
  });

  test('is halved when the target serves only some, never less than one, and comes back when it serves all', () => {
    const concurrency = new Concurrency();
    concurrency.told(50, 1, 300);
    expect(concurrency).toMatchObject({ lanes: 2, batch: 50 });
    for (let n = 0; n < 5; n += 1) concurrency.told(50, 49, 300);
    expect(concurrency).toMatchObject({ lanes: 1, batch: 50 });
    for (let n = 0; n < 10; n += 1) concurrency.told(1, 0, 10);
    expect(concurrency.lanes).toBe(4);
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
