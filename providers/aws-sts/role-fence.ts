import { setTimeout as sleep } from 'node:timers/promises';
import { type FenceView, ProviderError } from '../../src/provider.ts';
import { tellBesides } from './besides.ts';
import { type Denial, isDenied, isTakenOver } from './denial.ts';
import { denies, policyName } from './document.ts';
import { Epoch } from './epoch.ts';
import { Collector } from './collect.ts';
import { AwsError } from './errors.ts';
import { type Fenced, fencedBy } from './fenced.ts';
import { hear } from './hear.ts';
import { type Ended, type FenceState, type Living, type PlannedFence } from './plan.ts';
import { planWith, Predecessors } from './predecessors.ts';
import { probeDeadline } from './probe.ts';
import { type Proof, type Provable, Prover } from './prover.ts';
import { InlinePolicies, type Standing } from './standing.ts';
import type { Account } from './account.ts';

/** A mint is over after that: its own time-out is far below. The cut stays behind it. */
const lagMillis = 60_000;
/** At least so long between two writes: what comes together is written together. */
const paceMillis = 1_000;
/** What was not looked at for so long may have been taken away. */
const unseenMillis = 60_000;

/** What was written last. */
interface Published extends Provable {
  readonly at: number;
}

/**
 * The fence of one role, as one writer writes it. An epoch is written by this process alone, one request after another; after a
 * request whose outcome nobody knows, and after all of it is past, comes another epoch: what is late can then only deny.
 */
export class RoleFence {
  readonly role: string;
  readonly #target: Account;
  readonly #policies: InlinePolicies;
  #turn: Promise<unknown> = Promise.resolve();
  #epoch: Epoch | null = null;
  #state: FenceState | null = null;
  #last: Published | undefined;
  #probes: ReadonlySet<string> = new Set();
  #lookedAt = Number.NEGATIVE_INFINITY;
  readonly #predecessors = new Predecessors();
  readonly #collector: Collector;
  readonly #prover: Prover;
  /** The generation with which each came to be denied: no proof of one before it counts. */
  #since: ReadonlyMap<string, number> = new Map();
  #alarm: string | undefined;
  readonly #listOnly: boolean;

  /** @param listOnly Of a canary, which knows nothing of what lives. */
  constructor(target: Account, role: string, listOnly = false) {
    this.role = role;
    this.#listOnly = listOnly;
    this.#target = target;
    this.#policies = new InlinePolicies(target, role);
    this.#prover = new Prover(target, role);
    this.#collector = new Collector(target, this.#policies, this.#predecessors);
  }

  /** Why nothing may be issued on the role now. */
  get alarm(): string | undefined {
    return this.#alarm;
  }

  /** Whether this process has denied that handle. */
  names(handle: string): boolean {
    return this.#state?.ended.some((one) => one.handle === handle) ?? false;
  }

  /** Sees to it that all of these are denied. @throws ProviderError */
  async deny(ended: readonly Ended[], live: readonly Living[], view: FenceView, signal: AbortSignal): Promise<Fenced> {
    return await this.#inTurn(async () => {
      this.#prover.warm();
      const standing = await this.#look(signal);
      const known = new Map(this.#state?.ended.map((one) => [one.handle, one.until]));
      const last = this.#last;
      const shown = last && standing.fences.get(last.epoch)?.text;
      const stands =
        last !== undefined &&
        !this.#prover.isSpent(last) &&
        last.epoch === this.#epoch?.number &&
        shown === last.plan.document;
      if (stands && ended.every(({ handle, until }) => (known.get(handle) ?? 0) >= until))
        return fencedBy(last.plan, this.#besides(live, standing));
      const plan = await this.#publish(ended, live, view, standing, signal);
      return fencedBy(plan, this.#besides(live, standing));
    });
  }

  /** Takes out what is powerless by itself, where that is worth a write; and what brokers before wrote, once ours is in force. @throws ProviderError */
  async prune(live: readonly Living[], view: FenceView, signal: AbortSignal): Promise<readonly string[]> {
    return await this.#inTurn(async () => {
      const last = this.#last;
      if (last !== undefined && last.epoch === this.#epoch?.number)
        await this.#collector.inherit(last, (limited) => this.#look(limited), signal);
      const own = this.#epoch?.number;
      const unseen = performance.now() - this.#lookedAt > unseenMillis && !this.#isPast();
      const isWide = this.#last?.plan.form === 'role-wide' && own !== undefined;
      if (!unseen && !isWide && this.#worth(own) === null) return [];
      const standing = await this.#look(signal);
      // What IAM answered may have told that it is not as late as it seemed, or that somebody took our document away.
      const worth = this.#worth(own);
      if (worth === 'a write') await this.#publish([], live, view, standing, signal);
      if (worth === 'a deletion') {
        this.#leave();
        if (own !== undefined) await this.#collector.remove(own, signal);
        await this.#collector.collect(standing, undefined, signal);
      }
      return this.#besides(live, standing);
    });
  }

  /** Takes away what it wrote: of a canary alone. @throws ProviderError */
  async withdraw(signal: AbortSignal): Promise<void> {
    await this.#inTurn(async () => {
      this.#leave();
      for (const epoch of this.#predecessors.left) await this.#policies.remove(epoch, signal);
    });
  }

