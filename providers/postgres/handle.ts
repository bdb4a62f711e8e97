import { type Facts, ProviderError, type Ref } from '../../src/provider.ts';
import type { TargetStatus } from './connection.ts';

/** `mfy_` and the 32 hex digits of the grant's UUID: at most one role ever bears it. @throws ProviderError */
export function handleOf(grantId: string): string {
  const hex = grantId.toLowerCase().replaceAll('-', '');
  if (!/^[0-9a-f]{32}$/.test(hex)) {
    throw new ProviderError('misconfigured', 'a grant id must be a UUID');
  }
  return `mfy_${hex}`;
}

/** The role's OID as `mint` learnt it: the only name that finds its sessions once it is dropped. */
export function oidOf(facts: Facts | null): number | null {
  const oid = facts?.['oid'];
  return typeof oid === 'number' && Number.isInteger(oid) && oid > 0 && oid < 2 ** 32 ? oid : null;
}

/**
 * Whether the facts are of this very cluster. In another one behind the same address, the role's absence means nothing.
 * @returns The error of that ref, or null.
 */
export function strayed(ref: Ref, status: TargetStatus): ProviderError | null {
  const minted = ref.facts?.['system_identifier'];
  return minted === undefined || minted === null || minted === status.system_identifier
    ? null
    : new ProviderError(
        'misconfigured',
        `the grant was minted in the cluster ${String(minted)}; the address leads to ${status.system_identifier}`,
      );
}
