import type { KillId } from '../domain/ids.ts';
import type { Caller } from '../identity/types.ts';
import { type Kill, listKills as findKills } from '../store/kills.ts';
import type { BrokerDeps } from './deps.ts';
import { requireRole } from './operator-scope.ts';

/**
 * A page of the kills in the caller's scope, the latest first.
 * @param standing Only those that stand, or only those that were lifted.
 */
export async function listKills(
  deps: BrokerDeps,
  caller: Caller,
  standing: boolean | undefined,
  before: KillId | null,
  limit: number,
): Promise<{ readonly items: readonly Kill[]; readonly next: KillId | undefined }> {
  const { scope } = requireRole(deps, caller, 'viewer');
  const found = await findKills(deps.db, standing, scope && [...scope], before, limit + 1);
  const items = found.slice(0, limit);
  return { items, next: found.length > limit ? items.at(-1)?.id : undefined };
}
