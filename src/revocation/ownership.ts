import { randomUUID } from 'node:crypto';
import { step } from '../domain/step.ts';
import { bounded } from '../domain/within.ts';
import { type Beat, type Holder, ProviderError, type Session } from '../provider.ts';
import type { Database, Queryable } from '../store/database.ts';
import { findTenure, insertTenure, loseTenure, raiseBeat } from '../store/tenures.ts';
import { noticeSetBack } from './failover.ts';
import type { ReconcileDeps, ReconcileObserver } from './reconcile-deps.ts';
import { targetEvent } from './evidence.ts';
import { guardSession } from './guarded-session.ts';

export interface OwnershipOptions {
  readonly deps: Pick<ReconcileDeps, 'policyDigest' | 'worker' | 'log'> & {
    readonly found: Pick<ReconcileObserver, 'stranger'>;
  };
  readonly db: Database;
  readonly installation: string;
  /** See `readStoreIdentity`. */
  readonly store: string;
  /** Seconds between two beats of a tenure. */
  readonly beatSeconds?: number;
  /** For so long a beat that this store knows nothing of must stand still before its tenure is taken up again. */
  readonly silenceSeconds?: number;
}

const BEAT_SECONDS = 10;
const SILENCE_SECONDS = 35;
const CALL_SECONDS = 5;
/** As often who has held a target for long speaks against another that writes there; a copy has been silenced by then. */
const MOST_CONTESTS = 3;

/** Another holds the target: everything but looking is refused. */
export class Stranger extends ProviderError {
  constructor(says: string) {
    super('misconfigured', says, { wholeTarget: true });
    this.name = 'Stranger';
  }
}

/** What is known of one session's target. */
interface Standing {
  readonly target: string;
  readonly session: Session;
  verdict: 'unproven' | 'ours' | 'stranger';
  says: string;
  provenAt: number;
  /** The highest beat that this process wrote: a store that failed over may have forgotten it. */
  tenure: string | null;
  beat: number;
  /** Since when this process has held it, and how often and when it last spoke against another that writes there. */
  heldSince: number;
  contests: number;
  contestedAt: number;
  /** A beat of unknown origin, and since when it stands still. */
  watched: { readonly beat: number; readonly since: number } | undefined;
  proving: Promise<void> | undefined;
}

/**
 * Whether a target is this broker's to change (DESIGN §3). A copy of the store bears our installation id, so the target's holder
 * counts up a beat, in the store first and then in the target. Who finds a beat there that its store knows nothing of is a copy
 * from before it, or lost its last moments in a failover: it waits. If the beat goes on, another is alive, and we are the
 * stranger until `mayfly target adopt`; if it stands still, nobody else is. A store filled from a dump needs no waiting: it is
 * another database.
 */
export class Ownership {
  readonly #options: OwnershipOptions;
  readonly #beatSeconds: number;
  readonly #silenceMillis: number;
  readonly #standings = new WeakMap<Session, Standing>();
  readonly #guarded = new WeakMap<Session, Session>();
  /** What a guarded session stands before. */
  readonly #behind = new WeakMap<Session, Session>();
  readonly #looks = new Set<Promise<void>>();
  #timer: NodeJS.Timeout | undefined;
  #sessions: () => Iterable<readonly [string, Session]> = () => [];

  constructor(options: OwnershipOptions) {
    this.#options = options;
    this.#beatSeconds = options.beatSeconds ?? BEAT_SECONDS;
    this.#silenceMillis = (options.silenceSeconds ?? SILENCE_SECONDS) * 1000;
  }

  /** Begins to hold what `sessions` names, and to notice when it is held elsewhere. */
  start(sessions: () => Iterable<readonly [string, Session]>): void {
    this.#sessions = sessions;
    this.#timer = setInterval(() => this.#beat(), (this.#beatSeconds * 1000) / 2);
    this.#beat();
  }

