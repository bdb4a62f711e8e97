import { describe, expect, test } from 'vitest';
import { checkCatalog } from './check.ts';
import { faultLines, load, sampleProviders, sampleWith } from './testing/sample.ts';

const trust = sampleWith({})['trust.yaml'] ?? '';
const KEY = 'A'.repeat(43);
const files = (...sources: string[]) =>
  sampleWith({ 'trust.yaml': `${trust}signal_sources:\n${sources.map((text) => `  - ${text}\n`).join('')}` });
const RISK = `{ name: risk, workloads: ["cluster:risk"], keys: [${KEY}], kinds: [workload_risk], max_age_seconds: 60 }`;

test('sources come out with their keys, their kinds and their bounds', () => {
  const watch =
    '{ name: watch, workloads: ["cluster:watch"], proof_of_possession: none, kinds: [user], max_age_seconds: 30, heartbeat: true, required: true, suspends: [user] }';
  expect(load(files(RISK, watch)).signalSources).toEqual([
    {
      ...{ name: 'risk', workloads: ['cluster:risk'], keys: [KEY], kinds: ['workload_risk'], maxAgeSeconds: 60 },
      ...{ heartbeat: false, required: false, suspends: [] },
    },
    {
      ...{ name: 'watch', workloads: ['cluster:watch'], keys: null, kinds: ['user'], maxAgeSeconds: 30 },
      ...{ heartbeat: true, required: true, suspends: ['user'] },
    },
  ]);
  expect(load(sampleWith({})).signalSources).toEqual([]);
});

const source = (more: string) => `{ name: a, workloads: ["cluster:a"], keys: [${KEY}], max_age_seconds: 60, ${more} }`;
test.each([
  [source('kinds: [weather]'), 'kinds[0]', 'must be one of workload_risk'],
  [source('kinds: []'), 'kinds', 'must name at least one'],
  [source('kinds: [user, user]'), 'kinds[1]', 'stands here twice'],
  [source('kinds: [user], required: true'), 'required', 'needs `heartbeat: true`'],
  [source('kinds: [incident], suspends: [incident]'), 'suspends[0]', 'must be one of device, user'],
  [source('kinds: [incident], suspends: [user]'), 'suspends[0]', 'does not stand under `kinds`'],
  [source('kinds: [user], silence: true'), 'silence', 'unknown field'],
  ['{ name: a, workloads: ["cluster:a"], kinds: [user], max_age_seconds: 60 }', 'keys', 'must name the keys'],
  [`{ name: a, workloads: [], keys: [${KEY}], kinds: [user], max_age_seconds: 60 }`, 'workloads', 'at least one'],
  [`{ name: a, workloads: ["else:a"], keys: [${KEY}], kinds: [user], max_age_seconds: 60 }`, 'workloads[0]', 'else'],
  [`{ name: a, workloads: ["cluster:a"], keys: [${KEY}], kinds: [user] }`, 'max_age_seconds', 'is required'],
  [
    `{ name: a, workloads: ["cluster:a"], keys: [${KEY}], kinds: [user], max_age_seconds: 86401 }`,
    'max_age_seconds',
    'from 1 to 86400',
  ],
])('%s is refused at its place', (text, path, message) => {
  expect(faultLines(files(text))).toEqual([
    expect.stringMatching(`signal_sources\\[0\\]\\.${path.replace(/[[\]]/g, '\\$&')}: .*`),
  ]);
  expect(faultLines(files(text))[0]).toContain(message);
});

test('two sources can be told apart by name and by workload', () => {
  const same = files(RISK, RISK);
  expect(faultLines(same)).toEqual([
    expect.stringContaining('the name risk stands here twice'),
    expect.stringContaining('cluster:risk is another source already'),
  ]);
});

describe('names of signals in policies', () => {
  const faults = (condition: string) =>
    checkCatalog(
      {
        ...files(RISK),
        'policies/more.cedar': `@id("more") forbid (principal is Mayfly::Task, action, resource) when { ${condition} };`,
      },
      { providers: sampleProviders, allowDev: false },
    ).faults.map(({ message }) => message);

  test.each([
    ['["hihg", "critical"].contains(principal.workload.risk)', 'no level of risk is called "hihg"'],
    ['context.device == "noncompliant"', 'no state of a device is called "noncompliant"'],
    ['context.user == "off"', 'no state of a user is called "off"'],
    ['context.signals.stale_sources.contains("rsk")', 'no signal source is called "rsk"'],
    ['context.signals.stale_kinds.contains("risk")', 'no kind of signal is called "risk"'],
  ])('that nobody would ever say are refused: %s', (condition, message) => {
    expect(faults(condition)).toEqual([expect.stringContaining(message)]);
  });

  test('that somebody says are not', () => {
    expect(
      faults(
        'principal.depth == 9 && (principal.workload.risk == "unknown" || context.device == "compliant" || context.signals.stale_sources.contains("risk") || context.incident || context.change_freeze)',
      ),
    ).toEqual([]);
  });
});
