import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { grantMachine } from './grant.ts';
import { isFinal, type Machine, mayBecome } from './machine.ts';
import { revocationMachine } from './revocation.ts';
import { taskMachine, workloadId } from './task.ts';

const machines: Machine<string>[] = [taskMachine, grantMachine, revocationMachine];

describe.each(machines)('the machine of a $name', (machine) => {
  const states = Object.keys(machine.transitions);

  test('knows every state that it speaks of', () => {
    expect(states).toEqual(expect.arrayContaining([...machine.births, ...Object.values(machine.transitions).flat()]));
  });

  test('reaches every state from a birth', () => {
    const seen = new Set<string>(machine.births);
    for (const state of seen) for (const next of machine.transitions[state] ?? []) seen.add(next);
    expect([...seen].sort()).toEqual([...states].sort());
  });

  test('never leaves a final state, however it is driven', () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...states), { maxLength: 30 }), (wishes) => {
        let state = machine.births[0] ?? '';
        for (const wish of wishes) {
          const before = state;
          if (mayBecome(machine, state, wish)) state = wish;
          expect(isFinal(machine, before) && state !== before).toBe(false);
        }
      }),
    );
  });
});

test('a grant that was minted can end only by way of its revocation', () => {
  for (const state of ['minting', 'active'] as const) {
    expect(mayBecome(grantMachine, state, 'revoked')).toBe(false);
    expect(mayBecome(grantMachine, state, 'revoking')).toBe(true);
  }
  expect(mayBecome(grantMachine, 'revoking', 'active')).toBe(false);
});

test('nothing is called clean that was not seen to be contained', () => {
  const before = Object.entries(revocationMachine.transitions).filter(([, to]) => (to as string[]).includes('clean'));
  expect(before.map(([from]) => from)).toEqual(['contained']);
});

/** DESIGN §1, States, and the row that comes back: what was ended and is found alive is owed its end once more. */
test.each([
  [
    'task',
    taskMachine,
    '- active offered|offered active cancelled|active suspended completed cancelled expired revoked|' +
      'suspended active completed cancelled expired revoked|completed|cancelled|expired|revoked',
  ],
  [
    'grant',
    grantMachine,
    '- minting pending_approval denied|pending_approval approved denied|approved minting denied|denied|' +
      'minting active revoking|active revoking|revoking revoked|revoked revoking',
  ],
  [
    'revocation',
    revocationMachine,
    '- scheduled|scheduled due|due running written_off|running contained due|contained clean due|clean due|written_off due',
  ],
])('the machine of a %s is the one that is written down', (name, machine: Machine<string>, table) => {
  expect(machine.name).toBe(name);
  const rows = [['-', ...machine.births], ...Object.entries(machine.transitions).map(([from, to]) => [from, ...to])];
  expect(rows.map((row) => row.join(' ')).join('|')).toBe(table);
});

test('only what nothing leaves is final', () => {
  expect(isFinal(taskMachine, 'completed')).toBe(true);
  expect(isFinal(taskMachine, 'suspended')).toBe(false);
});

test('two sources with one subject are two workloads', () => {
  expect(workloadId({ source: 'dev', subject: 'agent' })).toBe('dev:agent');
});
