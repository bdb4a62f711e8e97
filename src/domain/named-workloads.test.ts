import { expect, test } from 'vitest';
import { namesWorkload } from './named-workloads.ts';

const list = ['prod:spiffe://prod.example/agents/*', 'cluster:system:serviceaccount:finance:recon'];
const named = (source: string, subject: string): boolean => namesWorkload(list, { source, subject });

test('an exact id names one workload of one source', () => {
  expect(named('cluster', 'system:serviceaccount:finance:recon')).toBe(true);
  expect(named('cluster', 'system:serviceaccount:finance:recon2')).toBe(false);
  expect(named('other', 'system:serviceaccount:finance:recon')).toBe(false);
});

test('a path prefix names what lies below it, of that source and trust domain', () => {
  expect(named('prod', 'spiffe://prod.example/agents/recon')).toBe(true);
  expect(named('prod', 'spiffe://prod.example/agents/recon/7')).toBe(true);
  expect(named('prod', 'spiffe://prod.example/agents')).toBe(false);
  expect(named('prod', 'spiffe://prod.example/agents-of-others/recon')).toBe(false);
  expect(named('prod', 'spiffe://prod.example/other/agents/recon')).toBe(false);
  expect(named('prod', 'spiffe://prod.example.evil/agents/recon')).toBe(false);
  expect(named('staging', 'spiffe://prod.example/agents/recon')).toBe(false);
});
