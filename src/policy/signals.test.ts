import { describe, expect, test } from 'vitest';
import type { SignalSource } from '../domain/signal-source.ts';
import type { StandingSignal } from '../domain/signal.ts';
import { isStale, quiet, signalFacts, suspending } from './signals.ts';

const now = new Date('2026-01-05T10:00:00Z');
const target = { name: 'ledger-db', environment: 'production' };
const source = (name: string, more: Partial<SignalSource> = {}): SignalSource => ({
  ...{ name, workloads: [`dev:${name}`], keys: null, maxAgeSeconds: 60 },
  kinds: ['workload_risk', 'incident', 'change_freeze', 'device', 'user'],
  ...{ heartbeat: false, required: false, suspends: [] },
  ...more,
});
const says = (kind: StandingSignal['kind'], value: string, subject = 'all', by = 'a'): StandingSignal => ({
  ...{ source: by, kind, subject, value },
});
const facts = (standing: readonly StandingSignal[], sources = [source('a'), source('b')], lenient = false) =>
  signalFacts(sources, { standing, heard: {} }, target, now, lenient);

test('where nobody says anything nothing is known', () => {
  expect(facts([])).toEqual(quiet);
});

test('of several the worst word counts, in whatever order they come', () => {
  const words = ['medium', 'critical', 'low'].map((level, n) => says('workload_risk', level, 'x', n === 0 ? 'a' : 'b'));
  expect(facts(words).risk).toBe('critical');
  expect(facts(words.toReversed()).risk).toBe('critical');
  expect(facts([says('device', 'compliant'), says('device', 'not-compliant')]).device).toBe('not-compliant');
});

test('what the catalog does not name says nothing, nor one about what it may not tell of', () => {
  expect(facts([says('user', 'disabled', 'x', 'gone')])).toEqual(quiet);
  expect(facts([says('user', 'disabled')], [source('a', { kinds: ['device'] })])).toEqual(quiet);
});

test.each([
  ['all', true],
  ['target:ledger-db', true],
  ['environment:production', true],
  ['target:crm', false],
  ['environment:demo', false],
])('an incident or a freeze of %s covers the target: %s', (subject, covers) => {
  expect(facts([says('incident', 'open', subject), says('change_freeze', 'on', subject)])).toMatchObject({
    incident: covers,
    changeFreeze: covers,
  });
  expect(facts([says('incident', 'closed', subject)]).incident).toBe(false);
  const nowhere = signalFacts([source('a')], { standing: [says('incident', 'open', subject)], heard: {} }, null, now);
  expect(nowhere.incident).toBe(subject === 'all');
});

describe('a source that owes a heartbeat', () => {
  const watch = source('watch', { heartbeat: true, kinds: ['device', 'workload_risk'] });
  const heard = (secondsAgo: number) => ({ watch: now.getTime() - secondsAgo * 1000 });

  test('is stale after its bound, and if it was never heard', () => {
    expect(isStale(watch, heard(60), now)).toBe(false);
    expect(isStale(watch, heard(60.001), now)).toBe(true);
    expect(isStale(watch, {}, now)).toBe(true);
    expect(isStale(watch, { constructor: now.getTime() }, now)).toBe(true);
    expect(isStale({ ...watch, heartbeat: false }, {}, now)).toBe(false);
  });

  test('is named then, and of its words only the bad ones count', () => {
    const by = (kind: StandingSignal['kind'], value: string) => says(kind, value, 'x', 'watch');
    const stale = { staleSources: ['watch'], staleKinds: ['device', 'workload_risk'] };
    expect(facts([by('device', 'compliant'), by('workload_risk', 'medium')], [watch])).toEqual({ ...quiet, ...stale });
    const bad = [by('device', 'not-compliant'), by('workload_risk', 'high')];
    expect(facts(bad, [watch])).toEqual({ ...quiet, ...stale, device: 'not-compliant', risk: 'high' });
  });

  test('is taken as if it were heard for what lives already', () => {
    const word = says('device', 'compliant', 'x', 'watch');
    expect(facts([word], [watch], true)).toEqual({ ...quiet, device: 'compliant' });
  });
});

test('only a bad word of a kind by which its source suspends does so', () => {
  const sources = [source('a', { suspends: ['user'] }), source('b')];
  expect(suspending(sources, [says('user', 'disabled')])).toMatchObject({ source: 'a' });
  expect(suspending(sources, [says('user', 'enabled'), says('device', 'not-compliant')])).toBeUndefined();
  expect(suspending(sources, [says('user', 'disabled', 'x', 'b')])).toBeUndefined();
});
