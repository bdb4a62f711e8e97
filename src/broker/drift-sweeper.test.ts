import { beforeEach, expect, test, vi } from 'vitest';
import type { ActiveRevision } from '../catalog/active.ts';
import { type GrantId, randomIds } from '../domain/ids.ts';
import { MayflyError } from '../domain/errors.ts';
import { Secret } from '../provider.ts';
import { Database } from '../store/database.ts';
import { decideAgain, type Slice } from './decide-again.ts';
import { distrustIssuers } from './distrust-issuers.ts';
import { DriftSweeper } from './drift-sweeper.ts';
import { forgetSignals, lapseSignals } from './lapse-signals.ts';
import { trusting } from './testing/trusting.ts';

vi.mock(import('./decide-again.ts'));
vi.mock(import('./distrust-issuers.ts'));
vi.mock(import('./lapse-signals.ts'));

const nothing: Slice = { outcome: 'done', stayed: 0, ended: 0, reported: 0, failed: new Map(), over: [], more: false };
const failed = new Map([['g1' as GrantId, ['overflow']]]);

const nobodyAsks = () => {
  throw new Error('nobody asks');
};

/** What the passes come to, one after another; then there is nothing to do. */
function sweeper(...slices: Slice[]) {
  vi.mocked(decideAgain).mockReset();
  vi.mocked(decideAgain).mockImplementation(async () => slices.shift() ?? nothing);
  vi.mocked(lapseSignals).mockReset();
  vi.mocked(lapseSignals).mockResolvedValue();
  vi.mocked(forgetSignals).mockReset();
  vi.mocked(forgetSignals).mockResolvedValue();
  vi.mocked(distrustIssuers).mockReset();
  vi.mocked(distrustIssuers).mockResolvedValue(0);
  const active: ActiveRevision = {
    number: 1,
    catalog: {
      ...{ digest: '', files: {}, ...trusting, targets: new Map(), entitlements: new Map() },
      limits: { toxic: [], atMost: [] },
      policySet: { schema: '', policies: [], entities: [] },
      toolGateways: [],
      signalSources: [],
      changeControl: { serial: null, fourEyes: [] },
      webhooks: [],
    },
    policy: {
      digest: '',
      decide: nobodyAsks,
      evaluate: nobodyAsks,
    },
  };
  const said: string[] = [];
  const stopped: boolean[] = [];
  const catalog = { ready: true, current: () => active, refresh: vi.fn<() => Promise<void>>(async () => {}) };
  const made = new DriftSweeper({
    deps: {
      db: new Database({ url: new Secret('postgres://nobody@127.0.0.1:1/none'), connections: 1, onError: () => {} }),
      catalog,
      alarms: { in: () => {}, now: () => {} },
      ids: randomIds,
    },
    everySeconds: 1,
    observer: { driftDecided: () => {}, driftStopped: (is) => void stopped.push(is) },
    spread: () => {},
    log: (_, message) => void said.push(message),
  });
  return {
    sweeper: made,
    said,
    stopped,
    catalog,
    excepted: (signalled = false) =>
      vi
        .mocked(decideAgain)
        .mock.calls.flatMap(([, which]) =>
          'except' in which && (which.signalled ?? false) === signalled ? [which.except] : [],
        ),
  };
}

beforeEach(() => {
  vi.useFakeTimers();
  return () => vi.useRealTimers();
});
const pass = async (millis = 0) => await vi.advanceTimersByTimeAsync(millis);

test('a pass goes on until there is nothing more, and the next one is a second later', async () => {
  const { sweeper: one, excepted } = sweeper(
    { ...nothing, stayed: 100, more: true },
    { ...nothing, over: ['o'], more: true },
  );
  one.start();
  await pass();
  expect(excepted()).toEqual([[], [], ['o']]);
  await pass(999);
  expect(excepted()).toHaveLength(3);
  await pass(1);
  expect(excepted()).toHaveLength(4);
  await one.stop();
});

