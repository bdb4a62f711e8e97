import type { Catalog } from '../catalog/types.ts';
import type { Queryable } from '../store/database.ts';
import { countSuspended, type SuspendedBy } from '../store/suspensions.ts';

/**
 * Tasks that a source has suspended which this catalog does not have any more, or does not hear on that: nobody says the opposite, and
 * they stay so until an operator resumes them.
 */
export async function leftSuspended(
  db: Queryable,
  { signalSources }: Pick<Catalog, 'signalSources'>,
): Promise<readonly SuspendedBy[]> {
  const suspended = await countSuspended(db);
  return suspended.filter(
    ({ source, kind }) =>
      !signalSources.some(({ name, kinds }) => name === source && kinds.some((one) => one === kind)),
  );
}
