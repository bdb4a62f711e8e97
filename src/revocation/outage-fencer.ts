import type { GrantId } from '../domain/ids.ts';
import { step } from '../domain/step.ts';
import { bounded } from '../domain/within.ts';
import type { Ref, Session } from '../provider.ts';
import { findLivingGrants, findUncontained, type LivingGrant } from '../store/living-grants.ts';
import { askEach } from './answers.ts';
import type { RevocationDeps } from './deps.ts';
import { targetEvent } from './evidence.ts';

const TICK_MILLIS = 500;
/** How often the grants whose deadlines come first are read, and how many of them. A thousand take some ten milliseconds. */
const READ_MILLIS = 10_000;
const READ_AT_ONCE = 2_000;
/** Grants that are remembered at most: some ten megabytes. */
const MOST = 10_000;
/** So long after a deadline the ordinary way has taken up what is due, if it can. */
const PATIENCE_MILLIS = 1_000;
/** A store that has not answered by then is away. */
const ANSWER_MILLIS = 2_000;
const AT_ONCE = 50;
const CALL_MILLIS = 5_000;
/** Before a target is asked again where something is left, or the store that has answered. */
const REST_MILLIS = 2_000;
/** What was fenced is told of in one event up to so many, and kept to be told of up to so many. */
const TOLD_AT_ONCE = 200;
const MOST_TOLD = 5_000;

interface Remembered {
  readonly grant: LivingGrant;
  /** `performance.now()` when it was known to be so. */
  readonly at: number;
}

interface Cut {
  readonly target: string;
  readonly grantId: GrantId;
  readonly at: Date;
}

/**
 * Fences at their deadlines what this process knows to live, while the store can not be asked or takes nothing (DESIGN §2, 7): what
 * it made or renewed itself, and what it has read of those that come first. It reports nothing as ended: once the store is back,
 * the claim finds what is due, fences again, and `verify` sees it gone. Only deadlines: an end that the store was not told is none.
 * Never early: the store's clock is carried on by ours from when it was read, and the target says itself when a credential ends that
 * another replica may have renewed.
 */
