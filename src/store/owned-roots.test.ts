import { expect, test } from 'vitest';
import type { TaskId } from '../domain/ids.ts';
import type { Queryable } from './database.ts';
import { OwnedRoots } from './owned-roots.ts';

const id = 'task' as TaskId;
const root = 'root' as TaskId;
const owner = { workload: { source: 'dev', subject: 'a' }, keyThumbprint: 'k', instance: null };

function store(rows: readonly Record<string, unknown>[]): { readonly roots: OwnedRoots; readonly asked: unknown[][] } {
  const asked: unknown[][] = [];
  const db: Queryable = {
    query: async (statement) => {
      asked.push([...statement.values]);
      return [...rows] as never;
    },
  };
  return { roots: new OwnedRoots(db), asked };
}

test('what was found of an owner is not looked for again, but for each other one it is', async () => {
  const { roots, asked } = store([{ root_id: root, offered: false }]);
  for (const _ of [1, 2, 3]) expect(await roots.find(id, owner)).toBe(root);
  expect(asked).toEqual([[id, 'dev', 'a', 'k', null]]);
  await roots.find(id, { ...owner, keyThumbprint: null });
  await roots.find(id, { ...owner, instance: 'k' });
  await roots.find(id, { ...owner, workload: { source: 'dev', subject: 'b' } });
  expect(asked).toHaveLength(4);
});

test('what is not there, or may still be claimed, is looked for each time', async () => {
  const none = store([]);
  const offered = store([{ root_id: root, offered: true }]);
  for (const _ of [1, 2]) {
    expect(await none.roots.find(id, owner)).toBeUndefined();
    expect(await offered.roots.find(id, owner)).toBe(root);
  }
  expect([none.asked.length, offered.asked.length]).toEqual([2, 2]);
});
