import { ProviderError, type Ref } from '../../src/provider.ts';
import { Account } from './account.ts';
import { RoleFence } from './role-fence.ts';
import { allRoles } from './schema.ts';

/** A session is powerless at its deadline by AWS's clock; so much later nobody's clock says otherwise. Milliseconds. */
export const skewMillis = 5_000;

/** One account's roles with what is known of their grants, as the parts of this provider share them. */
export class Target extends Account {
  /** Until when a renewal of this process reaches, by AWS's clock. The store may not have heard of it. */
  readonly renewedUntil = new Map<string, number>();
  /** What lost its facts and was reaped here: its end is proven by time, which is the same everywhere. */
  readonly reaped = new Set<string>();
  readonly #fences = new Map<string, RoleFence>();

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
    return (
      Math.max(
        this.clock.toTarget(ref.deadline).getTime(),
        typeof told === 'number' ? told : 0,
        this.renewedUntil.get(ref.handle) ?? 0,
      ) + skewMillis
    );
  }

  isPowerless(ref: Ref): boolean {
    return this.powerlessAt(ref) <= this.clock.now();
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
