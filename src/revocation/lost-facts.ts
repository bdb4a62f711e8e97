import { bounded } from '../domain/within.ts';
import type { Session, Verdict } from '../provider.ts';
import type { Claimed } from '../store/claims.ts';
import { findGrantsUnder } from '../store/tenures.ts';
import type { RevocationDeps } from './deps.ts';

const CALL_SECONDS = 5;

/**
 * Facts pin the system in which a credential was made; what a crash has left without them is absent in every other one too. So its
 * absence counts only where the target shows a tenure that was ours when the grant was intended: another system behind the same
 * address shows none, or one that began later. Where no record is kept, nothing is proven. Answers those whose absence proves nothing.
 */
export async function findUnproven(
  deps: Pick<RevocationDeps, 'db'>,
  session: Session,
  items: readonly Claimed[],
  verdicts: readonly Verdict[],
  signal: AbortSignal,
): Promise<readonly Claimed[]> {
  const absent = items.filter(({ facts }, index) => {
    const verdict = verdicts[index];
    return facts === null && verdict?.ok === true && verdict.clean;
  });
  if (absent.length === 0) return [];
  const holder = await bounded(CALL_SECONDS * 1000, [signal], async (limited) => await session.hold?.(limited));
  const grantIds = absent.map(({ grantId }) => grantId);
  const proven = await findGrantsUnder(deps.db, holder?.tenure ?? null, grantIds);
  return absent.filter(({ grantId }) => !proven.has(grantId));
}
