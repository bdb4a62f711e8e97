import { setTimeout as sleep } from 'node:timers/promises';
import type { Account } from './account.ts';
import type { PlannedFence } from './plan.ts';
import type { Predecessors } from './predecessors.ts';
import type { InlinePolicies, Standing } from './standing.ts';

/** An epoch of another writer is removed so long after the last that it denies is powerless: what is read of it may be old. */
const abandonedMillis = 600_000;
/** So old may be what IAM shows, and no older. */
const showsOldMillis = 5_000;
/** At least so long from a write until it is taken to be in force. */
const leastSettledMillis = 60_000;

interface Written {
  readonly epoch: bigint;
  readonly plan: PlannedFence;
}

/**
 * Takes away the epochs of a role that nobody needs. IAM deletes by name alone, whatever stands there by then, and maybe late: so only
 * what nobody writes to any more (see `Epoch`).
 */
export class Collector {
  readonly #account: Account;
  readonly #policies: InlinePolicies;
  readonly #predecessors: Predecessors;

  constructor(account: Account, policies: InlinePolicies, predecessors: Predecessors) {
    this.#account = account;
    this.#policies = policies;
    this.#predecessors = predecessors;
  }

  /** Those long past; and those that this broker left, once what it wrote last denies all of it and is in force. @throws ProviderError */
  async collect({ fences }: Standing, last: Written | undefined, signal: AbortSignal): Promise<void> {
    const now = this.#account.clock.atLeast() ?? 0;
    for (const [epoch, fence] of fences) {
      const { says } = fence;
      if (epoch === last?.epoch || says.installation !== this.#account.mark) continue;
      const left = last !== undefined && this.#predecessors.left.has(epoch);
      const needless = left && this.#predecessors.isNeedless(epoch, fence, last.plan, this.#settledMillis);
      if (needless || says.until + abandonedMillis < now) await this.remove(epoch, signal);
    }
  }

  /**
   * Those that `last` denies, too: what this broker left, and what others wrote. Such a broker may live, and may have written just before
   * its turn ended: so what counts is what IAM shows when it has been our turn for longer than it shows what is old.
   * @throws ProviderError
   */
  async inherit(last: Written, look: (signal: AbortSignal) => Promise<Standing>, signal: AbortSignal): Promise<void> {
    const settled = this.#predecessors.areSettled(this.#settledMillis);
    if (!settled.own && !settled.others) return;
    if (settled.others) await sleep(showsOldMillis, undefined, { signal });
    const { fences } = await look(signal);
    if (fences.get(last.epoch)?.text !== last.plan.document) return;
    for (const [epoch, fence] of fences) {
      const may = epoch !== last.epoch && (settled.others || this.#predecessors.left.has(epoch));
      if (may && this.#predecessors.isNeedless(epoch, fence, last.plan, this.#settledMillis))
        await this.remove(epoch, signal);
    }
    this.#predecessors.looked(settled.others, fences);
  }

  async remove(epoch: bigint, signal: AbortSignal): Promise<void> {
    await this.#policies.remove(epoch, signal);
    this.#predecessors.forget(epoch);
  }

  /** What was written so long ago is in force. */
  get #settledMillis(): number {
    return Math.max(this.#account.config.propagation_seconds * 1000, leastSettledMillis);
  }
}
