import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { parse } from 'yaml';
import { z } from 'zod';
import { createMetrics } from '../src/metrics.ts';

const docs = fileURLToPath(new URL('../docs/', import.meta.url));
const rule = z.strictObject({
  alert: z.string().regex(/^Mayfly[A-Z]\w+$/),
  expr: z.string(),
  for: z
    .string()
    .regex(/^\d+[mh]$/)
    .optional(),
  labels: z.strictObject({ severity: z.enum(['page', 'ticket']) }),
  annotations: z.strictObject({ summary: z.string(), runbook_url: z.string() }),
});
const rules = z
  .strictObject({ groups: z.array(z.strictObject({ name: z.string(), rules: z.array(rule).min(1) })) })
  .parse(parse(readFileSync(`${docs}alerts/mayfly.rules.yaml`, 'utf8')))
  .groups.flatMap((group) => group.rules);

const HEADINGS = ['What it means', 'What to look at', 'What to press', 'When to wake somebody'];

/** Name of each metric that a broker exports → its labels, from a scrape in which each was counted once. */
async function exported(): Promise<Map<string, Set<string>>> {
  const metrics = createMetrics();
  metrics.contained('t', 'c', 1);
  metrics.failed('t', 'denied');
  metrics.notSeen('t', 1);
  metrics.orphaned('t', 1);
  metrics.rang('postgres', 1);
  metrics.notified('taken');
  metrics.breaker('t', 'open');
  metrics.stranger('t', true);
  metrics.loginFailing('t', true);
  metrics.unreconciled(new Set(['t']), ['t']);
  const { text } = await metrics.scrape({
    queue: async () => ({
      backlog: [],
      paused: new Map([['t', { deadlinesHeld: true }]]),
      residual: new Map(),
      kills: new Map(),
      killsUnconfirmed: false,
    }),
    drift: async () => ({ undecided: 1, oldestSeconds: 1, left: [{ target: 't', held: 1, uninspected: 1 }] }),
    approvals: async () => ({ pending: 1, oldestSeconds: 1 }),
    signals: async () => [{ name: 's', ageSeconds: 1, stale: true, required: true }],
    webhooks: async () => [{ name: 'w', pending: 1, givenUp: 1, failingSeconds: 1 }],
    sweepAge: () => 1,
    targets: ['t'],
  });
  const found = new Map<string, Set<string>>();
  for (const [, name = '', labels = ''] of text.matchAll(/^(\w+)(?:\{(.*)\})? \S+$/gm)) {
    const known = found.get(name) ?? new Set();
    for (const [, label = ''] of labels.matchAll(/(\w+)="/g)) known.add(label);
    found.set(name, known);
  }
  return found;
}

test('every metric in an alert is exported, with the labels that the alert asks for', async () => {
  const metrics = await exported();
  for (const { alert, expr } of rules) {
    const names = expr.match(/\bmayfly_\w+/g) ?? [];
    expect([alert, names.length > 0]).toEqual([alert, true]);
    for (const name of names) expect([alert, name, metrics.has(name)]).toEqual([alert, name, true]);
    const labels = new Set(names.flatMap((name) => [...(metrics.get(name) ?? [])]));
    const asked = [
      ...[...expr.matchAll(/\bby \(([^)]*)\)/g)].flatMap(([, list = '']) => list.split(/,\s*/)),
      ...[...expr.matchAll(/(\w+)=~?"/g)].map(([, label = '']) => label),
    ];
    for (const label of asked) expect([alert, label, labels.has(label)]).toEqual([alert, label, true]);
  }
});

test('every alert has its page, and every page its alert', () => {
  const pages = readdirSync(`${docs}runbooks`).map((file) => file.replace(/\.md$/, ''));
  expect(pages.sort()).toEqual(rules.map(({ alert }) => alert).sort());
  for (const { alert, annotations } of rules) expect(annotations.runbook_url).toBe(`docs/runbooks/${alert}.md`);
});

test('every page says what it means, what to look at, what to press and when to wake somebody', () => {
  for (const { alert } of rules) {
    const text = readFileSync(`${docs}runbooks/${alert}.md`, 'utf8');
    expect([...text.matchAll(/^## (.*)$/gm)].map(([, heading]) => heading)).toEqual(HEADINGS);
    for (const [, page = ''] of text.matchAll(/\]\((\w+)\.md\)/g))
      expect(rules.map((each) => each.alert)).toContain(page);
  }
});
