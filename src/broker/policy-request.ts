import type { Catalog, EntitlementDefinition, TargetDefinition } from '../catalog/types.ts';
import { MayflyError } from '../domain/errors.ts';
import type { Guarantee } from '../domain/grant.ts';
import { beside, historyOf } from '../policy/history.ts';
import { type KnownSignals, signalFacts } from '../policy/signals.ts';
import type { DecisionRequest, PolicyAction } from '../policy/types.ts';
import type { TaskState } from '../store/tasks.ts';

export interface AskedOfPolicy {
  readonly action: PolicyAction;
  readonly entitlement: EntitlementDefinition;
  readonly target: TargetDefinition;
  readonly guarantee: Guarantee['revocation'];
  /** What the grant would live by every bound but policy's own. */
  readonly seconds: number;
  /** The live grant that it is about: it is asked about with what there is beside it. */
  readonly grant?: { readonly sink: boolean };
}

/**
 * A task as it is, in the catalog's words.
 * @throws MayflyError `issuer_may_not_state` when the catalog does not trust the task's issuer any more.
 */
export function policyTask(
  { trust }: Pick<Catalog, 'trust'>,
  { task }: Pick<TaskState, 'task'>,
): DecisionRequest['task'] {
  const { taskIssuers, tokenIssuers } = trust;
  const issuer = [...taskIssuers, ...tokenIssuers].find((one) => one.issuer === task.issuer);
  if (issuer === undefined)
    throw new MayflyError('issuer_may_not_state', 'The catalog does not trust the issuer of this task any more.');
  return {
    id: task.id,
    purpose: task.purpose,
    phase: task.phase,
    issuer: issuer.name,
    subject: task.subject,
    workload: task.workload,
    instance: task.instance,
    proofOfPossession: task.keyThumbprint !== null,
    depth: task.depth,
    createdAt: task.createdAt,
    notAfter: task.notAfter,
    params: task.ceiling.params,
  };
}

/** For policy to decide on. @throws MayflyError as {@link policyTask}. */
export function policyRequest(
  catalog: Pick<Catalog, 'trust' | 'entitlements' | 'signalSources'>,
  state: TaskState,
  asked: AskedOfPolicy,
): DecisionRequest {
  const { seen, heldSeconds, now } = state;
  const { entitlement, grant } = asked;
  const counted = grant === undefined ? seen : beside(seen, { entitlement: entitlement.name, ...grant });
  return {
    action: asked.action,
    now,
    task: policyTask(catalog, state),
    entitlement,
    target: asked.target,
    ttlSeconds: Math.floor(asked.seconds),
    guarantee: asked.guarantee,
    history: historyOf(counted, heldSeconds, entitlement.name, catalog),
    signals: signalFacts(catalog.signalSources, knownSignals(state), asked.target, now, asked.action === 'retain'),
  };
}

export function knownSignals({ seen, heard }: Pick<TaskState, 'seen' | 'heard'>): KnownSignals {
  return { standing: seen.signals ?? [], heard };
}

/** Data of some worth can leave through it. */
export function isSensitiveSink({ sink, sensitivity }: EntitlementDefinition): boolean {
  return sink && ['confidential', 'restricted'].includes(sensitivity);
}
