import { expect, test } from 'vitest';
import type { TaskIssuer, Trust } from '../catalog/types.ts';
import { MayflyError } from '../domain/errors.ts';
import { type Party, requireOther } from './approver.ts';
import { orchestrator, trusting } from './testing/trusting.ts';

const AGENT = { source: 'dev', subject: 'agent-recon' };

function trust(subjects: TaskIssuer['subjects'], others: readonly TaskIssuer[] = []): Trust {
  return { ...trusting.trust, taskIssuers: [{ ...orchestrator, subjects }, ...others] };
}

function party(subject: string, workload = AGENT): Party {
  return { issuer: orchestrator.issuer, subject, workload };
}

function bears(subject: string) {
  return { source: 'dev', subject };
}

const users = [{ operators: 'staff', prefix: 'user:' }];

/** `approves`, or why not. */
function verdict(operator: string, parties: readonly Party[], of = trust(users)): string {
  try {
    requireOther(of, operator, parties);
    return 'approves';
  } catch (error) {
    return error instanceof MayflyError ? error.code : String(error);
  }
}

test.each([
  ['somebody else', 'staff:ann', [party('user:dana')], 'approves'],
  ['on whose behalf it is', 'staff:dana', [party('user:dana')], 'approver_is_party'],
  ['the same in other letters', 'staff:Dana', [party('user:dana')], 'approver_is_party'],
  ['on whose behalf a task above is', 'staff:dana', [party('user:ann'), party('user:dana')], 'approver_is_party'],
  ['a namesake of the agent', 'staff:agent-recon', [party('user:dana')], 'approver_is_party'],
  [
    'a namesake of an agent above',
    'staff:lead',
    [party('user:dana'), party('user:dana', { source: 'dev', subject: 'lead' })],
    'approver_is_party',
  ],
  ['the agent, as the issuer names people', 'staff:dana', [party('user:ann', bears('user:dana'))], 'approver_is_party'],
  ['the agent, on its own behalf', 'staff:Dana', [party('user:dana', bears('user:dana'))], 'approver_is_party'],
  [
    'the agent above, on its own behalf',
    'staff:dana',
    [party('user:ann'), party('user:dana', bears('user:dana'))],
    'approver_is_party',
  ],
  ['its own name, although that is not mapped', 'staff:dana', [party('dana')], 'approver_is_party'],
  [
    'somebody else than an agent that is named as people are',
    'staff:ann',
    [party('user:dana', bears('user:dana'))],
    'approves',
  ],
  ['a subject of another kind', 'staff:ann', [party('service:dana')], 'approver_unmapped'],
  ['a subject that is only the prefix', 'staff:ann', [party('user:')], 'approver_unmapped'],
  ['one task above that nothing is said of', 'staff:ann', [party('user:dana'), party('robot')], 'approver_unmapped'],
  ['an operator of a source that is not mapped', 'other:ann', [party('user:dana')], 'approver_unmapped'],
  ['a subject with a colon in it', 'staff:urn:ann', [party('user:urn:ann')], 'approver_is_party'],
  ['an agent on its own behalf: there is nobody to compare', 'other:ann', [party(AGENT.subject)], 'approves'],
  // Who it is counts before what is not known.
  [
    'who it is, with one above that is not known',
    'staff:dana',
    [party('robot'), party('user:dana')],
    'approver_is_party',
  ],
])('%s', (_, operator, parties, expected) => {
  expect(verdict(operator, parties)).toBe(expected);
});

test('nothing is known where the issuer says nothing, or is not trusted any more', () => {
  expect(verdict('staff:ann', [party('user:dana')], trust(undefined))).toBe('approver_unmapped');
  expect(verdict('staff:ann', [party('user:dana')], { ...trust(users), taskIssuers: [] })).toBe('approver_unmapped');
});

test('subjects without a prefix are the operators’ own', () => {
  const bare = trust([{ operators: 'staff', prefix: '' }]);
  expect(verdict('staff:dana', [party('dana')], bare)).toBe('approver_is_party');
  expect(verdict('staff:ann', [party('dana')], bare)).toBe('approves');
});

test('two entries of one issuer that disagree say nothing', () => {
  const other = { ...orchestrator, name: 'other', subjects: [{ operators: 'staff', prefix: '' }] };
  expect(verdict('staff:ann', [party('user:dana')], trust(users, [other]))).toBe('approver_unmapped');
  expect(verdict('staff:dana', [party('user:dana', bears('user:dana'))], trust(users, [other]))).toBe(
    'approver_is_party',
  );
  const silent = { ...orchestrator, name: 'other' };
  expect(verdict('staff:ann', [party('user:dana')], trust(users, [silent]))).toBe('approver_unmapped');
});