export class OutageFencer {
  readonly #deps: RevocationDeps;
  #living = new Map<GrantId, Remembered>();
  /** Targets where an operator held deadlines when it was last read: what stands behind the page is not read. */
  #held: ReadonlySet<string> = new Set();
  /** Until when it is believed that nothing can be claimed there. */
  readonly #unclaimedUntil = new Map<string, number>();
  readonly #restUntil = new Map<string, number>();
  #cuts: Cut[] = [];
  /** The store's clock, and `performance.now()` when its answer was here: so it is at least that much later now. */
  #clock: { readonly time: number; readonly at: number } | undefined;
  #readAt = Number.NEGATIVE_INFINITY;
  #quietUntil = 0;
  #reading: Promise<void> | undefined;
  #looking: Promise<void> | undefined;
  #telling: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(deps: RevocationDeps) {
    this.#deps = deps;
  }

  start(): void {
    this.#timer = setInterval(() => {
      if (this.#reading === undefined && performance.now() - this.#readAt >= READ_MILLIS)
        this.#reading = this.#read().finally(() => {
          this.#reading = undefined;
        });
      this.#looking ??= this.#look()
        .catch((error: unknown) => this.#deps.log({ error }, 'what is due without the store can not be fenced now'))
        .finally(() => {
          this.#looking = undefined;
        });
    }, TICK_MILLIS);
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await Promise.all([this.#reading, this.#looking, this.#telling]);
  }

  /** It lives until its deadline, as far as anybody knows. */
  remember(grant: LivingGrant): void {
    const { id, target, handle, facts, deadline, decidedRevision } = grant;
    if (this.#living.size >= MOST && !this.#living.has(id)) return;
    this.#living.set(id, { grant: { id, target, handle, facts, deadline, decidedRevision }, at: performance.now() });
  }

  /** Nothing can be claimed on that target now, and it may be so for that long. */
  unclaimed(target: string, millis: number): void {
    const until = Math.max(this.#unclaimedUntil.get(target) ?? 0, performance.now() + millis);
    this.#unclaimedUntil.set(target, until);
  }

  async #read(): Promise<void> {
    const began = performance.now();
    this.#readAt = began;
    try {
      const { now, grants, held } = await findLivingGrants(this.#deps.db, READ_AT_ONCE);
      this.#held = held;
      this.#clock = { time: now.getTime(), at: performance.now() };
      const read = new Map(grants.map((grant) => [grant.id, { grant, at: began }]));
      const last = grants.length < READ_AT_ONCE ? Number.POSITIVE_INFINITY : (grants.at(-1)?.deadline.getTime() ?? 0);
      for (const [id, known] of this.#living) {
        // What was not read has ended, unless it came after that, or stands behind the page.
        const stands = known.at > began || known.grant.deadline.getTime() >= last;
        if (stands && (read.size < MOST || read.has(id))) read.set(id, known);
      }
      this.#living = read;
    } catch (error) {
      this.#deps.log({ error }, 'the living grants can not be read now; those known are kept in mind');
    }
  }

  async #look(): Promise<void> {
    const now = performance.now();
    if (now < this.#quietUntil) return;
    const late = [...this.#living.values()].map(({ grant }) => grant).filter((grant) => this.#isLate(grant, now));
    if (late.length > 0) await this.#fenceWhatNobodyElseCan(late);
    // One at a time, and not waited for: a commit may hang, and be made all the same once the store goes on.
    if (this.#cuts.length > 0)
      this.#telling ??= this.#tell().finally(() => {
        this.#telling = undefined;
      });
  }

  #isLate({ target, deadline }: LivingGrant, now: number): boolean {
    if (this.#clock === undefined || this.#held.has(target) || now < (this.#restUntil.get(target) ?? 0)) return false;
    return this.#clock.time + now - this.#clock.at > deadline.getTime() + PATIENCE_MILLIS;
  }

  async #fenceWhatNobodyElseCan(late: readonly LivingGrant[]): Promise<void> {
    const open = await this.#ask(late.map(({ id }) => id));
    if (open !== undefined) {
      for (const { id } of late) if (!open.has(id)) this.#living.delete(id);
      this.#quietUntil = performance.now() + REST_MILLIS;
    }
    const byTarget = new Map<string, LivingGrant[]>();
    for (const grant of late) {
      const isAway = open === undefined || (open.has(grant.id) && this.#isUnclaimed(grant.target));
      if (isAway) byTarget.set(grant.target, [...(byTarget.get(grant.target) ?? []), grant]);
    }
    await Promise.all([...byTarget].map(([target, grants]) => this.#fenceOn(target, grants)));
  }

  /** Those that are not contained; undefined when the store does not say. */
  async #ask(ids: readonly GrantId[]): Promise<ReadonlySet<GrantId> | undefined> {
    return await bounded(ANSWER_MILLIS, [], () => findUncontained(this.#deps.db, ids)).catch(() => undefined);
  }

  #isUnclaimed(target: string): boolean {
    return performance.now() < (this.#unclaimedUntil.get(target) ?? 0);
  }

  async #fenceOn(target: string, grants: readonly LivingGrant[]): Promise<void> {
    const deps = this.#deps;
    try {
      const [first] = grants;
      if (first === undefined) return;
      const session = deps.session(await deps.targetAt(target, first.decidedRevision, false));
      // Its document tells of what lives on, too: that is for the store to say, and its writers have numbers from there.
      if (session.oneDocument === true)
        throw new Error('The fence of this target is one document, written with the store alone.');
      for (let from = 0; from < grants.length; from += AT_ONCE)
        await this.#fence(session, target, grants.slice(from, from + AT_ONCE));
    } catch (error) {
      deps.log({ target, error }, 'what has reached its deadline can not be fenced without the store now');
    } finally {
      this.#restUntil.set(target, performance.now() + REST_MILLIS);
    }
  }

  async #fence(session: Session, target: string, grants: readonly LivingGrant[]): Promise<void> {
    const over = await whatIsOver(session, grants);
    if (over.length === 0) return;
    step('fence-unrecorded.before');
    const outcomes = await askEach(over.map(toRef), new AbortController().signal, (refs, signal) =>
      session.fence(refs, signal),
    );
    step('fence-unrecorded.after');
    const done = over.filter((_, index) => outcomes[index]?.ok === true);
    for (const { id } of done) this.#living.delete(id);
    const at = this.#storeTime();
    this.#cuts.push(...done.slice(0, MOST_TOLD - this.#cuts.length).map(({ id }) => ({ target, grantId: id, at })));
    if (done.length === 0) return;
    this.#deps.observer.fencedUnrecorded(target, done.length);
    this.#deps.log(
      { target, grants: done.length, alert: 'fenced_unrecorded' },
      'fenced at their deadline without the store: recorded once it is back',
    );
  }

  /** What was done while nothing could be written. Of whoever dies before, only the ordinary record follows. */
  async #tell(): Promise<void> {
    const [first] = this.#cuts;
    if (first === undefined) return;
    const { target } = first;
    const some = this.#cuts.filter((cut) => cut.target === target).slice(0, TOLD_AT_ONCE);
    const grants = some.map(({ grantId, at }) => ({ grant_id: `grt_${grantId}`, at: at.toISOString() }));
    try {
      await this.#deps.db.transaction({}, async (tx) => {
        tx.record(targetEvent('target.fenced_unrecorded', this.#deps, target, { grants }));
        step('tell-fenced.before');
      });
    } catch {
      // It does not answer yet.
      return;
    }
    step('tell-fenced.after');
    this.#cuts = this.#cuts.filter((cut) => !some.includes(cut));
  }

  #storeTime(): Date {
    const { time, at } = this.#clock ?? { time: 0, at: performance.now() };
    return new Date(time + performance.now() - at);
  }
}

/** Of a credential that can be renewed the target itself must say that it is over. What it does not know needs no fence. */
async function whatIsOver(session: Session, grants: readonly LivingGrant[]): Promise<readonly LivingGrant[]> {
  if (session.renew === undefined) return grants;
  const ends = session.ends?.bind(session);
  if (ends === undefined) return [];
  const until = await bounded(CALL_MILLIS, [], (signal) => ends(grants.map(toRef), signal));
  return grants.filter((_, index) => {
    const end: unknown = until[index];
    return end instanceof Date && end.getTime() <= Date.now();
  });
}

function toRef({ id, handle, facts, deadline }: LivingGrant): Ref {
  return { grantId: id, handle, facts, deadline };
}
