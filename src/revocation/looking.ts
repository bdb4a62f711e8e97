import type { RevocationId } from '../domain/ids.ts';
import type { Evidence } from '../domain/revocation.ts';
import type { Outcome, Ref, Session, Verdict } from '../provider.ts';
import type { Claimed } from '../store/claims.ts';
import { askEach, storable } from './answers.ts';
import type { RevocationDeps } from './deps.ts';
import { type FailedItem, type Failures, failureOf } from './failures.ts';
import { findUnproven } from './lost-facts.ts';

const NO_ANSWER: FailedItem = {
  errorClass: 'misconfigured',
  says: 'the provider did not say what became of it',
  silent: false,
};

const UNPROVEN: FailedItem = {
  errorClass: 'misconfigured',
  says: 'its facts were lost, and the target shows no tenure from before it was intended: another system? Its absence proves nothing',
  silent: false,
};

/** What the target itself shows to be contained or clean, with the evidence. The others are failures. */
export async function look(
  deps: Pick<RevocationDeps, 'db'>,
  session: Session,
  items: readonly Claimed[],
  failures: Failures,
  signal: AbortSignal,
  wanted: 'contained' | 'clean',
): Promise<Map<RevocationId, Evidence>> {
  const seen = new Map<RevocationId, Evidence>();
  if (items.length === 0) return seen;
  const verdicts = await askEach(items.map(toRef), signal, (refs, limited) => session.verify(refs, limited));
  // What is to be clean was seen there, or its absence was proven, when it was contained.
  const unproven = wanted === 'contained' ? await findUnproven(deps, session, items, verdicts, signal) : [];
  items.forEach((item, index) => {
    const verdict = verdicts[index];
    const evidence = verdict?.ok === true ? storable(verdict.evidence) : undefined;
    if (verdict?.ok === false) failures.set(item.id, failureOf(verdict.error));
    else if (verdict?.ok !== true || evidence === undefined) failures.set(item.id, NO_ANSWER);
    else if (unproven.includes(item)) failures.set(item.id, UNPROVEN);
    // Nothing is clean that is not contained.
    else if (isTrue(verdict.contained) && (wanted === 'contained' || isTrue(verdict.clean)))
      seen.set(item.id, evidence);
    else failures.set(item.id, { ...notYet(`the target does not look ${wanted} yet`), alive: true });
  });
  return seen;
}

/** The items whose outcome is good, with its evidence; the others are failures. What is called gone is for `verify` to say. */
export function sift(
  items: readonly Claimed[],
  outcomes: readonly Outcome[],
  failures: Failures,
): Map<Claimed, Evidence> {
  const good = new Map<Claimed, Evidence>();
  items.forEach((item, index) => {
    const outcome = outcomes[index];
    const failure = outcome?.ok === false ? failureOf(outcome.error) : undefined;
    const evidence = outcome?.ok === true ? storable(outcome.evidence) : undefined;
    if (failure?.errorClass === 'gone') good.set(item, { already_gone: true });
    else if (evidence !== undefined) good.set(item, evidence);
    else failures.set(item.id, failure ?? NO_ANSWER);
  });
  return good;
}

/** What was tried and must be tried again. */
export function notYet(says: string): FailedItem {
  return { errorClass: 'retryable', says, silent: false };
}

export function toRef(item: Pick<Claimed, 'grantId' | 'handle' | 'facts' | 'deadline' | 'setBackAt'>): Ref {
  const { grantId, handle, facts, deadline, setBackAt } = item;
  return { grantId, handle, facts, deadline, ...(setBackAt !== undefined && { setBackAt }) };
}

/** Whether it was seen that it can be used. */
export function isOpen(verdict: Verdict | undefined): boolean {
  return verdict?.ok === true && verdict.open !== false && !verdict.contained;
}

/** A provider is another's code: what is not a plain `true` is none, whatever its types say. */
function isTrue(value: unknown): boolean {
  return value === true;
}
