import { createHash } from 'node:crypto';
import canonicalize from 'canonicalize';
import { type DecisionId, parseWireId } from '../domain/ids.ts';
import type { WorkloadCaller } from '../identity/types.ts';
import type { Transaction } from '../store/database.ts';
import { insertSingleUse, spendSingleUse } from '../store/single-uses.ts';
import { carrierOf } from './callers.ts';
import type { AskedEvaluation, Found } from './evaluated-subject.ts';

/** The member of the asker's context that names the permit to be used. */
const PERMIT = 'evaluation_id';

/**
 * What a permit of `@single_use` is for, as a digest: who asks, about whom as it is now, and all that is asked (RFC 8785), but for the
 * name of the permit itself.
 */
function boundTo(
  caller: WorkloadCaller,
  found: Found,
  { subject, action, resource, context }: AskedEvaluation,
): Buffer {
  const { [PERMIT]: _, ...said } = context;
  const all = canonicalize([carrierOf(caller), found.version, subject, action, resource, said]);
  return createHash('sha256')
    .update(all ?? '')
    .digest();
}

/** Whether it says which permit is to be used. */
export function namesPermit({ context }: AskedEvaluation): boolean {
  return Object.hasOwn(context, PERMIT);
}

/**
 * Policy permits it: gives a permit for one use where that is all there is, or uses the one that was named.
 * @returns `refused`: it was used before, is another's, for something else, or too old.
 */
export async function settleUse(
  tx: Transaction,
  caller: WorkloadCaller,
  found: Found,
  asked: AskedEvaluation,
  permitted: { readonly id: DecisionId; readonly singleUse: boolean; readonly seconds: number },
): Promise<'free' | 'given' | 'used' | 'refused'> {
  const { id, singleUse, seconds } = permitted;
  if (namesPermit(asked)) {
    const named = asked.context[PERMIT];
    const permit = typeof named === 'string' ? parseWireId('dec', named) : undefined;
    if (permit === undefined) return 'refused';
    return (await spendSingleUse(tx, permit, boundTo(caller, found, asked), id)) ? 'used' : 'refused';
  }
  if (!singleUse) return 'free';
  await insertSingleUse(tx, id, boundTo(caller, found, asked), seconds);
  return 'given';
}
