import type { ActiveRevision } from '../catalog/active.ts';
import type { ToolGateway } from '../catalog/types.ts';
import { MayflyError } from '../domain/errors.ts';
import { parseWireId, type TaskId } from '../domain/ids.ts';
import { namesWorkload } from '../domain/named-workloads.ts';
import { owns, type Task, type Workload, workloadId } from '../domain/task.ts';
import type { WorkloadCaller } from '../identity/types.ts';
import { historyOf } from '../policy/history.ts';
import { type KnownSignals, signalFacts } from '../policy/signals.ts';
import type { Asked, EvaluationRequest, SignalFacts } from '../policy/types.ts';
import { findActiveRevisionNumber } from '../store/catalog-revisions.ts';
import type { Transaction } from '../store/database.ts';
import { issuingWithin } from '../store/issuing.ts';
import { isWorkloadKilled } from '../store/kills.ts';
import { readSignalsAbout } from '../store/signals.ts';
import { findOwnedRoot } from '../store/tasks.ts';
import { withinAncestors } from './ancestors.ts';
import type { BrokerDeps } from './deps.ts';
import { killedProblem } from './kill.ts';
import { requireFresh } from './fresh.ts';
import { checkAlive } from './life.ts';
import { knownSignals, policyTask } from './policy-request.ts';
import { requireRevision } from './revision.ts';
import { requireStanding } from './standing.ts';

/** One question of AuthZEN. */
export interface AskedEvaluation {
  readonly subject: Asked;
  readonly action: EvaluationRequest['action'];
  readonly resource: Asked;
  readonly context: EvaluationRequest['said'];
}

/** Whom it is about, and who asks: itself, or a gateway. */
export type Subject = { readonly gateway: ToolGateway | null } & (
  | { readonly kind: 'task'; readonly id: TaskId; readonly root: TaskId }
  | { readonly kind: 'workload'; readonly workload: Workload }
  | { readonly kind: 'other'; readonly asked: Asked }
);

/** What was found of the subject behind the locks. */
export interface Found {
  readonly about: Pick<Task, 'subject' | 'workload' | 'txn'> & { readonly id: TaskId | null };
  readonly gateway: ToolGateway | null;
  /** What a permit for one use holds on to: the catalog's revision, and where the task stands. */
  readonly version: readonly (string | number | null)[];
  /** Throws when it may do nothing more. */
  readonly alive: () => {
    readonly subject: EvaluationRequest['subject'];
    readonly signals: SignalFacts;
    readonly until: Date | null;
  };
}

/** An agent asks about itself, a gateway within its scope. What is another's is as unknown as what is not there. */
export async function subjectOf(
  deps: BrokerDeps,
  active: ActiveRevision,
  caller: WorkloadCaller,
  asked: AskedEvaluation,
): Promise<Subject | undefined> {
  const { type, id } = asked.subject;
  const taskId = type === 'task' ? parseWireId('task', id) : undefined;
  const ownRoot = taskId === undefined ? undefined : await deps.ownedRoots.find(taskId, caller);
  if (taskId !== undefined && ownRoot !== undefined) return { kind: 'task', id: taskId, root: ownRoot, gateway: null };
  if (type === 'workload' && id === workloadId(caller.workload))
    return { kind: 'workload', workload: caller.workload, gateway: null };
  const gateway = gatewayOf(active, caller, asked);
  if (gateway === undefined) return undefined;
  if (type === 'workload') {
    const workload = { source: id.slice(0, Math.max(0, id.indexOf(':'))), subject: id.slice(id.indexOf(':') + 1) };
    return isAgentOf(gateway, workload) ? { kind: 'workload', workload, gateway } : undefined;
  }
  if (type !== 'task') return { kind: 'other', asked: asked.subject, gateway };
  const root = taskId === undefined ? undefined : await findOwnedRoot(deps.db, taskId, null);
  return taskId === undefined || root === undefined ? undefined : { kind: 'task', id: taskId, root, gateway };
}

/** The gateway that the caller is, if it may ask about such things. @throws MayflyError 401 when its key is not proven. */
function gatewayOf(
  { catalog }: ActiveRevision,
  caller: WorkloadCaller,
  { subject, resource }: AskedEvaluation,
): ToolGateway | undefined {
  const gateway = catalog.toolGateways.find(
    ({ workloads, subjects, resources }) =>
      namesWorkload(workloads, caller.workload) && subjects.includes(subject.type) && resources.includes(resource.type),
  );
  if (gateway === undefined || gateway.keys === null) return gateway;
  if (caller.keyThumbprint === null) throw new MayflyError('proof_missing');
  if (!gateway.keys.includes(caller.keyThumbprint))
    throw new MayflyError('proof_key_wrong', 'The catalog names other keys for this gateway.');
  return gateway;
}

function isAgentOf({ agents }: ToolGateway, workload: Workload): boolean {
  return agents === null || namesWorkload(agents, workload);
}

/** Undefined: there is no such subject, or none in the gateway's scope. */
export async function findSubject(
  tx: Transaction,
  active: ActiveRevision,
  caller: WorkloadCaller,
  subject: Subject,
): Promise<Found | undefined> {
  const { gateway } = subject;
  // A task says whether its own workload is killed; whoever asks for it must not be, either.
  const asking = gateway === null ? [] : [caller.workload];
  if (subject.kind !== 'task') {
    requireRevision(active, await findActiveRevisionNumber(tx));
    const workload = subject.kind === 'workload' ? subject.workload : caller.workload;
    const killed = await isAnyKilled(tx, [...asking, workload]);
    const known = await readSignalsAbout(tx, subject.kind === 'workload' ? workloadId(workload) : null);
    const behalf = subject.kind === 'workload' ? workload.subject : nameOf(subject.asked);
    return {
      about: { id: null, subject: behalf, workload, txn: null },
      gateway,
      version: [active.number],
      alive: () => {
        if (killed) throw killedProblem();
        return { subject, signals: factsOf(active, known, tx.now), until: null };
      },
    };
  }
  const state = await issuingWithin(tx).readTask(subject.id);
  if (state === null) return undefined;
  if (gateway === null ? !owns(caller, state.task) : !isAgentOf(gateway, state.task.workload)) return undefined;
  requireRevision(active, state.seen.revision);
  const killed = state.killed || (await isAnyKilled(tx, asking));
  return {
    about: state.task,
    gateway,
    version: [active.number, state.task.state, state.task.phase],
    alive: () => {
      if (killed) throw killedProblem();
      checkAlive(state.task, tx.now);
      requireStanding(active.catalog, state.task);
      const within = withinAncestors(state);
      const history = historyOf(state.seen, state.heldSeconds, null, active.catalog);
      return {
        subject: { kind: 'task', task: policyTask(active.catalog, within), history },
        signals: factsOf(active, knownSignals(state), tx.now),
        until: within.task.notAfter,
      };
    },
  };
}

/** Nothing that is asked about by AuthZEN stands at a place of the catalog. @throws MayflyError `stale_signals` */
function factsOf({ catalog }: ActiveRevision, known: KnownSignals, now: Date): SignalFacts {
  requireFresh(catalog, known, now);
  return signalFacts(catalog.signalSources, known, null, now);
}

async function isAnyKilled(tx: Transaction, workloads: readonly Workload[]): Promise<boolean> {
  for (const id of new Set(workloads.map(workloadId))) if (await isWorkloadKilled(tx, id)) return true;
  return false;
}

/** As Cedar writes it: `document::"123"`. */
export function nameOf({ type, id }: Asked): string {
  return `${type}::${JSON.stringify(id)}`;
}
