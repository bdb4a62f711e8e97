import type { RevocationId } from '../domain/ids.ts';
import type { ErrorClass, Evidence } from '../domain/revocation.ts';
import { ProviderError, type Ref, type Session } from '../provider.ts';
import type { Claimed } from '../store/claims.ts';

/** One call to a target. Fencing includes the sweeps of live sessions. */
const CALL_SECONDS = 15;

/** What the target itself shows to be contained or clean, with the evidence. The others are failures. */
export async function look(
  session: Session,
  items: readonly Claimed[],
  failures: Map<RevocationId, ErrorClass>,
  signal: AbortSignal,
  wanted: 'contained' | 'clean',
): Promise<Map<RevocationId, Evidence>> {
  const seen = new Map<RevocationId, Evidence>();
  if (items.length === 0) return seen;
  const verdicts = await session.verify(items.map(toRef), callSignal(signal));
  items.forEach((item, index) => {
    const verdict = verdicts[index];
    if (verdict?.ok === true && verdict[wanted]) seen.set(item.id, verdict.evidence);
    else failures.set(item.id, verdict?.ok === false ? verdict.error.errorClass : 'retryable');
  });
  return seen;
}

export function toRef(item: Claimed): Ref {
  return { grantId: item.grantId, handle: item.handle, facts: item.facts, deadline: item.deadline };
}

export function callSignal(signal: AbortSignal): AbortSignal {
  return AbortSignal.any([signal, AbortSignal.timeout(CALL_SECONDS * 1000)]);
}

export function classOf(error: unknown): ErrorClass {
  return error instanceof ProviderError ? error.errorClass : 'retryable';
}
