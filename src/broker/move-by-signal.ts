import type { ActiveRevision } from '../catalog/active.ts';
import type { AuditEvent } from '../domain/audit-event.ts';
import { type SignalId, wireId } from '../domain/ids.ts';
import type { SignalKind } from '../domain/signal.ts';
import { workloadId } from '../domain/task.ts';
import type { WorkloadCaller } from '../identity/types.ts';
import type { Transaction } from '../store/database.ts';
import { markSignalled } from '../store/drift.ts';
import type { NewSignal, SignalPlace } from '../store/signals.ts';
import { resumeCause, suspendTasks } from '../store/suspensions.ts';
import type { BrokerDeps, CallContext } from './deps.ts';
import { reachOf } from './said-signal.ts';
import { tellResumed, tellSuspended } from './suspend-task.ts';

/** What a signal moved. */
export interface Moved {
  /** Living grants that are decided again. */
  readonly decidedAgain: number;
  readonly suspended: number;
  readonly resumed: number;
  /** Where something is due now. */
  readonly targets: readonly string[];
}

export interface MovingSignal extends SignalPlace {
  readonly source: string;
  readonly id: SignalId;
  readonly key: string;
  readonly value: string | null;
  /** It suspends by itself. Else it lets go on what the source suspended so before. */
  readonly suspends: boolean;
}

/**
 * Another value counts now: what lives is decided again, tasks are suspended or go on. The kill epoch must be held alone, so that nothing
 * is born meanwhile that has not seen it.
 */
export async function moveBySignal(
  deps: Pick<BrokerDeps, 'catalog'>,
  tx: Transaction,
  active: ActiveRevision,
  signal: MovingSignal,
  context: Pick<CallContext, 'requestId'>,
): Promise<Moved> {
  const { grants, tasks } = reachOf(active.catalog, signal.subject);
  const payload = signalPayload(signal);
  const cause = [signal.source, signal.kind, signal.subject].join(' ');
  const suspended = tasks === null || !signal.suspends ? [] : await suspendTasks(tx, tasks, cause);
  const targets = await tellSuspended(deps, tx, suspended, 'signal', payload, context);
  const resumed = tasks === null || signal.suspends ? [] : await resumeCause(tx, cause);
  tellResumed(deps, tx, resumed, payload, context);
  const decidedAgain = await markSignalled(tx, grants, signal.id);
  return { decidedAgain, suspended: suspended.length, resumed: resumed.length, targets };
}

/** What of a signal stands in the evidence of what it did. */
export function signalPayload(signal: {
  readonly source: string;
  readonly id: SignalId;
  readonly key: string;
  readonly kind: SignalKind;
  readonly value: string | null;
}): Readonly<Record<string, unknown>> {
  const { source, id, key, kind, value } = signal;
  return { source, signal_id: wireId('sig', id), key, kind, value };
}

/** @param moved Undefined: it changed nothing. */
export function tellReceived(
  tx: Transaction,
  active: ActiveRevision,
  { workload }: WorkloadCaller,
  signal: NewSignal,
  moved: Moved | undefined,
  context: Pick<CallContext, 'requestId'>,
): void {
  const { name, reason, outcome, occurredAt, expiresAt } = signal;
  tx.record(
    signalEvent('signal.received', workloadId(workload), active, signal.subject, context, {
      ...signalPayload(signal),
      ...{ outcome, occurred_at: occurredAt.toISOString() },
      ...(name === '' ? {} : { name }),
      ...(expiresAt === null ? {} : { expires_at: expiresAt.toISOString() }),
      ...(reason === null ? {} : { reason }),
      ...movedPayload(moved),
    }),
  );
}

export function movedPayload(moved: Moved | undefined): Readonly<Record<string, unknown>> {
  if (moved === undefined) return {};
  return { decided_again: moved.decidedAgain, suspended: moved.suspended, resumed: moved.resumed };
}

export function signalEvent(
  type: 'signal.received' | 'signal.lapsed',
  agent: string,
  active: ActiveRevision,
  subject: string,
  context: Pick<CallContext, 'requestId'>,
  payload: Readonly<Record<string, unknown>>,
): AuditEvent {
  return {
    ...{ type, agent, subject, resource: /^(target|environment):/.test(subject) ? subject : 'none' },
    ...{ action: type.slice(type.indexOf('.') + 1), decision: 'none', correlationId: context.requestId },
    ...{ posture: 'unknown', cause: 'none', taskId: null, grantId: null, decisionId: null, txn: null },
    ...{ policyDigest: active.catalog.digest, payload },
  };
}
