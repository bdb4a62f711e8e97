import { setTimeout as sleep } from 'node:timers/promises';
import { ProviderError } from '../../src/provider.ts';
import type { Account } from './account.ts';
import { AwsError, classify } from './errors.ts';
import { randomHandle } from './handle.ts';
import { hear } from './hear.ts';
import type { PlannedFence } from './plan.ts';
import { isAllowed, outlives, type Probe, sendProbe } from './probe.ts';

const proofMillis = 9_000;
/** So many refusals, each after its sibling was let through. */
const refusals = 3;
const pauseMillis = 150;
/** A write does not wait longer for a probe. */
const patienceMillis = 2_000;
/** A spare one is good for so long at the least. */
const leastMillis = 60_000;
const makingMillis = 15_000;

/** A document that was written, with a probe that it denies. */
export interface Provable {
  readonly epoch: bigint;
  readonly plan: PlannedFence;
  /** Let through before the document was written; or why there is none. */
  readonly probe: Probe | AwsError;
}

/** A document with all before it of its epoch was seen to be in force. */
export interface Proof {
  readonly epoch: bigint;
  readonly generation: number;
  readonly at: Date;
}

interface Spare {
  readonly handle: string;
  readonly ready: Promise<Probe | AwsError>;
}

/**
 * Sees whether the fence of one role is in force, by what probes may do. What is denied was used before, as an agent's session is: a server
 * may have kept what its role allowed. Beside it stands its sibling, which nothing denies, and which the next document will.
 */
export class Prover {
  readonly #account: Account;
  readonly #role: string;
  #proof: Proof | undefined;
  #proving: Promise<void> | undefined;
  #spare: Spare | undefined;
  #newest: Provable | undefined;

  constructor(account: Account, role: string) {
    this.#account = account;
    this.#role = role;
  }

  /** Handles that no document may deny. */
  get siblings(): readonly string[] {
    return this.#spare === undefined ? [] : [this.#spare.handle];
  }

  /** Begins to make a probe where there is none. @param after Nothing that is issued before is let through; by AWS's clock. */
  warm(after = 0): void {
    this.#spare ??= this.#make(after);
  }

  /** One that was let through, for the next document to deny; or why there is none yet, which must not keep that from being written. */
  async take(): Promise<Probe | AwsError> {
    const waiting = new AbortController();
    const late = sleep(patienceMillis, undefined, { signal: waiting.signal }).catch(() => undefined);
    try {
      // The first may be too old by now.
      for (let left = 2; left > 0; left -= 1) {
        this.warm();
        const found = await Promise.race([this.#spare?.ready, late]);
        if (found === undefined) break;
        this.#spare = undefined;
        if (found instanceof AwsError || outlives(this.#account, found, leastMillis)) return found;
      }
    } finally {
      waiting.abort();
    }
    return new AwsError('retryable', 'probing: there is no probe yet', {
      ...{ code: 'Broker', refused: true, wholeTarget: false },
    });
  }

  /** It was written. Its sibling is made meanwhile. */
  wrote(of: Provable): void {
    this.#newest = of;
    // In the forms with a cut only what is new, or listed, is let through.
    const { cut } = of.plan.says;
    if (cut !== null) this.#spare = undefined;
    this.warm(cut === null ? 0 : cut + 1000);
  }

  /** Its probe can prove nothing more: another document must bear another one. */
  isSpent(of: Provable): boolean {
    if (this.#covers(of) !== null) return false;
    return of.probe instanceof AwsError || !outlives(this.#account, of.probe, proofMillis);
  }

  /** Null: not seen in time. @throws ProviderError where its sibling is refused: then nothing is proven. */
  async prove(of: Provable, signal: AbortSignal): Promise<Proof | null> {
    const limited = AbortSignal.any([signal, AbortSignal.timeout(proofMillis)]);
    if (of.probe instanceof AwsError) throw of.probe;
    await hear(this.#account, 'iam', signal);
    while (this.#covers(of) === null && !limited.aborted) {
      if (this.#proving !== undefined) {
        // Of a document before this one, maybe: then this one has its turn.
        await Promise.race([this.#proving, new Promise((done) => limited.addEventListener('abort', done))]);
        continue;
      }
      if (!outlives(this.#account, of.probe, proofMillis)) return null;
      const seeing = this.#see(of, of.probe, limited);
      this.#proving = seeing.then(
        () => {},
        () => {},
      );
      try {
        await seeing;
      } finally {
        this.#proving = undefined;
      }
    }
    return this.#covers(of);
  }

  #covers(of: Provable): Proof | null {
    return this.#proof?.epoch === of.epoch && this.#proof.generation >= of.plan.says.generation ? this.#proof : null;
  }

  /** Asks as the denied one until it is refused; then by turns as its sibling, which is let through, and as the denied one, which is not. */
  async #see(of: Provable, denied: Probe, signal: AbortSignal): Promise<void> {
    const may = async (probe: Probe) => await isAllowed(this.#account, this.#role, probe, signal);
    try {
      for (let inARow = 0; inARow < refusals && !signal.aborted; ) {
        if (inARow > 0 || !(await may(denied))) {
          const sibling = await this.#sibling();
          if (!(await may(sibling))) {
            // Another document may deny it since: that has its own sibling.
            if (this.#newest === of && this.#spare?.handle === sibling.handle) throw this.#refusesAll();
          } else if (!(await may(denied))) {
            inARow += 1;
            if (inARow === refusals) break;
            await sleep(pauseMillis, undefined, { signal });
            continue;
          }
        }
        inARow = 0;
        await sleep(pauseMillis, undefined, { signal });
      }
    } catch (error) {
      // Its time was over in the midst of a request.
      if (!signal.aborted) throw error;
    }
    // By the very answers that refused it: it was not its own end.
    if (!signal.aborted && outlives(this.#account, denied, 0))
      this.#proof = { epoch: of.epoch, generation: of.plan.says.generation, at: new Date() };
  }

  async #sibling(): Promise<Probe> {
    for (let left = 2; left > 0; left -= 1) {
      this.warm();
      const spare = this.#spare;
      const found = await spare?.ready;
      if (found !== undefined && !(found instanceof AwsError) && outlives(this.#account, found, proofMillis))
        return found;
      if (this.#spare === spare) this.#spare = undefined;
      if (found instanceof AwsError) throw found;
    }
    throw new ProviderError('retryable', 'probing: no session');
  }

  #make(after: number): Spare {
    const handle = randomHandle();
    return { handle, ready: this.#send(handle, after).catch((error: unknown) => classify(error, 'probing')) };
  }

  async #send(handle: string, after: number): Promise<Probe> {
    const signal = AbortSignal.timeout(makingMillis);
    await hear(this.#account, 'sts', signal);
    const wait = after - (this.#account.clock.atLeast() ?? after);
    if (wait > 0) await sleep(wait, undefined, { signal });
    const probe = await sendProbe(this.#account, this.#role, handle, signal);
    if (!(await isAllowed(this.#account, this.#role, probe, signal))) throw this.#refusesAll();
    return probe;
  }

  #refusesAll(): ProviderError {
    return new ProviderError(
      'misconfigured',
      `the role does not allow the probe its action ${this.#account.config.probe.action}: a refusal proves nothing`,
    );
  }
}