  /** Returns when no beat of ours is on its way any more. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await Promise.allSettled(this.#looks);
  }

  /** The same session, except that what changes the target is refused while it is not known to be ours. */
  guard(target: string, session: Session): Session {
    if (session.hold === undefined) return session;
    const guarded = this.#guarded.get(session) ?? guardSession(session, () => this.prove(target, session));
    this.#guarded.set(session, guarded);
    this.#behind.set(guarded, session);
    return guarded;
  }

  /**
   * Returns when the target is ours.
   * @throws Stranger when another holds it; ProviderError `retryable` while that is not known.
   */
  async prove(target: string, guarded: Session): Promise<void> {
    const session = this.#behind.get(guarded) ?? guarded;
    if (session.hold === undefined) return;
    const standing = this.#standingOf(target, session);
    const age = performance.now() - standing.provenAt;
    if (standing.verdict === 'ours' && age < this.#silenceMillis) return;
    try {
      // A store that does not answer keeps a look for long.
      await (standing.verdict === 'ours'
        ? bounded(CALL_SECONDS * 1000, [], () => this.#look(standing))
        : this.#look(standing));
    } catch (error) {
      // Nothing speaks against us, and an end must not wait for the store. Of an adoption meanwhile the target itself knows.
      if (standing.verdict !== 'ours') throw error;
    }
    if (standing.verdict === 'stranger') throw new Stranger(standing.says);
    if (standing.verdict === 'unproven') throw new ProviderError('retryable', standing.says, { wholeTarget: true });
  }

  #beat(): void {
    let sessions: Iterable<readonly [string, Session]> = [];
    try {
      sessions = this.#sessions();
    } catch (error) {
      this.#options.deps.log({ error }, 'a target can not be opened');
    }
    for (const [target, session] of sessions) {
      if (session.hold === undefined) continue;
      const standing = this.#standingOf(target, session);
      this.#look(standing).catch((error: unknown) => {
        // A target or a store that does not answer says nothing against us.
        this.#options.deps.log({ target, error }, 'who holds the target can not be seen now');
      });
    }
  }

