import { afterAll, describe, expect, test } from 'vitest';
import { hasSpin, search } from './spin.ts';

interface Planted {
  /** The switch of the model that takes a defence out. */
  readonly without: string;
  /** What SPIN reports then. */
  readonly broken: string;
  /** What must happen for it to be needed. */
  readonly when?: Readonly<Record<string, number>>;
}
const planted: readonly Planted[] = [
  { without: 'NO_INTENT', broken: 'what_is_alive_is_known' },
  { without: 'NO_BIRTH_LOCKS', broken: 'what_is_ended_stays_ended' },
  { without: 'NO_OBLIGATIONS_WITH_END', broken: 'what_is_ended_stays_ended' },
  { without: 'NO_TOMBSTONE', broken: 'what_is_contained_stays_gone' },
  { without: 'NO_MINT_BY', broken: 'what_is_contained_stays_gone' },
  { without: 'NO_MINT_BY_AT_COMMIT', broken: 'what_is_contained_stays_gone' },
  { without: 'PRUNED_EARLY', broken: 'what_is_contained_stays_gone' },
  { without: 'NO_VERIFY', broken: 'what_is_contained_stays_gone', when: { FAULTS: 1 } },
  { without: 'NO_FENCING_NUMBER', broken: '(holder[g]==(r+1))', when: { PAUSES: 1 } },
  { without: 'NO_SWEEPER', broken: 'what_is_due_is_done' },
  { without: 'NO_RELEASE', broken: 'what_is_due_is_done', when: { CRASHES: 1 } },
  { without: 'GIVES_UP', broken: 'what_is_due_is_done', when: { FAULTS: 1 } },
  { without: 'SHARED_LANE', broken: 'what_is_due_is_done', when: { SICK_TARGET: 1 } },
  { without: 'STALE_SNAPSHOT', broken: 'over[0]' },
];
const nothing = { CRASHES: 0, PAUSES: 0, FAULTS: 0 };
const told: string[] = [];

describe.skipIf(!hasSpin())('the model of the protocol', { timeout: 600_000 }, () => {
  afterAll(() => console.info(told.join('\n')));

  test('holds at every moment, with a crash, a pause and a fault, and every step of it is taken', async () => {
    const defined = { CRASHES: 1, PAUSES: 1, FAULTS: 1 };
    const { broken, complete, unreached, states } = await search({ defined, looksFor: 'safety', optimised: true });
    told.push(`a crash, a pause and a fault: ${states} states`);
    expect(broken?.trace).toBeUndefined();
    expect(complete).toBe(true);
    expect(unreached.filter((line) => !/"-end-"|"assert\(what_/.test(line))).toEqual([]);
  });

  test('holds at every moment, with two crashes and a pause', async () => {
    const defined = { CRASHES: 2, PAUSES: 1, FAULTS: 0 };
    const { broken, complete, states } = await search({ defined, looksFor: 'safety', optimised: true });
    told.push(`two crashes and a pause: ${states} states`);
    expect(broken?.trace).toBeUndefined();
    expect(complete).toBe(true);
  });

  test('ends what was begun, on every path', async () => {
    const defined = { CRASHES: 1, PAUSES: 1, FAULTS: 0 };
    const { broken, complete, states } = await search({ defined, looksFor: 'liveness', optimised: true });
    told.push(`liveness, a crash and a pause: ${states} states`);
    expect(broken?.trace).toBeUndefined();
    expect(complete).toBe(true);
  });

  test('holds on one target while another never answers', async () => {
    const defined = { ...nothing, SICK_TARGET: 1 };
    const { broken, complete, states } = await search({ defined, looksFor: 'safety', mayHang: true, optimised: true });
    told.push(`two targets, one sick: ${states} states`);
    expect(broken?.trace).toBeUndefined();
    expect(complete).toBe(true);
  });

  test.each(planted)('with $without breaks $broken', async ({ without, broken: expected, when }) => {
    const defined = { ...nothing, ...when, [`PLANTED_${without}`]: 1 };
    const { broken, states } = await search({ defined, looksFor: 'safety', mayHang: true });
    told.push(`planted ${without}: found after ${states} states`);
    expect(broken?.what).toBe(`assertion violated ${expected}`);
  });
});
