import { epochOf, type FenceDocument, type FenceForm, read } from '../../../providers/aws-sts/document.ts';
import { planWith } from '../../../providers/aws-sts/predecessors.ts';
import { cutBesides, type FenceState, type PlannedFence, supersedes } from '../../../providers/aws-sts/plan.ts';
import type { Grants, ModelGrant } from './grants.ts';
import { INLINE_CHARACTERS, type ModelRole } from './role.ts';
import type { Scenario } from './simulate.ts';
import type { Chance, Timeline } from './timeline.ts';

/** How the provider goes about it: see `role-fence.ts`. */
export interface WriterRules {
  /** Between two writes to one role. */
  readonly paceMs: number;
  readonly lagMs: number;
  /** A name that nobody wrote to for so long is written to no more. */
  readonly idleMs: number;
  /** Between a write of ours and the deletion of what it makes needless. */
  readonly settledMs: number;
  /** What others wrote goes so long after the last that it denies is powerless. */
  readonly abandonedMs: number;
}

/** One broker's memory of one role. */
interface Desk {
  epoch: bigint | null;
  state: FenceState | null;
  /** Of that epoch: what was written there, and when the last of it was sent. */
  texts: string[];
  wroteAt: number;
  /** Epochs that were given up, whose last write may still arrive; with what was written there and is in our state. */
  readonly left: Map<bigint, readonly string[]>;
  /** What of others, and of what it left, is taken over; and since when a document stands that denies it. */
  readonly taken: Map<bigint, { readonly text: string; readonly since: number }>;
  others: { readonly texts: ReadonlyMap<bigint, string>; readonly at: number } | undefined;
}

/** The brokers: whoever claims what ended writes the fence, one at a time for each role. */
export class ModelWriters {
  readonly forms: Partial<Record<FenceForm, number>> = {};
  /** From the end of a grant until the write that denies it, in seconds. */
  readonly written: number[] = [];
  lost = 0;
  noRoom = 0;
  #numbers = 0n;
  readonly #pending: Set<ModelGrant>[];
  readonly #desks: Desk[][];
  readonly #busy: boolean[];
  readonly #wroteAt: number[];
  readonly #timeline: Timeline;
  readonly #chance: Chance;
  readonly #scenario: Scenario;
  readonly #roles: readonly ModelRole[];
  readonly #grants: Grants;

  constructor(timeline: Timeline, chance: Chance, scenario: Scenario, roles: readonly ModelRole[], grants: Grants) {
    this.#timeline = timeline;
    this.#chance = chance;
    this.#scenario = scenario;
    this.#roles = roles;
    this.#grants = grants;
    this.#pending = roles.map(() => new Set());
    this.#desks = Array.from({ length: scenario.brokers }, () => roles.map(newDesk));
    this.#busy = roles.map(() => false);
    this.#wroteAt = roles.map(() => Number.NEGATIVE_INFINITY);
  }

  start(): void {
    this.#grants.onEnd = (grant) => {
      this.#pending[grant.role]?.add(grant);
      this.#soon(grant.role, 20);
    };
    const { restartSeconds } = this.#scenario;
    const restart = () => {
      const broker = Math.floor(this.#chance.between(0, this.#desks.length));
      this.#desks[broker] = this.#roles.map(newDesk);
      this.#timeline.after(this.#chance.exponential(restartSeconds * 1000), restart);
    };
    this.#timeline.after(this.#chance.exponential(restartSeconds * 1000), restart);
  }

