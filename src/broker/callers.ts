import { MayflyError } from '../domain/errors.ts';
import { step } from '../domain/step.ts';
import { workloadId } from '../domain/task.ts';
import type { Believed, Caller, Presented, WorkloadCaller } from '../identity/types.ts';
import type { BrokerDeps } from './deps.ts';

/** Believes the caller or throws 401. A proof that came along is still to be spent. */
export async function authenticate(deps: BrokerDeps, presented: Presented): Promise<Believed> {
  const { catalog, number } = deps.catalog.current();
  const { caller, proof } = await deps.identity.authenticate(presented, {
    trust: catalog.trust,
    audience: deps.audience,
    now: new Date(),
  });
  return { caller: { ...caller, revision: number }, proof };
}

/** What the caller's next proof shall carry (RFC 9449 §9). Null: it brought no proof, or none needs a nonce. */
export async function nextNonce({ nonces }: Pick<BrokerDeps, 'nonces'>, { proof }: Believed): Promise<string | null> {
  return proof === null || nonces === null ? null : await nonces.current();
}

/**
 * A proof counts once, at whichever replica, and only with a nonce of ours where that is demanded.
 * @throws MayflyError `proof_used`, `use_dpop_nonce`
 */
export async function spendProof(
  { nonces, proofs }: Pick<BrokerDeps, 'nonces' | 'proofs'>,
  { proof }: Believed,
): Promise<void> {
  if (proof === null) return;
  if (nonces !== null && (proof.nonce === null || !(await nonces.takes(proof.nonce))))
    throw new MayflyError('use_dpop_nonce');
  step('spend-proof.before');
  const first = await proofs.spend(proof);
  step('spend-proof.after');
  if (!first) throw new MayflyError('proof_used');
}

/** The workload itself: what only an agent may do. */
export function asWorkload(caller: Caller): WorkloadCaller {
  if (caller.kind !== 'workload')
    throw new MayflyError('workload_token_invalid', 'An operator’s token opens no tasks and asks for no credentials.');
  return caller;
}

/** One name for one caller: the operator, or the workload with its key, or else its instance. */
export function carrierOf(caller: Caller): string {
  if (caller.kind === 'operator') return `operator ${caller.operator}`;
  return [workloadId(caller.workload), caller.keyThumbprint ?? caller.instance]
    .filter((part) => part !== null)
    .join(' ');
}
