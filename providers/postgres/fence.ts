import { type Evidence, type Outcome, ProviderError, type Ref } from '../../src/provider.ts';
import { pause } from './abort.ts';
import { classify, classifyState } from './errors.ts';
import { oidOf, strayed } from './handle.ts';
import { preparedSays } from './prepared.ts';
import { relieved } from './relief.ts';
import { evict } from './running.ts';
import { StandbyFence } from './standby-fence.ts';
import { type Kill, type KillAnswer, killer, sweep, type Swept, told } from './sweep.ts';
import type { Target } from './target.ts';
import { unlink } from './unlink.ts';

/** Refs per statement: more bring nothing (measured: 6 150 a second at 50, 5 280 at 200). */
const batchSize = 100;
/** Milliseconds a batch waits for a lock before that ref is put aside to run alone. */
const batchWait = 20;
const aloneWait = 1000;
const aloneTries = 3;

interface Job {
  readonly ref: Ref;
  readonly index: number;
}
interface Cut extends Job {
  readonly login: 'fenced' | 'absent';
  /** Null when the target knows none: then there never was a role. */
  readonly oid: number | null;
}
interface FenceRow {
  readonly outcome: string;
  readonly role_oid: number | null;
}

/**
 * Cuts access: the login first, committed alone with a tombstone; then the memberships; then the sessions. A ref that
 * cannot be had at once (an agent can hold the row of its own role) goes on alone, and its neighbours do not wait.
 */
export async function fence(target: Target, refs: readonly Ref[], signal: AbortSignal): Promise<readonly Outcome[]> {
  const run = new Fence(target, signal);
  const jobs = refs.map((ref, index) => ({ ref, index }));
  const done: Cut[] = [];
  const locked: Job[] = [];
  for (let from = 0; from < jobs.length; from += batchSize) {
    const batch = jobs.slice(from, from + batchSize);
    await run.guard(batch, async () => {
      const oids = batch.flatMap(({ ref }) => oidOf(ref.facts) ?? []);
      const cut = await relieved(target, oids, signal, () => run.cut(batch, batchWait, false)).catch(
        async (error: unknown) => {
          await run.strike(batch);
          throw error;
        },
      );
      done.push(...cut.done);
      locked.push(...cut.locked);
    });
  }
  const slow = async (): Promise<void> => {
    for (const job of locked) {
      await run.guard([job], () => run.alone(job));
    }
  };
  await Promise.all([run.guard(done, () => run.endSessions(done)), slow()]);
  return jobs.map(({ index }) => run.outcome(index));
}

/** One batch on its way. Outcomes are noted as they become known. */
class Fence {
  readonly #target: Target;
  readonly #signal: AbortSignal;
  readonly #kill: Kill;
  readonly #standbys: StandbyFence;
  readonly #outcomes = new Map<number, Outcome>();

  constructor(target: Target, signal: AbortSignal) {
    this.#target = target;
    this.#signal = signal;
    const kill = killer(target, signal);
    this.#kill = (oids, suspects) => relieved(target, oids, signal, () => kill(oids, suspects));
    this.#standbys = new StandbyFence(target, signal);
  }

