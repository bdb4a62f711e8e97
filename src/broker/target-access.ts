import type { ActiveCatalog } from '../catalog/active.ts';
import type { TargetDefinition } from '../catalog/types.ts';
import { MayflyError } from '../domain/errors.ts';
import type { Session } from '../provider.ts';
import type { BrokerDeps } from './deps.ts';

/** How an entitlement's target is reached, by the catalog in force. */
export function accessFor(
  catalog: Pick<ActiveCatalog, 'current'>,
  session: (target: TargetDefinition) => Session,
): BrokerDeps['access'] {
  return (entitlement) => {
    const target = catalog.current().catalog.targets.get(entitlement.target);
    if (target === undefined) throw new MayflyError('not_in_task');
    return { session: session(target), config: entitlement.provider };
  };
}
