import { setTimeout as sleep } from 'node:timers/promises';
import { ProviderError } from '../../src/provider.ts';
import type { Account } from './account.ts';
import { AwsError } from './errors.ts';
import { randomHandle } from './handle.ts';
import type { PlannedFence } from './plan.ts';
import { isRefused, type Probe, sendProbe } from './probe.ts';

const proofMillis = 9_000;

/** A document that was written, with a probe that it denies. */
export interface Provable {
  readonly epoch: bigint;
  readonly plan: PlannedFence;
  /** Or why there is none. */
  readonly probe: Promise<Probe | AwsError>;
}

/** A document with all before it of its epoch was seen to be in force. */
export interface Proof {
  readonly epoch: bigint;
  readonly generation: number;
  readonly at: Date;
}

/** Sees whether the fence of one role is in force, by what probes may do. */
export class Prover {
  readonly #account: Account;
  readonly #role: string;
  readonly #spent = new WeakSet<Provable>();
  #proof: Proof | undefined;
  #proving: Promise<boolean> | undefined;
  #sibling: Probe | undefined;

  constructor(account: Account, role: string) {
    this.#account = account;
    this.#role = role;
  }

  /** Handles that no document may deny. */
  get siblings(): readonly string[] {
    return this.#sibling === undefined ? [] : [this.#sibling.handle];
  }

  /** Its probe can prove nothing more: another document must bear another one. */
  isSpent(of: Provable): boolean {
    return this.#spent.has(of);
  }

  /** Null: not seen in time. @throws ProviderError */
  async prove(of: Provable, signal: AbortSignal): Promise<Proof | null> {
    const covers = () =>
      this.#proof?.epoch === of.epoch && this.#proof.generation >= of.plan.says.generation ? this.#proof : null;
    const known = covers();
    if (known !== null) return known;
    this.#proving ??= this.#probe(of, signal).finally(() => {
      this.#proving = undefined;
    });
    return (await this.#proving) ? covers() : null;
  }

  async #probe(of: Provable, signal: AbortSignal): Promise<boolean> {
    const limited = AbortSignal.any([signal, AbortSignal.timeout(proofMillis)]);
    const denied = await of.probe;
    const failed = denied instanceof AwsError;
    // One too old could not be told from one at its own end.
    if (failed || denied.diesAt < this.#account.clock.now() + 5_000) {
      this.#spent.add(of);
      if (failed) throw denied;
      return false;
    }
    if (!(await isRefused(this.#account, this.#role, denied, () => this.#sendSibling(of, limited), limited)))
      return false;
    this.#proof = { epoch: of.epoch, generation: of.plan.says.generation, at: new Date() };
    return true;
  }

  async #sendSibling({ plan }: Provable, signal: AbortSignal): Promise<Probe> {
    const { clock } = this.#account;
    const { cut } = plan.says;
    // Nothing that is issued before a cut to come is let through.
    const wait = (cut ?? 0) + 1000 - clock.now();
    if (wait > 0) await sleep(wait, undefined, { signal });
    const usable = this.#sibling !== undefined && this.#sibling.diesAt > clock.now() + 20_000;
    // In the forms with a cut only what is new, or listed, is let through.
    if (!usable || cut !== null) this.#sibling = await sendProbe(this.#account, this.#role, randomHandle(), signal);
    if (this.#sibling === undefined) throw new ProviderError('retryable', 'probing: no session');
    return this.#sibling;
  }
}