  /** Who is denied by what stands, as IAM shows it now. @throws ProviderError `misconfigured` for a foreign hand. */
  async standing(signal: AbortSignal): Promise<Denial> {
    const standing = await this.#policies.look(signal);
    this.#judge(standing.strange);
    return {
      since: (handle, issuedBy) => {
        const found = this.#last && standing.fences.get(this.#last.epoch);
        return found !== undefined && denies(found.says, handle, issuedBy) ? (this.#since.get(handle) ?? null) : null;
      },
      anywhere: (handle, issuedBy) => isDenied(standing, this.#target.mark, { handle, issuedBy }),
    };
  }

  /** Whether a probe that the last document denies was seen refused, while its sibling was not. @throws ProviderError */
  async prove(signal: AbortSignal): Promise<Proof | null> {
    const last = this.#last;
    return last === undefined ? null : await this.#prover.prove(last, signal);
  }

  /** What pruning is worth. @param own Where it writes, or wrote. */
  #worth(own: bigint | undefined): 'a write' | 'a deletion' | null {
    if (this.#isPast()) return own === undefined ? null : 'a deletion';
    const now = this.#target.clock.atLeast() ?? 0;
    // A probe alone is worth no write.
    const grants = this.#grants();
    if (this.#epoch === null) return grants.some(({ until }) => until > now) ? 'a write' : null;
    const waits = this.#last !== undefined && performance.now() - this.#last.at < 30_000;
    return grants.some(({ until }) => until <= now) && !waits ? 'a write' : null;
  }

  /** Whether all that it denies is powerless by itself. What is denied by a cut alone has no entry. */
  #isPast(): boolean {
    const now = this.#target.clock.atLeast() ?? 0;
    const { ended = [], unnamedUntil = null } = this.#state ?? {};
    return ended.every(({ until }) => until <= now) && (unnamedUntil ?? 0) <= now;
  }

  async #look(signal: AbortSignal): Promise<Standing> {
    const standing = await this.#policies.look(signal);
    this.#lookedAt = performance.now();
    this.#judge(standing.strange);
    const epoch = this.#epoch;
    if (epoch === null) return standing;
    const shown = standing.fences.get(epoch.number);
    const touched = shown !== undefined && !epoch.texts.includes(shown.text);
    const past = this.#isPast();
    if (touched) this.#judge([policyName(epoch.number)]);
    // Written by another hand, taken away by one, or all of it over: the denials go on under another name, and what stands there stays.
    if (touched || standing.strange.includes(policyName(epoch.number))) this.#epoch = null;
    else if (past || shown === undefined) this.#leave();
    if (shown === undefined && !past && performance.now() - (this.#last?.at ?? 0) > unseenMillis)
      this.#miss(standing, policyName(epoch.number));
    return standing;
  }

  /** A later broker takes away what it has taken over; anybody else is to be told of. */
  #miss(standing: Standing, policy: string): void {
    const now = this.#target.clock.atLeast() ?? 0;
    const grants = this.#grants().filter(({ until }) => until > now);
    if (this.#state !== null && isTakenOver(standing, this.#target.mark, this.#state, grants))
      [this.#state, this.#last, this.#since] = [null, undefined, new Map()];
    else this.#tell([policy], 'fence_missing', 'somebody else has taken away the fence of a role');
  }

  /** What it denies, without the probes. */
  #grants(): readonly Ended[] {
    return this.#state?.ended.filter(({ handle }) => !this.#probes.has(handle)) ?? [];
  }

  #judge(strange: readonly string[]): void {
    const said = this.#alarm;
    this.#alarm =
      strange.length === 0
        ? undefined
        : `the role ${this.role} has policies in the name of the fence that this broker did not write: ${strange.join(', ')}`;
    if (this.#alarm !== undefined && this.#alarm !== said)
      this.#tell(strange, 'foreign_fence', 'somebody else has written to the fence of a role');
  }

  #tell(policies: readonly string[], alert: string, message: string): void {
    const { context } = this.#target;
    context.log({ target: context.target, role: this.role, policies, alert }, message);
  }

  #besides(live: readonly Living[], standing: Standing): readonly string[] {
    const own = this.#last?.epoch === this.#epoch?.number ? this.#last : undefined;
    return tellBesides(this.#target, this.role, live, standing, own);
  }

  #leave(): void {
    if (this.#epoch !== null) this.#predecessors.leave(this.#epoch.number, this.#epoch.texts);
    this.#epoch = null;
  }

  async #publish(
    ended: readonly Ended[],
    live: readonly Living[],
    view: FenceView,
    standing: Standing,
    signal: AbortSignal,
  ): Promise<PlannedFence> {
    const { clock, config, mark } = this.#target;
    const rest = paceMillis - (this.#last === undefined ? paceMillis : performance.now() - this.#last.at);
    if (rest > 0) await sleep(rest, undefined, { signal });
    await hear(this.#target, 'iam', signal);
    if (this.#epoch?.isIdle === true) this.#leave();
    const highest = this.#predecessors.highest(standing.fences.keys());
    // A store that was set back may give a number that another writer has had.
    const own = this.#epoch ?? new Epoch(view.writer > highest || this.#listOnly ? view.writer : highest + 1n, clock);
    const epoch = own.number;
    const now = clock.atLeast() ?? 0;
    const probe = await this.#prover.take();
    const probes =
      probe instanceof AwsError ? [] : [{ handle: probe.handle, until: probeDeadline(now), issuedBy: null }];
    const elsewhere = [...standing.fences].filter(([one]) => one !== epoch);
    const taken = elsewhere.reduce((sum, [, { text }]) => sum + text.length, standing.others);
    const sibling = this.#prover.siblings.map((one) => ({ handle: one, issuedFrom: null }));
    const ours = elsewhere.filter(([, { says }]) => !this.#listOnly && says.installation === mark);
    const { plan, taken: over } = planWith(this.#predecessors.untaken(ours), now + lagMillis, {
      seen: clock.toTarget(view.at).getTime(),
      ...{ epoch, installation: mark, now, previous: this.#state, lagMillis, listOnly: this.#listOnly },
      ended: [...ended, ...probes],
      live: [...live, ...sibling],
      budget: config.policy_characters - taken,
      quota: config.policy_characters - standing.others,
    });
    if (plan === undefined)
      throw new ProviderError(
        'misconfigured',
        'writing the fence: the other inline policies of the role leave no room for it',
      );
    const done = own.begin();
    try {
      await this.#policies.put(epoch, plan.document, signal);
    } catch (error) {
      // It may still arrive, after what is written next.
      if (!(error instanceof AwsError && error.refused)) {
        this.#epoch = own;
        this.#leave();
      }
      throw error;
    }
    this.#epoch = own;
    if (own.isTooLate) {
      this.#leave();
      throw new ProviderError('retryable', 'writing the fence: it was held up, and is written again by another name');
    }
    done();
    own.wrote(plan.document);
    this.#predecessors.take(ours, over);
    this.#state = plan.kept;
    this.#probes = new Set([...this.#probes, ...probes.map((one) => one.handle)].filter((one) => this.names(one)));
    const { generation } = plan.says;
    this.#since = new Map(plan.kept.ended.map((one) => [one.handle, this.#since.get(one.handle) ?? generation]));
    this.#last = { epoch, plan, at: performance.now(), probe };
    this.#prover.wrote(this.#last);
    await this.#policies.readBack(epoch, plan.document, signal);
    await this.#collector.collect(standing, this.#last, signal);
    return plan;
  }

  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#turn.then(work, work);
    this.#turn = mine.catch(() => {});
    return await mine;
  }
}
