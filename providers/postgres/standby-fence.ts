import { performance } from 'node:perf_hooks';
import { type Evidence, ProviderError, type Ref, within } from '../../src/provider.ts';
import { pause } from './abort.ts';
import { classify } from './errors.ts';
import { oidOf } from './handle.ts';
import { evict } from './running.ts';
import { assertStandby, hasReached, lagging, type PrimaryPosition, primaryPosition, type Standby } from './standby.ts';
import { type KillAnswer, killer, sweep, type Swept, told } from './sweep.ts';
import type { Target } from './target.ts';

/** Milliseconds that all waiting for standbys may take in one call, however many are down: it has other refs to end. */
const patience = 4000;
/** Milliseconds that a single answer may take on top. */
const answerPatience = 1000;
/** Milliseconds that a sweep may take after that. */
const sweepPatience = 5000;
/** Milliseconds between two looks at the replay. */
const interval = 20;
/** Replay that does not move for so many milliseconds is held up by somebody. */
const stalledFor = 500;

/** What became of the sessions on all standbys. */
export interface EndedAfar {
  /** Per OID, why it is not ended on some standby. */
  readonly errors: ReadonlyMap<number, ProviderError>;
  /** For one OID a line per standby; none where no standby is listed. */
  evidence(oid: number): readonly Evidence[];
}

/** Ends sessions on the standbys during one fence. What was found down stays down for that call. */
export class StandbyFence {
  readonly #target: Target;
  readonly #signal: AbortSignal;
  readonly #failed = new Map<Standby, ProviderError>();
  #deadline: number | undefined;

  constructor(target: Target, signal: AbortSignal) {
    this.#target = target;
    this.#signal = signal;
  }

  /**
   * For roles whose fence and unlinking have committed: on each standby, waits until that is replayed, then ends what
   * is still there, as on the primary: no login, membership or session outlives it. Never rejects.
   */
  async end(oids: readonly number[]): Promise<EndedAfar> {
    const { standbys } = this.#target;
    const errors = new Map<number, ProviderError>();
    const fail = (failed: readonly number[], error: ProviderError): void =>
      failed.filter((oid) => !errors.has(oid)).forEach((oid) => errors.set(oid, error));
    if (standbys.length === 0 || oids.length === 0) {
      return { errors, evidence: () => [] };
    }
    let primary: PrimaryPosition;
    try {
      primary = await primaryPosition(this.#target.revoking, this.#signal);
    } catch (error) {
      fail(oids, classify(error, 'fencing'));
      return { errors, evidence: () => [] };
    }
    const lines = await Promise.all(
      standbys.map(async (standby) => {
        try {
          const known = this.#failed.get(standby);
          if (known !== undefined) {
            throw known;
          }
          const swept = await this.#endOn(standby, oids, primary);
          fail(
            oids.filter((oid) => swept.alive.has(oid)),
            standby.named(new ProviderError('retryable', 'sessions are told to end and still live')),
          );
          return (oid: number) => ({
            standby: standby.label,
            sessions_ended: swept.ended.get(oid) ?? 0,
            sessions: told(swept.met.get(oid) ?? [], standby.clock),
          });
        } catch (error) {
          const named = this.#failed.get(standby) ?? standby.named(error);
          this.#failed.set(standby, named);
          fail(oids, named);
          return () => ({ standby: standby.label, failed: named.message });
        }
      }),
    );
    return { errors, evidence: (oid) => lines.map((line) => line(oid)) };
  }

  /**
   * While the primary cannot be asked, ends at least the sessions that are on the standbys: new ones may follow, so that
   * this is no end, and what fails here is not told. Never rejects.
   */
  async strike(refs: readonly Ref[]): Promise<void> {
    const systemIdentifier = refs.map(({ facts }) => facts?.['system_identifier']).find((known) => known !== undefined);
    const oids = refs.flatMap(({ facts }) =>
      facts?.['system_identifier'] === systemIdentifier ? (oidOf(facts) ?? []) : [],
    );
    if (typeof systemIdentifier !== 'string' || oids.length === 0) {
      return;
    }
    const bounded = within(answerPatience, this.#signal);
    await Promise.allSettled(
      this.#target.standbys.map(async (standby) => {
        await standby.state({ systemIdentifier, lsn: '0/0', timeline: null, started: null }, bounded);
        await killer(this.#target, bounded, standby.pool)(oids, []);
      }),
    );
  }

  async #endOn(standby: Standby, oids: readonly number[], primary: PrimaryPosition): Promise<Swept> {
    this.#deadline ??= performance.now() + patience;
    const { blows, promoted } = await this.#replayed(standby, oids, primary, this.#deadline);
    const ending = within(sweepPatience, this.#signal);
    const swept = await sweep(killer(this.#target, ending, standby.pool), oids, ending, blows);
    if (promoted !== null) {
      // Its sessions are ended all the same; but they may come again, since nothing can be fenced there.
      throw promoted;
    }
    if (swept.asleep > 0) {
      throw new ProviderError('retryable', 'a login that began before sleeps on');
    }
    if (!(await evict(this.#target, oids, ending, standby.pool))) {
      throw new ProviderError('retryable', 'work of other grants inside code of the role goes on');
    }
    return swept;
  }

  /**
   * Waits for the replay, and ends sessions meanwhile: what holds it up is likely to be one of theirs. If that does not
   * help, whatever else of ours holds it up is ended too.
   */
  async #replayed(
    standby: Standby,
    oids: readonly number[],
    primary: PrimaryPosition,
    deadline: number,
  ): Promise<{ readonly blows: readonly KillAnswer[]; readonly promoted: ProviderError | null }> {
    // A little longer than the wait, so that what ends it is a look at the standby and not the want of one.
    const left = Math.max(deadline - performance.now(), 0) + answerPatience;
    const waiting = within(Math.ceil(left), this.#signal);
    const kill = killer(this.#target, waiting, standby.pool);
    const blows: KillAnswer[] = [];
    let heldBy: readonly string[] = [];
    let replayed: string | null | undefined;
    let movedAt = performance.now();
    for (;;) {
      const state = await standby.state(primary, waiting);
      blows.push(await kill(oids, []));
      try {
        assertStandby(state, primary);
      } catch (error) {
        return { blows, promoted: classify(error, 'fencing') };
      }
      if (hasReached(state, primary)) {
        return { blows, promoted: null };
      }
      if (state.replayed !== replayed) {
        replayed = state.replayed;
        movedAt = performance.now();
      } else if (performance.now() - movedAt > stalledFor && !state.paused) {
        heldBy = await this.#unblock(standby, waiting);
      }
      if (performance.now() > deadline || waiting.aborted) {
        throw lagging(state, primary, heldBy);
      }
      await pause(interval, waiting);
    }
  }

  /** @returns Those who hold replay up and are not ours to end. */
  async #unblock(standby: Standby, signal: AbortSignal): Promise<readonly string[]> {
    return standby.pool.useTwice(signal, async ({ connection }) => {
      const [row] = await connection.query<{ answer: { ended: number[]; held_by: string[] } }>(
        'unblocking the replay',
        'SELECT mayfly.unblock($1) AS answer',
        [this.#target.context.installation],
        signal,
      );
      return row?.answer.held_by ?? [];
    });
  }
}
