import { expect, test } from 'vitest';
import { onStep, type StepName, step } from './step.ts';

test('a step is told to whoever listens, by its name, and to nobody else', () => {
  step('claim.before');
  const told: StepName[] = [];
  onStep((name) => told.push(name));
  step('claim.after');
  expect(told).toEqual(['claim.after']);
});