  #standingOf(target: string, session: Session): Standing {
    const known = this.#standings.get(session);
    if (known !== undefined) return known;
    const standing: Standing = {
      ...{ target, session, verdict: 'unproven', says: 'who holds the target is not known yet' },
      ...{ provenAt: 0, tenure: null, beat: 0, watched: undefined, proving: undefined },
      ...{ heldSince: Number.POSITIVE_INFINITY, contests: 0, contestedAt: 0 },
    };
    this.#standings.set(session, standing);
    return standing;
  }

  async #look(standing: Standing): Promise<void> {
    if (standing.proving === undefined) {
      const look = this.#judge(standing).finally(() => {
        standing.proving = undefined;
        this.#looks.delete(look);
      });
      standing.proving = look;
      this.#looks.add(look);
    }
    await standing.proving;
  }

  async #judge(standing: Standing): Promise<void> {
    const { db, installation, store } = this.#options;
    let holder = await hold(standing.session);
    if (holder === null) return this.#ours(standing);
    if (holder.installation === installation && holder.tenure === null) holder = await this.#begin(standing);
    if (holder === null) return;
    if (holder.installation !== installation)
      return this.#stranger(standing, holder, `the target belongs to installation ${holder.installation}`);
    if (holder.store !== store)
      return this.#stranger(
        standing,
        holder,
        'another store of this installation holds the target: is this one a copy?',
      );
    const tenure = holder.tenure ?? '';
    // Read after the target: a living holder has written there what it wrote here before.
    const stored = await findTenure(db, tenure);
    const ours = standing.tenure === tenure ? standing.beat : 0;
    if (stored === undefined && ours === 0)
      return this.#stranger(
        standing,
        holder,
        'the target was adopted by another, or by this store in a time that it forgot',
      );
    if (stored?.lost === true)
      return this.#stranger(standing, holder, 'another broker of this installation is alive and holds the target');
    const known = Math.max(stored?.beat ?? 0, ours);
    if (holder.beat > known && !this.#contests(standing) && !(await this.#isSilent(standing, holder, tenure))) return;
    const written = Math.max(holder.beat, ours);
    const raise = (queryable: Queryable) =>
      raiseBeat(queryable, tenure, Math.max(known, written), holder.beat > known ? 0 : this.#beatSeconds / 2);
    this.#ours(standing);
    step('keep-hold.before');
    const beat =
      written > (stored?.beat ?? 0)
        ? await noticeSetBack({ ...this.#options.deps, db }, tenure, standing.target, written, raise)
        : await raise(db);
    if (beat === undefined) return;
    standing.tenure = tenure;
    standing.beat = beat;
    standing.heldSince = Math.min(standing.heldSince, performance.now());
    await hold(standing.session, { store, tenure, beat });
    step('keep-hold.after');
  }

  /** Nobody holds it yet. Of several who begin at once the target keeps one. */
  async #begin(standing: Standing): Promise<Holder | null> {
    const { db, store } = this.#options;
    const tenure = randomUUID();
    step('take-hold.before');
    await insertTenure(db, tenure, standing.target);
    const holder = await hold(standing.session, { store, tenure, beat: 1 });
    step('take-hold.after');
    return holder;
  }

  /**
   * A copy that was started within a beat of its backup knows all that the target shows, and writes there. Who has held the target
   * for long goes on: the copy then sees a beat that is not its own, and is the stranger. Not without end: of two that have both
   * held it for long (a store split in two) neither should.
   */
  #contests(standing: Standing): boolean {
    const now = performance.now();
    if (standing.verdict !== 'ours' || now - standing.heldSince < this.#silenceMillis) return false;
    if (now - standing.contestedAt > this.#silenceMillis) standing.contests = 0;
    if (standing.contests >= MOST_CONTESTS) return false;
    standing.contests += 1;
    standing.contestedAt = now;
    const { log } = this.#options.deps;
    log({ target: standing.target, alert: 'contested' }, 'another broker of this installation writes to the target');
    return true;
  }

  /** Whether a beat of unknown origin has stood still for long enough. If it went on, we are the stranger. */
  async #isSilent(standing: Standing, holder: Holder, tenure: string): Promise<boolean> {
    const { deps, db } = this.#options;
    const now = performance.now();
    if (standing.watched !== undefined && standing.watched.beat !== holder.beat) {
      await db.transaction({}, async (tx) => {
        await loseTenure(tx, tenure);
        step('lose-hold.before');
      });
      step('lose-hold.after');
      await this.#stranger(standing, holder, 'another broker of this installation is alive and holds the target');
      return false;
    }
    standing.watched ??= { beat: holder.beat, since: now };
    if (now - standing.watched.since >= this.#silenceMillis) {
      deps.log({ target: standing.target }, 'nobody else holds the target: the store had lost its last moments');
      return true;
    }
    standing.verdict = 'unproven';
    standing.says = 'the target shows a holder that this store does not know: waiting whether it is alive';
    deps.log({ target: standing.target, beat: holder.beat }, standing.says);
    return false;
  }

  #ours(standing: Standing): void {
    standing.verdict = 'ours';
    standing.provenAt = performance.now();
    standing.watched = undefined;
    this.#options.deps.found.stranger(standing.target, false);
  }

  async #stranger(standing: Standing, holder: Holder, says: string): Promise<void> {
    const { deps, db } = this.#options;
    const told = standing.verdict === 'stranger';
    standing.verdict = 'stranger';
    standing.says = `${says} (read-only until mayfly target adopt ${standing.target})`;
    standing.watched = undefined;
    deps.found.stranger(standing.target, true);
    if (told) return;
    deps.log({ target: standing.target, epoch: holder.epoch, alert: 'stranger' }, standing.says);
    await db.transaction({}, async (tx) => {
      tx.record(targetEvent('target.held_elsewhere', deps, standing.target, { says, epoch: holder.epoch }));
      step('tell-stranger.before');
    });
    step('tell-stranger.after');
  }
}

async function hold(session: Session, beat?: Beat): Promise<Holder | null> {
  return await bounded(CALL_SECONDS * 1000, [], async (signal) => (await session.hold?.(signal, beat)) ?? null);
}