  #soon(role: number, delay: number): void {
    if (this.#busy[role] === true) return;
    this.#busy[role] = true;
    const free = (this.#wroteAt[role] ?? 0) + this.#scenario.rules.paceMs - this.#timeline.now;
    this.#timeline.after(Math.max(delay, free), () => this.#write(role));
  }

  #write(index: number): void {
    const role = this.#roles[index];
    const desk = this.#desks[Math.floor(this.#chance.between(0, this.#desks.length))]?.[index];
    if (role === undefined || desk === undefined) return;
    const ending = [...(this.#pending[index] ?? [])];
    const number = (this.#numbers += 1n);
    const { plan, taken } = this.#plan(index, role, desk, ending, number);
    const done = () => {
      this.#busy[index] = false;
      if ((this.#pending[index]?.size ?? 0) > 0) this.#soon(index, plan === undefined ? 5000 : 20);
    };
    this.#wroteAt[index] = this.#timeline.now;
    if (plan === undefined) {
      this.noRoom += 1;
      return done();
    }
    const put = () => role.put(plan.name, plan.document);
    if (this.#chance.happens(this.#scenario.heldUp)) {
      // Nobody knows what becomes of it; whoever comes next does not wait. It arrives when it arrives, or never.
      if (this.#chance.happens(0.8)) this.#timeline.after(this.#chance.between(5000, 600_000), put);
      this.#timeline.after(5000, () => {
        desk.epoch = epochOf(plan.name);
        leave(desk);
        done();
      });
      return;
    }
    const sent = this.#timeline.now;
    this.#timeline.after(this.#chance.between(40, 300), () => {
      const effectiveAt = put();
      if (effectiveAt !== undefined) {
        desk.wroteAt = sent;
        this.#keep(index, role, desk, { plan, taken }, ending, effectiveAt);
      }
      done();
    });
  }

  #plan(
    index: number,
    role: ModelRole,
    desk: Desk,
    ending: readonly ModelGrant[],
    number: bigint,
  ): ReturnType<typeof planWith> {
    const { rules } = this.#scenario;
    const fences = fencesOf(role);
    if (desk.epoch !== null && this.#timeline.now - desk.wroteAt > rules.idleMs) leave(desk);
    const highest = [...fences.keys(), ...desk.left.keys()].reduce((most, one) => (one > most ? one : most), 0n);
    const epoch = desk.epoch ?? (number > highest ? number : highest + 1n);
    desk.others ??= { texts: new Map([...fences].map(([one, { text }]) => [one, text])), at: this.#timeline.now };
    const { texts, at } = desk.others;
    const takesOver = this.#timeline.now - at > 1.8 * rules.idleMs;
    const untaken = [...fences].filter(
      ([one, { text }]) =>
        one !== epoch &&
        !isOwn(desk, one, text) &&
        (desk.left.has(one) || (takesOver && texts.get(one) === text)) &&
        desk.taken.get(one)?.text !== text,
    );
    const taken = [...fences].reduce((sum, [one, { text }]) => sum + (one === epoch ? 0 : text.length), role.others);
    const now = this.#grants.believed(this.#timeline.now);
    return planWith(untaken, now + rules.lagMs, {
      epoch,
      installation: '0123abcd',
      now,
      seen: now,
      live: this.#grants.living(index),
      ended: ending.map((grant) => this.#grants.asEnded(grant)),
      previous: desk.state,
      budget: INLINE_CHARACTERS - taken,
      quota: INLINE_CHARACTERS - role.others,
      lagMillis: rules.lagMs,
    });
  }

  #keep(
    index: number,
    role: ModelRole,
    desk: Desk,
    { plan, taken }: { plan: PlannedFence; taken: ReturnType<typeof planWith>['taken'] },
    ending: readonly ModelGrant[],
    effectiveAt: number,
  ): void {
    this.forms[plan.form] = (this.forms[plan.form] ?? 0) + 1;
    const epoch = epochOf(plan.name);
    const own = [...fencesOf(role)].filter(
      ([one, { text }]) => isOwn(desk, one, text) && desk.taken.get(one)?.text !== text,
    );
    for (const [one, { text }] of [...taken, ...own]) desk.taken.set(one, { text, since: this.#timeline.now });
    desk.texts = desk.epoch === epoch ? [...desk.texts, plan.document] : [plan.document];
    desk.epoch = epoch;
    desk.state = plan.kept;
    for (const grant of ending) {
      this.#pending[index]?.delete(grant);
      grant.containedAt = effectiveAt;
      this.written.push((this.#timeline.now - (grant.endedAt ?? 0)) / 1000);
    }
    this.#collect(role, desk, plan);
    const besides = new Set(cutBesides(this.#grants.living(index), [plan.says]));
    this.lost += besides.size;
    for (const grant of this.#grants.known(index)) {
      if (besides.has(grant.handle)) this.#grants.cutOff(grant, this.#timeline.now + 500);
    }
  }

  #collect(role: ModelRole, desk: Desk, plan: PlannedFence): void {
    const { rules } = this.#scenario;
    const now = this.#grants.believed(this.#timeline.now);
    for (const [epoch, { name, text, says }] of fencesOf(role)) {
      if (epoch === desk.epoch) continue;
      const taken = desk.taken.get(epoch);
      const idle = desk.left.has(epoch) || this.#timeline.now - (desk.others?.at ?? 0) > 2 * rules.idleMs;
      const settled = idle && taken?.text === text && this.#timeline.now - taken.since > rules.settledMs;
      const superseded = settled && (isOwn(desk, epoch, text) || supersedes(plan.says, plan.kept, says));
      if (!superseded && says.until + rules.abandonedMs >= now) continue;
      desk.taken.delete(epoch);
      // Decided by what was seen now, and done when it is done: its sender may be held up, and others at work again.
      const late = this.#chance.happens(this.#scenario.lateDeletions) ? this.#chance.between(1000, 600_000) : 0;
      this.#timeline.after(late, () => role.put(name, undefined));
    }
  }
}

function newDesk(): Desk {
  return {
    epoch: null,
    state: null,

    texts: [],
    wroteAt: 0,
    left: new Map(),
    taken: new Map(),
    others: undefined,
  };
}

/** It is written to no more. */
function leave(desk: Desk): void {
  if (desk.epoch !== null) desk.left.set(desk.epoch, desk.texts);
  desk.epoch = null;
  desk.texts = [];
}

/** Whether it is what this broker wrote there, and so in its state. */
function isOwn({ left }: Desk, epoch: bigint, text: string): boolean {
  return left.get(epoch)?.includes(text) ?? false;
}

interface Standing {
  readonly name: string;
  readonly text: string;
  readonly says: FenceDocument;
}

function fencesOf(role: ModelRole): ReadonlyMap<bigint, Standing> {
  const found = new Map<bigint, Standing>();
  for (const [name, text] of role.shown()) {
    const [epoch, says] = [epochOf(name), read(text)];
    if (epoch !== null && says !== null) found.set(epoch, { name, text, says });
  }
  return found;
}
