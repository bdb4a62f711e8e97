import { ProviderError, type Ref } from '../../src/provider.ts';
import { Account } from './account.ts';
import { skewMillis } from './clock.ts';
import { RoleFence } from './role-fence.ts';
import { allRoles } from './schema.ts';

export { skewMillis };

const mostReaped = 10_000;
/** Where a deadline is known by the store's clock alone, which is not AWS's. Milliseconds. */
const storeSkewMillis = 10_000;
/** The longest session that one role gets from another. */
const chainedSeconds = 3_600;

/** One account's roles with what is known of their grants, as the parts of this provider share them. */
export class Target extends Account {
  /** Until when a renewal of this process reaches, by AWS's clock. The store may not have heard of it. */
  readonly renewedUntil = new Map<string, number>();
  /** What lost its facts and was reaped here: its end is proven by time, which is the same everywhere. */
  readonly reaped = new Set<string>();
  /** By `performance.now()`: then a grant that waits for its end is asked for sooner, so that the fence is looked at. */
  lookAgainAt = Number.NEGATIVE_INFINITY;
  readonly #fences = new Map<string, RoleFence>();

  reapedWithoutFacts(handle: string): void {
    this.reaped.add(handle);
    // The first ones are clean by now; who is not is reaped again.
    for (const first of this.reaped) if (this.reaped.size > mostReaped) this.reaped.delete(first);
  }

  fenceOf(role: string): RoleFence {
    const known = this.#fences.get(role);
    if (known !== undefined) return known;
    const fence = new RoleFence(this, role);
    this.#fences.set(role, fence);
    return fence;
  }

  /** The roles on which a grant may have a session: its own, or any where a crash lost which. @throws ProviderError */
  rolesOf(ref: Ref): readonly string[] {
    const role = ref.facts?.['role_arn'];
    if (typeof role !== 'string') return allRoles(this.config).map(({ arn }) => arn);
    const account = ref.facts?.['account_id'];
    if (account !== this.config.account_id)
      throw new ProviderError(
        'misconfigured',
        `the grant was minted in account ${String(account)}; the target is account ${this.config.account_id}`,
      );
    return [role];
  }

  /** When none of its sessions can do anything any more, with skew to spare, in milliseconds by AWS's clock. */
  powerlessAt(ref: Ref): number {
    const told = ref.facts?.['deadline_ms'];
    const latest = Math.max(
      this.#there(ref.deadline),
      typeof told === 'number' ? told : 0,
      this.renewedUntil.get(ref.handle) ?? 0,
      this.#forgotten(ref),
    );
    return latest + (typeof told === 'number' ? 0 : storeSkewMillis) + skewMillis;
  }

  /** Until when a renewal may reach that the store has forgotten: STS has no list to ask. */
  #forgotten({ setBackAt, facts }: Ref): number {
    if (setBackAt === undefined) return 0;
    const notAfter = facts?.['not_after_ms'];
    // Since then nothing was renewed that it does not know of.
    const longest = this.#there(setBackAt) + Math.max(this.config.max_session_seconds, chainedSeconds) * 1000;
    return typeof notAfter === 'number' ? Math.min(notAfter, longest) : longest;
  }

  /** A time of the store by AWS's clock. Neither the store's nor ours is for sure AWS's, and ours may be set at any time: the later one. */
  #there(time: Date): number {
    return Math.max(time.getTime(), this.clock.toTarget(time).getTime());
  }

  /** Never by our own clock: only when AWS said lately what time it is (see `hear`). */
  isPowerless(ref: Ref): boolean {
    const now = this.clock.atLeast();
    return now !== null && this.powerlessAt(ref) <= now;
  }

  /** What is wrong where the facts name another role than the one that bears its name now. */
  strayed(ref: Ref, uniqueId: string): ProviderError | null {
    const minted = ref.facts?.['role_unique_id'];
    return typeof minted !== 'string' || minted === uniqueId
      ? null
      : new ProviderError(
          'misconfigured',
          `the grant was minted by role ${minted}; the one of its name is ${uniqueId} now`,
        );
  }
}
