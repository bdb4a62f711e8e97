import { performance } from 'node:perf_hooks';
import { type Evidence, observedSessions } from '../../src/provider.ts';
import { pause } from './abort.ts';
import type { TargetClock } from './clock.ts';
import type { ConnectionPool } from './pool.ts';
import type { Target } from './target.ts';

/** A session as it was met. The `pid` only tells one from another: it is no evidence. */
export interface Met {
  readonly pid: number;
  readonly address: string;
  readonly application: string;
  readonly since_ms: number;
}

export interface KillAnswer {
  readonly seen: Readonly<Record<string, readonly number[]>>;
  readonly asleep: readonly number[];
  /** Of the sessions seen, the first few of each OID. */
  readonly met?: Readonly<Record<string, readonly Met[]>>;
}

/** Sessions that were met, as evidence tells them. */
export function told(met: readonly Met[], clock: TargetClock): readonly Evidence[] {
  return met.map(({ address, application, since_ms: since }) => ({
    ...{ address, application },
    since: clock.fromTarget(new Date(since)).toISOString(),
  }));
}

/** One sweep is not enough: a login that races the fence may show up after it (measured: 26 of 60 rounds). */
const emptySweeps = 3;
/** Milliseconds between two sweeps. */
const interval = 15;
/** A login younger than this many milliseconds is let be: it wakes by itself, or is met again. */
const asleepFor = 100;
/** After so many milliseconds what still lives is said to live, so that a deaf backend does not hold up its neighbours. */
const longest = 4000;

export interface Swept {
  /** Backends of that OID told to end. */
  readonly ended: ReadonlyMap<number, number>;
  /** Of those, the first few. */
  readonly met: ReadonlyMap<number, readonly Met[]>;
  /** OIDs that still had sessions when time was up. */
  readonly alive: ReadonlySet<number>;
  /** Logins of unknown user that had begun before the sweep, were told to end and did not. */
  readonly asleep: number;
  readonly sweeps: number;
}

/** One sweep of the definer's `kill`: terminates what it finds of the OIDs, and those suspects that are still asleep. */
export type Kill = (oids: readonly number[], suspects: readonly number[]) => Promise<KillAnswer>;

/** @throws ProviderError from each call, when the target cannot be asked or the signal fires. */
export function killer(target: Target, signal: AbortSignal, pool: ConnectionPool = target.revoking): Kill {
  return (oids, suspects) =>
    pool.useTwice(signal, async ({ connection }) => {
      // Both in one snapshot of the statistics, so that what was ended is still seen there. Mostly there is nothing.
      const [row] = await connection.query<{ met: KillAnswer['met'] | null; answer: KillAnswer }>(
        'ending sessions',
        `SELECT k.answer, CASE WHEN k.answer -> 'seen' <> '{}' THEN mayfly.seen($1, $2::oid[], $4) END AS met
         FROM (SELECT mayfly.kill($1, $2::oid[], $3::integer[]) AS answer OFFSET 0) k`,
        [target.context.installation, oids, suspects, observedSessions],
        signal,
      );
      return { ...(row?.answer ?? { seen: {}, asleep: [] }), met: row?.met ?? {} };
    });
}

/**
 * Terminates the sessions of fenced roles until none was seen in three sweeps. Also ends logins that began before and
 * do not show their user yet: a client can sleep there (`post_auth_delay`) and wake up inside, after all was clean.
 * Those that begin later have met the fence.
 * @param before What earlier blows met, to be counted once.
 * @param empty How many sweeps must find nothing: three behind a fence, one where a fence is long past.
 * @throws What `kill` throws.
 */
export async function sweep(
  kill: Kill,
  oids: readonly number[],
  signal: AbortSignal,
  before: readonly Partial<KillAnswer>[] = [],
  empty = emptySweeps,
): Promise<Swept> {
  const began = performance.now();
  const ended = new Map(oids.map((oid) => [oid, new Set(before.flatMap(({ seen }) => seen?.[String(oid)] ?? []))]));
  const met = new Map(oids.map((oid) => [oid, new Map<number, Met>()]));
  const meet = (answer: Partial<KillAnswer>): void => {
    for (const [oid, known] of met) {
      for (const one of answer.met?.[String(oid)] ?? []) {
        if (known.size < observedSessions || known.has(one.pid)) known.set(one.pid, one);
      }
    }
  };
  before.forEach(meet);
  const empties = new Map(oids.map((oid) => [oid, 0]));
  const suspects = new Map<number, number>();
  let sweeps = 0;
  for (;;) {
    const now = performance.now();
    const ripe = [...suspects].filter(([, since]) => now - since >= asleepFor).map(([pid]) => pid);
    const answer = await kill(oids, ripe);
    const { seen, asleep } = answer;
    meet(answer);
    sweeps += 1;
    for (const pid of suspects.keys()) {
      if (!asleep.includes(pid)) {
        suspects.delete(pid);
        // It may have become a session of one of ours just now: look again.
        empties.forEach((_, oid) => empties.set(oid, 0));
      }
    }
    if (sweeps <= empty) {
      asleep.filter((pid) => !suspects.has(pid)).forEach((pid) => suspects.set(pid, now));
    }
    for (const [oid, count] of empties) {
      const pids = seen[String(oid)] ?? [];
      pids.forEach((pid) => ended.get(oid)?.add(pid));
      empties.set(oid, pids.length === 0 ? count + 1 : 0);
    }
    const alive = new Set([...empties].filter(([, count]) => count < empty).map(([oid]) => oid));
    const over = sweeps >= empty && alive.size === 0 && suspects.size === 0;
    if (over || performance.now() - began > longest) {
      const counts = new Map([...ended].map(([oid, pids]) => [oid, pids.size]));
      const described = new Map([...met].map(([oid, known]) => [oid, [...known.values()]]));
      return { ended: counts, met: described, alive, asleep: suspects.size, sweeps };
    }
    await pause(interval, signal);
  }
}
