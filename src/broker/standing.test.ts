import { expect, test } from 'vitest';
import type { Trust } from '../catalog/types.ts';
import { fallenOf } from './standing.ts';
import { orchestrator, trusting } from './testing/trusting.ts';

const task = {
  issuer: 'https://orchestrator.example',
  purpose: 'reconcile.invoices',
  phase: 'plan',
  subject: 'user:dana',
  workload: { source: 'dev', subject: 'agent-recon' },
};
const trust = (change: Partial<Trust>) => ({ ...trusting, trust: { ...trusting.trust, ...change } });
const issuer = (change: Partial<typeof orchestrator>) => trust({ taskIssuers: [{ ...orchestrator, ...change }] });

test('a task that could be opened now stands', () => {
  expect(fallenOf(trusting, task)).toBe(undefined);
  expect(fallenOf(trusting, { ...task, phase: null })).toBe(undefined);
});

test.each([
  ['issuer_distrusted', issuer({ issuer: 'https://other.example' }), task],
  ['issuer_distrusted', trust({ taskIssuers: [] }), task],
  ['issuer_may_not_state', issuer({ purposes: ['answer.customer'] }), task],
  ['issuer_may_not_state', issuer({ workloads: ['dev:agent-support'] }), task],
  ['issuer_may_not_state', trusting, { ...task, subject: 'agent-recon' }],
  ['workload_source_gone', trust({ workloadSources: [] }), task],
  ['purpose_gone', { ...trusting, purposes: new Map() }, task],
  ['phase_unknown', trusting, { ...task, phase: 'execute' }],
])('%s', (fallen, catalog, of) => {
  expect(fallenOf(catalog, of)).toBe(fallen);
});

test('one entry of its issuer is enough, and an agent may be the subject where that is allowed', () => {
  const other = { ...orchestrator, name: 'other', purposes: ['answer.customer'] };
  expect(fallenOf(trust({ taskIssuers: [other, orchestrator] }), task)).toBe(undefined);
  expect(fallenOf(issuer({ autonomous: true }), { ...task, subject: 'agent-recon' })).toBe(undefined);
});