  outcome(index: number): Outcome {
    return (
      this.#outcomes.get(index) ?? {
        ok: false,
        error: new ProviderError('retryable', 'fencing: the ref was not reached'),
      }
    );
  }

  /** Whatever ends the work early is the outcome of the refs that have none yet. */
  async guard(jobs: readonly Job[], work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      const failed = classify(error, 'fencing');
      jobs.filter(({ index }) => !this.#outcomes.has(index)).forEach((job) => this.#fail(job, failed));
    }
  }

  /** Tombstones and NOLOGIN, in one transaction of their own. */
  async cut(
    jobs: readonly Job[],
    waitMs: number,
    alone: boolean,
  ): Promise<{ readonly done: readonly Cut[]; readonly locked: readonly Job[] }> {
    return this.#target.revoking.useTwice(this.#signal, async ({ connection, status }) => {
      const here = jobs.filter((job) => {
        const error = strayed(job.ref, status);
        if (error !== null) {
          this.#fail(job, error);
        }
        return error === null;
      });
      const rows = await connection.query<FenceRow & Record<string, unknown>>(
        'fencing',
        'SELECT outcome, role_oid FROM mayfly.fence($1, $2::text[], $3::oid[], $4::timestamptz[], $5, $6) ORDER BY ord',
        [
          this.#target.context.installation,
          here.map(({ ref }) => ref.handle),
          here.map(({ ref }) => oidOf(ref.facts)),
          here.map(({ ref }) => this.#target.clock.toTarget(ref.deadline)),
          ...[waitMs, alone],
        ],
        this.#signal,
      );
      if (rows.some(({ outcome }) => outcome === 'failed:53200')) {
        throw fenceError('failed:53200');
      }
      const done: Cut[] = [];
      const locked: Job[] = [];
      here.forEach((job, place) => {
        const row = rows[place] ?? { outcome: 'failed:XX000', role_oid: null };
        if (row.outcome === 'fenced' || row.outcome === 'absent') {
          done.push({ ...job, login: row.outcome, oid: row.role_oid ?? oidOf(job.ref.facts) });
        } else if (row.outcome === 'locked') {
          locked.push(job);
        } else {
          this.#fail(job, fenceError(row.outcome));
        }
      });
      return { done, locked };
    });
  }

  /**
   * One ref whose row somebody holds: one connection waits for it while another ends the role's sessions, which are
   * the likeliest holders.
   */
  async alone(job: Job): Promise<void> {
    const oid = oidOf(job.ref.facts) ?? (await this.#registered(job));
    const met: KillAnswer[] = [];
    for (let tried = 1; tried <= aloneTries; tried += 1) {
      const waiting = new AbortController();
      const cutting = this.cut([job], aloneWait, true).finally(() => waiting.abort());
      const killing = oid === null ? undefined : this.#killWhile(waiting.signal, oid);
      const [cut, blows] = await Promise.all([cutting, killing]);
      met.push(...(blows ?? []));
      if (cut.locked.length === 0) {
        await this.endSessions(cut.done, met);
        return;
      }
    }
    const prepared = await preparedSays(this.#target, oid, this.#signal);
    this.#fail(job, new ProviderError('retryable', `fencing: another transaction holds the role${prepared}`));
  }

  async #killWhile(waiting: AbortSignal, oid: number): Promise<readonly KillAnswer[]> {
    const met: KillAnswer[] = [];
    while (!waiting.aborted) {
      met.push(await this.#kill([oid], []));
      await pause(20, waiting);
    }
    return met;
  }

  /** The primary could not be asked. */
  async strike(jobs: readonly Job[]): Promise<void> {
    await this.#standbys.strike(jobs.map(({ ref }) => ref));
  }

  /** @param before What earlier blows met. */
  async endSessions(cuts: readonly Cut[], before: readonly KillAnswer[] = []): Promise<void> {
    const oids = cuts.flatMap(({ oid }) => (oid === null ? [] : [oid]));
    if (oids.length === 0) {
      cuts.forEach((cut) => this.#done(cut, 0));
      return;
    }
    const present = cuts.flatMap(({ oid, login }) => (oid === null || login === 'absent' ? [] : [oid]));
    // The first blow does not wait for the memberships; the sweeps do, since only then is it known who had joined.
    const [links, first] = await Promise.all([unlink(this.#target, present, this.#signal), this.#kill(oids, [])]);
    // What could not be unlinked has not ended: work that begins until then must be ended too, so that its end is not noted yet.
    const unlinked = oids.filter((oid) => !(links.get(oid) instanceof ProviderError));
    // Since when older work is to be ended stands on the primary, and is replayed.
    const evicting = relieved(this.#target, oids, this.#signal, () => evict(this.#target, unlinked, this.#signal));
    const endAfar = (): ReturnType<StandbyFence['end']> => this.#standbys.end(oids);
    const [swept, afar, evicted] = await Promise.all([
      sweep(this.#kill, oids, this.#signal, [...before, first]),
      evicting.then(endAfar, endAfar),
      evicting,
    ]);
    for (const cut of cuts) {
      const link = cut.oid === null ? undefined : links.get(cut.oid);
      const standing = cut.oid === null ? undefined : afar.errors.get(cut.oid);
      if (cut.oid !== null && swept.alive.has(cut.oid)) {
        this.#fail(cut, new ProviderError('retryable', 'fencing: sessions are told to end and still live'));
      } else if (swept.asleep > 0) {
        this.#fail(cut, new ProviderError('retryable', 'fencing: a login that began before sleeps on'));
      } else if (!evicted) {
        this.#fail(
          cut,
          new ProviderError('retryable', 'fencing: work of other grants inside code of the role goes on'),
        );
      } else if (link instanceof ProviderError) {
        this.#fail(cut, link);
      } else if (standing !== undefined) {
        this.#fail(cut, standing);
      } else {
        this.#done(cut, link ?? 0, swept, cut.oid === null ? [] : afar.evidence(cut.oid));
      }
    }
  }

  async #registered(job: Job): Promise<number | null> {
    const [row] = await this.#target.revoking.useTwice(this.#signal, ({ connection }) =>
      connection.query<{ registered: number | null }>(
        'fencing',
        'SELECT registered FROM mayfly.look($1::text[], $2::oid[])',
        [[job.ref.handle], [null]],
        this.#signal,
      ),
    );
    return row?.registered ?? null;
  }

  #done(cut: Cut, removed: number, swept?: Swept, afar: readonly Evidence[] = []): void {
    const login = cut.login === 'fenced' ? 'cut' : 'absent';
    const ended = (cut.oid === null ? undefined : swept?.ended.get(cut.oid)) ?? 0;
    const met = (cut.oid === null ? undefined : swept?.met.get(cut.oid)) ?? [];
    const sessions = told(met, this.#target.clock);
    const evidence = {
      ...{ login, oid: cut.oid, memberships_removed: removed, sessions_ended: ended, sessions },
      sweeps: swept?.sweeps ?? 0,
      ...(afar.length === 0 ? {} : { standbys_swept: afar }),
    };
    this.#outcomes.set(cut.index, { ok: true, evidence });
  }

  #fail(job: Job, error: ProviderError): void {
    this.#outcomes.set(job.index, { ok: false, error });
  }
}

function fenceError(outcome: string): ProviderError {
  const state = /^failed:(.*)$/.exec(outcome)?.[1];
  if (state !== undefined) {
    return classifyState(state, 'fencing');
  }
  return outcome === 'foreign'
    ? new ProviderError('misconfigured', 'fencing: a role bears this name or OID without our mark: a person must look')
    : new ProviderError('misconfigured', 'fencing: the handle is not one of ours');
}
