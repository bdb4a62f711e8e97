import { expect, test } from 'vitest';
import { parseWireId, randomIds, uuidv7, wireId } from './ids.ts';

test('an id names its kind, and only that kind reads it back', () => {
  const id = randomIds.next('task');
  const wire = wireId('task', id);
  expect(wire).toMatch(/^task_[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  expect(parseWireId('task', wire)).toBe(id);
  for (const other of [
    `grt_${id}`,
    id,
    wire.toUpperCase(),
    `${wire} `,
    `${wire}\n`,
    'task_',
    'task_1',
    `task_task_${id}`,
  ]) {
    expect(parseWireId('task', other), other).toBeUndefined();
  }
});

test('ids sort by the time they were made', () => {
  const made = [1, 2, 3, 1_800_000_000_000].map((millis) => uuidv7(millis));
  expect([...made].sort()).toEqual(made);
  expect(new Set(Array.from({ length: 1000 }, () => uuidv7(5))).size).toBe(1000);
});
