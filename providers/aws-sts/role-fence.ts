import { setTimeout as sleep } from 'node:timers/promises';
import { type FenceView, ProviderError } from '../../src/provider.ts';
import { denies, type FenceForm, policyName } from './document.ts';
import { AwsError, classify } from './errors.ts';
import { randomHandle } from './handle.ts';
import { type Ended, type FenceState, type Living, type PlannedFence } from './plan.ts';
import { planWith, Predecessors } from './predecessors.ts';
import { probeDeadline, sendProbe } from './probe.ts';
import { type Proof, type Provable, Prover } from './prover.ts';
import { InlinePolicies, type Standing } from './standing.ts';
import type { Account } from './account.ts';

/** A mint is over after that: its own time-out is far below. The cut stays behind it. */
const lagMillis = 60_000;
/** At least so long between two writes: what comes together is written together. */
const paceMillis = 500;
/** What IAM shows may be older than what was written. */
const readBackMillis = 3_000;
/** An epoch of another writer is removed so long after the last that it denies is powerless: what is read of it may be old. */
const abandonedMillis = 600_000;
/** So old may be what IAM shows, and no older. */
const showsOldMillis = 5_000;

/** What was written last. */
interface Published extends Provable {
  readonly at: number;
}

export interface Fenced {
  readonly policy: string;
  readonly generation: number;
  readonly form: FenceForm;
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
  #epoch: bigint | null = null;
  #state: FenceState | null = null;
  #last: Published | undefined;
  /** Texts of this epoch, for what IAM shows late. */
  #texts: string[] = [];
  readonly #predecessors = new Predecessors();
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
      const standing = await this.#look(signal);
      const known = new Map(this.#state?.ended.map((one) => [one.handle, one.until]));
      const last = this.#last;
      const shown = last && standing.fences.get(last.epoch)?.text;
      const stands =
        last !== undefined && !this.#prover.isSpent(last) && last.epoch === this.#epoch && shown === last.plan.document;
      if (stands && ended.every(({ handle, until }) => (known.get(handle) ?? 0) >= until)) return fencedBy(last.plan);
      const plan = await this.#publish(ended, live, view, standing, signal);
      return fencedBy(plan);
    });
  }

  /** Takes out what is powerless by itself, where that is worth a write; and what brokers before wrote, once ours is in force. @throws ProviderError */
  async prune(live: readonly Living[], view: FenceView, signal: AbortSignal): Promise<void> {
    await this.#inTurn(async () => {
      await this.#inherit(signal);
      const now = this.#target.clock.now();
      const ended = this.#state?.ended ?? [];
      const past = ended.filter(({ until }) => until <= now).length;
      const waits = this.#last !== undefined && performance.now() - this.#last.at < 30_000;
      // What is denied by a cut alone has no entry.
      const over = past === ended.length && (this.#state?.unnamedUntil ?? 0) <= now;
      if (this.#epoch === null || (!over && (past === 0 || waits))) return;
      const standing = await this.#look(signal);
      if (over) {
        const epoch = this.#epoch;
        this.#leave();
        if (epoch !== null) await this.#remove(epoch, signal);
        await this.#collect(standing, signal);
      } else await this.#publish([], live, view, standing, signal);
    });
  }

  /** Takes away what it wrote: of a canary alone. @throws ProviderError */
  async withdraw(signal: AbortSignal): Promise<void> {
    await this.#inTurn(async () => {
      const epochs = [...this.#predecessors.left, ...(this.#epoch === null ? [] : [this.#epoch])];
      for (const epoch of epochs) await this.#policies.remove(epoch, signal);
    });
  }

  /**
   * Since which generation a handle is denied by what stands, as IAM shows it now; null: it is not. @throws ProviderError `misconfigured`
   * for a foreign hand.
   */
  async standing(signal: AbortSignal): Promise<(handle: string, issuedBy: number | null) => number | null> {
    const { fences, strange } = await this.#policies.look(signal);
    this.#judge(strange);
    return (handle, issuedBy) => {
      const last = this.#last;
      const found = last && fences.get(last.epoch);
      return found !== undefined && denies(found.says, handle, issuedBy) ? (this.#since.get(handle) ?? null) : null;
    };
  }

  /** Whether a probe that the last document denies was seen refused, while its sibling was not. @throws ProviderError */
  async prove(signal: AbortSignal): Promise<Proof | null> {
    const last = this.#last;
    return last === undefined ? null : await this.#prover.prove(last, signal);
  }

  async #look(signal: AbortSignal): Promise<Standing> {
    const standing = await this.#policies.look(signal);
    this.#judge(standing.strange);
    if (this.#epoch === null) return standing;
    const shown = standing.fences.get(this.#epoch);
    const touched = shown !== undefined && !this.#texts.includes(shown.text);
    const past = (this.#state?.ended ?? []).every(({ until }) => until <= this.#target.clock.now());
    if (touched) this.#judge([policyName(this.#epoch)]);
    // Written by another hand, or all of it over: the denials go on under another name, and what stands there stays.
    if (touched || standing.strange.includes(policyName(this.#epoch))) [this.#epoch, this.#texts] = [null, []];
    else if (past) this.#leave();
    return standing;
  }

  #judge(strange: readonly string[]): void {
    const said = this.#alarm;
    this.#alarm =
      strange.length === 0
        ? undefined
        : `the role ${this.role} has policies in the name of the fence that this broker did not write: ${strange.join(', ')}`;
    if (this.#alarm !== undefined && this.#alarm !== said)
      this.#target.context.log(
        { target: this.#target.context.target, role: this.role, policies: strange, alert: 'foreign_fence' },
        'somebody else has written to the fence of a role',
      );
  }

  #leave(): void {
    if (this.#epoch !== null) this.#predecessors.leave(this.#epoch);
    this.#epoch = null;
    this.#texts = [];
  }

  async #publish(
    ended: readonly Ended[],
    live: readonly Living[],
    view: FenceView,
    standing: Standing,
    signal: AbortSignal,
  ): Promise<PlannedFence> {
    const { clock, config, mark, context } = this.#target;
    const rest = paceMillis - (this.#last === undefined ? paceMillis : performance.now() - this.#last.at);
    if (rest > 0) await sleep(rest, undefined, { signal });
    const before = [...standing.fences.keys(), ...this.#predecessors.left];
    const highest = before.reduce((most, one) => (one > most ? one : most), 0n);
    // A store that was set back may give a number that another writer has had.
    const epoch = this.#epoch ?? (view.writer > highest ? view.writer : highest + 1n);
    const now = clock.now();
    const handle = randomHandle();
    const probe: Ended = { handle, until: probeDeadline(now), issuedBy: null };
    const elsewhere = [...standing.fences].filter(([one]) => one !== epoch);
    const taken = elsewhere.reduce((sum, [, { text }]) => sum + text.length, standing.others);
    const sibling = this.#prover.siblings.map((one) => ({ handle: one, issuedFrom: null }));
    const ours = elsewhere.filter(([, { says }]) => !this.#listOnly && says.installation === mark);
    const { plan, taken: over } = planWith(this.#predecessors.untaken(ours), now + lagMillis, {
      seen: clock.toTarget(view.at).getTime(),
      ...{ epoch, installation: mark, now, previous: this.#state, lagMillis, listOnly: this.#listOnly },
      ended: [...ended, probe],
      live: [...live, ...sibling],
      budget: config.policy_characters - taken,
      quota: config.policy_characters - standing.others,
    });
    if (plan === undefined)
      throw new ProviderError(
        'misconfigured',
        'writing the fence: the other inline policies of the role leave no room for it',
      );
    const sent = sendProbe(this.#target, this.role, handle, signal).catch((error: unknown) =>
      classify(error, 'assuming the role'),
    );
    try {
      await this.#policies.put(epoch, plan.document, signal);
    } catch (error) {
      // It may still arrive, after what is written next.
      if (!(error instanceof AwsError && error.refused)) {
        this.#epoch = epoch;
        this.#leave();
      }
      throw error;
    }
    this.#predecessors.take(over);
    [this.#epoch, this.#state] = [epoch, plan.kept];
    const { generation } = plan.says;
    this.#since = new Map(plan.kept.ended.map((one) => [one.handle, this.#since.get(one.handle) ?? generation]));
    this.#texts = [...this.#texts.slice(-20), plan.document];
    if (plan.form === 'role-wide')
      context.log(
        { target: context.target, role: this.role, lost: plan.lost.length, alert: 'fence_role_wide' },
        'the fence of a role is full: every session of it was denied, and is to be minted again',
      );
    this.#last = { epoch, plan, at: performance.now(), probe: sent };
    await this.#readBack(this.#last, signal);
    await this.#collect(standing, signal, plan);
    return plan;
  }

  /** @throws ProviderError `retryable` where IAM does not show it yet. */
  async #readBack(last: Published, signal: AbortSignal): Promise<void> {
    const until = performance.now() + readBackMillis;
    for (let wait = 50; ; wait = Math.min(wait * 2, 500)) {
      if ((await this.#policies.read(last.epoch, signal)) === last.plan.document) break;
      if (performance.now() > until)
        throw new ProviderError('retryable', 'writing the fence: IAM does not show it yet');
      await sleep(wait, undefined, { signal });
    }
  }

  /** Removes what nobody needs: epochs that we left and that all of it is in ours, which is in force; and those long past. */
  async #collect({ fences }: Standing, signal: AbortSignal, plan?: PlannedFence): Promise<void> {
    const now = this.#target.clock.now();
    for (const [epoch, fence] of fences) {
      const { says } = fence;
      if (epoch === this.#epoch || says.installation !== this.#target.mark) continue;
      const left = plan !== undefined && this.#predecessors.left.includes(epoch);
      const needless = left && this.#predecessors.isNeedless(epoch, fence, plan, this.#settledMillis);
      if (needless || says.until + abandonedMillis < now) await this.#remove(epoch, signal);
    }
  }

  /**
   * Removes what other brokers wrote and ours denies, too. Such a broker may live, and may have written just before its turn ended: so what
   * counts is what IAM shows when it has been our turn for longer than it shows what is old.
   */
  async #inherit(signal: AbortSignal): Promise<void> {
    const last = this.#last;
    if (last?.epoch !== this.#epoch || last === undefined) return;
    if (!this.#predecessors.areSettled(this.#settledMillis)) return;
    await sleep(showsOldMillis, undefined, { signal });
    const { fences } = await this.#look(signal);
    if (fences.get(last.epoch)?.text !== last.plan.document) return;
    for (const [epoch, fence] of fences)
      if (epoch !== this.#epoch && this.#predecessors.isNeedless(epoch, fence, last.plan, this.#settledMillis))
        await this.#remove(epoch, signal);
    this.#predecessors.looked();
  }

  async #remove(epoch: bigint, signal: AbortSignal): Promise<void> {
    await this.#policies.remove(epoch, signal);
    this.#predecessors.forget(epoch);
  }

  /** What was written so long ago is in force. */
  get #settledMillis(): number {
    return Math.max(this.#target.config.propagation_seconds * 1000, lagMillis);
  }

  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#turn.then(work, work);
    this.#turn = mine.catch(() => {});
    return await mine;
  }
}

function fencedBy({ name, says, form }: PlannedFence): Fenced {
  return { policy: name, generation: says.generation, form };
}
