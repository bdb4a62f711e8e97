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
  return { caller: caller.kind === 'workload' ? { ...caller, revision: number } : caller, proof };
}

/** A proof counts once, at whichever replica. @throws MayflyError `proof_used` */
export async function spendProof(deps: Pick<BrokerDeps, 'proofs'>, { proof }: Believed): Promise<void> {
  if (proof === null) return;
  step('spend-proof.before');
  const first = await deps.proofs.spend(proof);
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
