import type { RevocationId } from '../domain/ids.ts';
import type { Evidence } from '../domain/revocation.ts';
import { within } from '../domain/within.ts';
import type { Outcome, Ref, Session } from '../provider.ts';
import type { Claimed } from '../store/claims.ts';
import { type FailedItem, type Failures, failureOf } from './failures.ts';

/** One call to a target. Fencing includes the sweeps of live sessions. */
const CALL_SECONDS = 15;

/** What the target itself shows to be contained or clean, with the evidence. The others are failures. */
export async function look(
  session: Session,
  items: readonly Claimed[],
  failures: Failures,
  signal: AbortSignal,
  wanted: 'contained' | 'clean',
): Promise<Map<RevocationId, Evidence>> {
  const seen = new Map<RevocationId, Evidence>();
  if (items.length === 0) return seen;
  const verdicts = await session.verify(items.map(toRef), callSignal(signal));
  items.forEach((item, index) => {
    const verdict = verdicts[index];
    if (verdict?.ok === true && verdict[wanted]) seen.set(item.id, verdict.evidence);
    else if (verdict?.ok === false) failures.set(item.id, failureOf(verdict.error));
    else failures.set(item.id, notYet(`the target does not look ${wanted} yet`));
  });
  return seen;
}

/** The items whose outcome is good, with its evidence; the others are failures. */
export function sift(
  items: readonly Claimed[],
  outcomes: readonly (Outcome & { readonly notBefore?: Date })[],
  failures: Failures,
): Map<Claimed, Evidence> {
  const good = new Map<Claimed, Evidence>();
  items.forEach((item, index) => {
    const outcome = outcomes[index];
    if (outcome?.ok === true && outcome.notBefore === undefined) good.set(item, outcome.evidence);
    else if (outcome?.ok === false) failures.set(item.id, failureOf(outcome.error));
    else failures.set(item.id, notYet('the provider did not say what became of it, or asks to wait'));
  });
  return good;
}

/** What was tried and must be tried again. */
export function notYet(says: string): FailedItem {
  return { errorClass: 'retryable', says, silent: false };
}

export function toRef(item: Claimed): Ref {
  return { grantId: item.grantId, handle: item.handle, facts: item.facts, deadline: item.deadline };
}

export function callSignal(signal: AbortSignal): AbortSignal {
  return within(CALL_SECONDS * 1000, signal);
}