test('signals that are over are forgotten once a minute, however often it looks', async () => {
  const { sweeper: one } = sweeper();
  one.start();
  await pass(59_500);
  expect([vi.mocked(lapseSignals).mock.calls.length, vi.mocked(forgetSignals).mock.calls.length]).toEqual([60, 1]);
  await pass(1_000);
  expect(vi.mocked(forgetSignals)).toHaveBeenCalledTimes(2);
  await one.stop();
});

test('before its start it does nothing, and after its stop', async () => {
  const { sweeper: one, excepted } = sweeper();
  one.wake();
  one.revise();
  await pass();
  expect(excepted()).toEqual([]);
  one.start();
  await one.stop();
  const calls = excepted().length;
  one.wake();
  await pass(5_000);
  expect(excepted()).toHaveLength(calls);
});

test('what policy fails for is left alone for five seconds, then for ten; the others are decided meanwhile', async () => {
  const { sweeper: one, excepted, said, stopped } = sweeper({ ...nothing, failed });
  vi.mocked(decideAgain).mockImplementation(async (_, which) =>
    'except' in which && which.except.length === 0 ? { ...nothing, failed } : nothing,
  );
  one.start();
  await pass(4_900);
  expect(excepted()).toEqual([[], ['g1'], ['g1'], ['g1'], ['g1']]);
  expect(said).toEqual(['policy fails for living grants, which are neither revoked nor retained by that']);
  await pass(200);
  expect(excepted().at(-1)).toEqual([]);
  await pass(9_500);
  expect(excepted().filter((ids) => ids.length === 0)).toHaveLength(2);
  await pass(1_000);
  expect(excepted().filter((ids) => ids.length === 0)).toHaveLength(3);
  expect(stopped).not.toContain(true);
  await one.stop();
});

test('where it stands still nothing but what signals move is decided until its next try, whoever wakes it, but for another revision', async () => {
  const { sweeper: one, excepted, stopped } = sweeper({ ...nothing, outcome: 'failed', failed });
  one.start();
  await pass(1_900);
  one.wake();
  await pass();
  expect([excepted(), stopped]).toEqual([[[]], [true]]);
  // Beyond the slice that failed, a second later, and when it is woken.
  expect(excepted(true)).toEqual([['g1'], ['g1'], ['g1']]);
  one.revise();
  await pass();
  expect([excepted(), stopped]).toEqual([
    [[], []],
    [true, false],
  ]);
  await one.stop();
});

test('of another revision while it is at work, too', async () => {
  const { sweeper: one, excepted, stopped } = sweeper();
  vi.mocked(decideAgain).mockImplementationOnce(async () => {
    await Promise.resolve();
    one.revise();
    return { ...nothing, outcome: 'failed', failed };
  });
  one.start();
  await pass();
  expect([excepted(), stopped]).toEqual([
    [[], []],
    [true, false],
  ]);
  await one.stop();
});

test('who wakes it while it is at work is not forgotten', async () => {
  const { sweeper: one, excepted } = sweeper();
  vi.mocked(decideAgain).mockImplementationOnce(async () => {
    await Promise.resolve();
    one.wake();
    return nothing;
  });
  one.start();
  await pass();
  expect(excepted()).toHaveLength(2);
  await one.stop();
});

test('a revision that another has replaced is looked up again', async () => {
  const { sweeper: one, catalog } = sweeper({ ...nothing, outcome: 'stale', more: true });
  one.start();
  await pass();
  expect(catalog.refresh).toHaveBeenCalledOnce();
  await one.stop();
});

test('trust is compared once for a revision, and again where that did not come through', async () => {
  const { sweeper: one, said } = sweeper();
  vi.mocked(distrustIssuers).mockRejectedValueOnce(new MayflyError('catalog_changed'));
  vi.mocked(distrustIssuers).mockRejectedValueOnce(new MayflyError('store_unavailable'));
  one.start();
  await pass(5_000);
  expect(vi.mocked(distrustIssuers)).toHaveBeenCalledTimes(3);
  expect(said).toEqual(['a drift sweep broke off; what is left is tried again']);
  await one.stop();
});
