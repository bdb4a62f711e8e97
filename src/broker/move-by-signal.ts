import type { ActiveRevision } from '../catalog/active.ts';
import type { AuditEvent } from '../domain/audit-event.ts';
import { type SignalId, wireId } from '../domain/ids.ts';
import type { SignalKind } from '../domain/signal.ts';
import { workloadId } from '../domain/task.ts';
import type { WorkloadCaller } from '../identity/types.ts';
import type { Transaction } from '../store/database.ts';
import { markSignalled } from '../store/drift.ts';
import type { NewSignal, SignalPlace } from '../store/signals.ts';
import { holdTasks, resumeCause, suspendTasks } from '../store/suspensions.ts';
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
 * Other values count now: what lives is decided again, tasks are suspended or go on. Answers what each moved; of several that reach the
 * same grants the last one is named as the cause. The kill epoch must be held alone, so that nothing is born meanwhile that has not seen
 * them.
 *
 * First all tasks, then all grants, as an ordinary end takes them: neither waits for what the other holds.
 */
export async function moveBySignals(
  deps: Pick<BrokerDeps, 'catalog'>,
  tx: Transaction,
  active: ActiveRevision,
  signals: readonly MovingSignal[],
  context: Pick<CallContext, 'requestId'>,
): Promise<ReadonlyMap<SignalId, Moved>> {
  const moving = signals.map((signal) => ({
    ...{ signal, ...reachOf(active.catalog, signal.subject), payload: signalPayload(signal) },
    cause: [signal.source, signal.kind, signal.subject].join(' '),
  }));
  await holdTasks(
    tx,
    moving.flatMap(({ signal, tasks }) => (tasks !== null && signal.suspends ? [tasks] : [])),
    moving.flatMap(({ signal, tasks, cause }) => (tasks !== null && !signal.suspends ? [cause] : [])),
  );
  const moved = [];
  for (const each of moving) {
    const { signal, tasks, cause } = each;
    const suspended = tasks === null || !signal.suspends ? [] : await suspendTasks(tx, { of: tasks, cause });
    const resumed = tasks === null || signal.suspends ? [] : await resumeCause(tx, cause);
    moved.push({ ...each, suspended, resumed });
  }
  const targets = new Map<SignalId, readonly string[]>();
  for (const { signal, payload, suspended, resumed } of moved) {
    targets.set(signal.id, await tellSuspended(deps, tx, suspended, 'signal', payload, context));
    tellResumed(deps, tx, resumed, payload, context);
  }
  const reaches = new Map(
    moving.map(({ signal, grants }) => [JSON.stringify(grants), { signal: signal.id, of: grants }]),
  );
  const counts = await markSignalled(tx, [...reaches.values()]);
  const marked = new Map([...reaches.keys()].map((reach, index) => [reach, counts[index] ?? 0]));
  return new Map(
    moved.map(({ signal, grants, suspended, resumed }) => [
      signal.id,
      {
        ...{ decidedAgain: marked.get(JSON.stringify(grants)) ?? 0, targets: targets.get(signal.id) ?? [] },
        ...{ suspended: suspended.length, resumed: resumed.length },
      },
    ]),
  );
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
  // By it whoever hears only of some targets hears of it.
  const about = subject.startsWith('target:') ? { target: subject.slice('target:'.length) } : {};
  return {
    ...{ type, agent, subject, resource: /^(target|environment):/.test(subject) ? subject : 'none' },
    ...{ action: type.slice(type.indexOf('.') + 1), decision: 'none', correlationId: context.requestId },
    ...{ posture: 'unknown', cause: 'none', taskId: null, grantId: null, decisionId: null, txn: null },
    ...{ policyDigest: active.catalog.digest, payload: { ...payload, ...about } },
  };
}
