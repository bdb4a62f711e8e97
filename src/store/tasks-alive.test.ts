import { expect, test } from 'vitest';
import type { Queryable } from './database.ts';
import { TasksAlive } from './tasks-alive.ts';

/** A store in which so many are alive, and that counts how often it is asked. */
function storeWith(alive: number) {
  const store = { alive, counts: 0 };
  const db: Queryable = {
    query: async <R>() => {
      store.counts += 1;
      return [{ alive: store.alive }] as R[];
    },
  };
  return { store, db };
}

test('lets through what there is room for, and asks the store once for many', async () => {
  const { store, db } = storeWith(0);
  const tasks = new TasksAlive(db, 100);
  expect(await Promise.all(Array.from({ length: 50 }, () => tasks.hasRoom('a')))).not.toContain(false);
  expect(store.counts).toBe(1);
  for (let open = 50; open < 100; open++) expect(await tasks.hasRoom('a')).toBe(true);
  expect(store.counts).toBe(1);
});

test('counts anew before it refuses, and each issuer by itself', async () => {
  const { store, db } = storeWith(0);
  const tasks = new TasksAlive(db, 2);
  expect([await tasks.hasRoom('a'), await tasks.hasRoom('a')]).toEqual([true, true]);
  store.alive = 2;
  expect(await tasks.hasRoom('a')).toBe(false);
  store.alive = 1;
  expect(await tasks.hasRoom('a')).toBe(true);
  store.alive = 0;
  expect(await tasks.hasRoom('b')).toBe(true);
});

test('lets no more through than there is room for when many ask at once', async () => {
  const { db } = storeWith(97);
  const tasks = new TasksAlive(db, 100);
  const asked = await Promise.all(Array.from({ length: 20 }, () => tasks.hasRoom('a')));
  expect(asked.filter(Boolean)).toHaveLength(3);
});
