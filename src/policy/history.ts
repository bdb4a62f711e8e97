import type { Catalog } from '../catalog/types.ts';
import type { Holdings } from '../domain/holdings.ts';
import type { History } from './types.ts';

/** What there is beside one of the live grants: for it to be asked about again as it was asked about when it was issued. */
export function beside(counted: Holdings, grant: { readonly entitlement: string; readonly sink: boolean }): Holdings {
  const less = (count: number | undefined, by = 1) => Math.max(0, (count ?? 0) - by);
  const given = counted.given[grant.entitlement];
  const left = less(counted.held[grant.entitlement]);
  const { [grant.entitlement]: _, ...others } = counted.held;
  return {
    ...{ live_grants: less(counted.live_grants), grants: less(counted.grants) },
    ...{ own_live_grants: less(counted.own_live_grants), own_grants: less(counted.own_grants) },
    sensitive_sinks: less(counted.sensitive_sinks, grant.sink ? 1 : 0),
    given: { ...counted.given, [grant.entitlement]: [less(given?.[0]), less(given?.[1])] },
    uses: counted.uses,
    held: left === 0 ? others : { ...others, [grant.entitlement]: left },
    touched: counted.touched,
  };
}

/**
 * In the catalog's words. @param entitlement The one that it is about; null: none, it is about a call.
 *
 * An entitlement that the catalog does not have any more has no data classes: its grants are about to end.
 */
export function historyOf(
  counted: Holdings,
  heldSeconds: number,
  entitlement: string | null,
  { entitlements }: Pick<Catalog, 'entitlements'>,
): History {
  const { touched, uses } = counted;
  const [ofThis, ownOfThis] = (entitlement === null ? undefined : counted.given[entitlement]) ?? [0, 0];
  const held = Object.keys(counted.held);
  return {
    own: { liveGrants: counted.own_live_grants, grants: counted.own_grants, grantsOfThis: ownOfThis, uses: uses.own },
    tree: {
      liveGrants: counted.live_grants,
      grants: counted.grants,
      grantsOfThis: ofThis,
      uses: uses.tree,
      sensitiveSinks: counted.sensitive_sinks,
      held,
      dataClasses: [...new Set(held.flatMap((name) => entitlements.get(name)?.dataClasses ?? []))],
      touched,
      heldSeconds,
    },
  };
}
