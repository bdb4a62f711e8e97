import { type Holdings, noUses, type Uses } from '../domain/holdings.ts';
import type { TaskId } from '../domain/ids.ts';
import type { StandingSignal } from '../domain/signal.ts';
import type { Ceiling, EndedBy, Owner, Task, TaskState as State } from '../domain/task.ts';
import type { Queryable, Transaction } from './database.ts';

export type TaskRow = {
  id: TaskId;
  root_id: TaskId;
  parent_id: TaskId | null;
  depth: number;
  max_depth: number;
  issuer: string;
  external_id: string;
  jti: string;
  txn: string | null;
  state: State;
  purpose: string;
  phase: string | null;
  subject: string;
  workload_source: string;
  workload_subject: string;
  key_thumbprint: string | null;
  instance: string | null;
  delivery_thumbprint: string | null;
  ceiling: Ceiling;
  intent_hash: string | null;
  created_at: Date;
  not_after: Date;
  ended_at: Date | null;
  ended_by: EndedBy | null;
};

/** Columns of `mayfly.tasks t`: for `toTask`. */
export const TASK_COLUMNS = columns('t');

function columns(alias: string): string {
  const names = [
    'id',
    'root_id',
    'parent_id',
    'depth',
    'max_depth',
    'issuer',
    'external_id',
    'jti',
    'txn',
    'state',
    'purpose',
    'phase',
    'subject',
    'workload_source',
    'workload_subject',
    'key_thumbprint',
    'instance',
    'delivery_thumbprint',
    'ceiling',
    'intent_hash',
    'created_at',
    'not_after',
    'ended_at',
    'ended_by',
  ];
  return names.map((name) => `${alias}.${name}`).join(', ');
}

export interface NewTask extends Omit<Task, 'endedAt' | 'endedBy'> {
  readonly requestDigest: Buffer;
  readonly openedRevision: number;
  /** Of a delegated task. */
  readonly offer?: { readonly claimBy: Date; readonly followsPhase: boolean };
}

/** The task that took a request's `(iss, jti)` or the issuer's `external_id` before. */
export interface EarlierTask {
  readonly task: Task;
  readonly sameRequest: boolean;
}

/** What a decision about a task is made from, as it was at `now`. */
export interface TaskState {
  readonly task: Task;
  /** The store's clock. */
  readonly now: Date;
  readonly seen: Seen;
  /** Of what a decision is made on, `seen` and more: compared by the store when the decision is written down. */
  readonly fingerprint: string;
  /** How long its tree has held something, all grants together. */
  readonly heldSeconds: number;
  /** A kill stands that names the task, its workload or its issuer, or all. */
  readonly killed: boolean;
  /** Up to when each source of signals was heard, in milliseconds since 1970. */
  readonly heard: Readonly<Record<string, number>>;
}

export interface Seen extends Holdings {
  readonly state: string;
  readonly phase: string | null;
  readonly revision: number | null;
  /** Of a delegated task: all that it hangs on, its parent first. */
  readonly ancestors?: readonly Ancestor[];
  /** Where any stand: about the workload or whom it acts for, and what is open or on anywhere. */
  readonly signals?: readonly StandingSignal[];
}

export interface Ancestor {
  readonly state: State;
  readonly phase: string | null;
  readonly ceiling: Ceiling;
  readonly max_depth: number;
  readonly not_after_millis: number;
}

/** Inserts the task, unless its request or its external id was used before; then answers false. */
export async function insertTask(tx: Transaction, task: NewTask): Promise<boolean> {
  const rows = await tx.query({
    name: 'insert_task',
    text: `INSERT INTO mayfly.tasks (id, root_id, parent_id, depth, max_depth, issuer, external_id, jti, request_digest, txn, state,
        purpose, phase, subject, workload_source, workload_subject, ceiling, intent_hash, opened_revision, created_at, not_after,
        key_thumbprint, instance, delivery_thumbprint, claim_by, follows_phase)
      VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26)
      ON CONFLICT DO NOTHING RETURNING id`,
    values: [
      task.id,
      task.rootId,
      task.parentId,
      task.depth,
      task.maxDepth,
      task.issuer,
      task.externalId,
      task.jti,
      task.requestDigest,
      task.txn,
      task.state,
      task.purpose,
      task.phase,
      task.subject,
      task.workload.source,
      task.workload.subject,
      JSON.stringify(task.ceiling),
      task.intentHash,
      task.openedRevision,
      task.createdAt,
      task.notAfter,
      task.keyThumbprint,
      task.instance,
      task.deliveryThumbprint,
      task.offer?.claimBy ?? null,
      task.offer?.followsPhase ?? false,
    ],
  });
  return rows.length === 1;
}

export async function findEarlierTask(
  db: Queryable,
  issuer: string,
  jti: string,
  externalId: string,
  digest: Buffer,
): Promise<EarlierTask | undefined> {
  const rows = await db.query<TaskRow & { same_request: boolean }>({
    name: 'find_earlier_task',
    text: `SELECT ${TASK_COLUMNS}, jti = $2 AND request_digest = $4 AS same_request FROM mayfly.tasks t
      WHERE issuer = $1 AND (jti = $2 OR external_id = $3) ORDER BY (jti = $2) DESC LIMIT 1`,
    values: [issuer, jti, externalId, digest],
  });
  const row = rows[0];
  return row && { task: toTask(row), sameRequest: row.same_request };
}

export async function findTask(db: Queryable, id: TaskId): Promise<Task | undefined> {
  const rows = await db.query<TaskRow>({
    name: 'find_task',
    text: `SELECT ${TASK_COLUMNS} FROM mayfly.tasks t WHERE id = $1`,
    values: [id],
  });
  return rows[0] && toTask(rows[0]);
}

export async function findTasks(db: Queryable, ids: readonly TaskId[]): Promise<Task[]> {
  const rows = await db.query<TaskRow>({
    text: `SELECT ${TASK_COLUMNS} FROM mayfly.tasks t WHERE id = ANY($1)`,
    values: [ids],
  });
  return rows.map(toTask);
}

/**
 * `owns` as a condition on `mayfly.tasks t`, by the expressions that say who asks. One who has proven no key asks with NULL, which
 * equals no key that a task names; so with the instance.
 */
export function ownedBy(asks: Readonly<Record<'source' | 'subject' | 'key' | 'instance', string>>): string {
  return `(t.workload_source = ${asks.source} AND t.workload_subject = ${asks.subject}
    AND CASE WHEN t.key_thumbprint IS NOT NULL THEN t.key_thumbprint = ${asks.key}
      ELSE t.instance IS NULL OR t.instance = ${asks.instance} END)`;
}

/** What `ownedBy` compares with, in the order of its names. All null: anyone. */
export function ownerValues(owner: Owner | null): readonly (string | null)[] {
  if (owner === null) return [null, null, null, null];
  return [owner.workload.source, owner.workload.subject, owner.keyThumbprint, owner.instance];
}

/** The root of the tree that the task belongs to, if the task is the caller's (or anyone's: null). Says which lock to take. */
export async function findOwnedRoot(db: Queryable, id: TaskId, owner: Owner | null): Promise<TaskId | undefined> {
  const rows = await db.query<{ root_id: TaskId }>({
    name: 'find_owned_root',
    text: `SELECT root_id FROM mayfly.tasks t
      WHERE id = $1 AND ($2::text IS NULL OR ${ownedBy({ source: '$2', subject: '$3', key: '$4::text', instance: '$5::text' })})`,
    values: [id, ...ownerValues(owner)],
  });
  return rows[0]?.root_id;
}

export type StateRow = TaskRow &
  Omit<Seen, 'held' | 'given' | 'uses' | 'ancestors' | 'signals'> & {
    /** An entitlement for each live grant of the tree. */
    held: readonly string[];
    given: Seen['given'] | null;
    /** Of the tree: asked and permitted; then of the task. */
    uses: readonly number[] | null;
    ancestors: readonly Ancestor[] | null;
    signals: readonly StandingSignal[] | null;
    heard: TaskState['heard'] | null;
    held_seconds: number;
    fingerprint: string;
    killed: boolean;
    now: Date;
  };

/** What a decision to issue is made on, as columns of `mayfly.task_states t`: for `toState`. */
export const STATE_COLUMNS = `${TASK_COLUMNS}, t.revision::int, t.live_grants, t.sensitive_sinks, t.grants, t.own_live_grants, t.own_grants, t.touched,
    t.held, t.given, t.uses, t.held_seconds, t.ancestors, t.signals, t.heard, t.fingerprint, t.killed, clock_timestamp() AS now`;

export function toState(row: StateRow): TaskState {
  const { fingerprint, killed, now } = row;
  const heard = row.heard ?? {};
  return { task: toTask(row), seen: toSeen(row), fingerprint, heldSeconds: row.held_seconds, killed, heard, now };
}

function toSeen(row: StateRow): Seen {
  const { state, phase, revision, live_grants, sensitive_sinks, grants, own_live_grants, own_grants, touched } = row;
  const held: Record<string, number> = {};
  for (const entitlement of row.held) held[entitlement] = (held[entitlement] ?? 0) + 1;
  return {
    ...{ state, phase, revision, live_grants, sensitive_sinks, grants, own_live_grants, own_grants, touched, held },
    ...{ given: row.given ?? {}, uses: toUses(row.uses) },
    ...(row.ancestors === null ? {} : { ancestors: row.ancestors }),
    ...(row.signals === null ? {} : { signals: row.signals }),
  };
}

function toUses(counted: readonly number[] | null): Uses {
  if (counted === null) return noUses;
  const [asked = 0, permitted = 0, ownAsked = 0, ownPermitted = 0] = counted;
  return { tree: { asked, permitted }, own: { asked: ownAsked, permitted: ownPermitted } };
}

/** The states of these tasks, in their order; null where there is no such task. */
export async function readTaskStates(db: Queryable, ids: readonly TaskId[]): Promise<(TaskState | null)[]> {
  const rows = await db.query<StateRow>({
    name: 'read_task_states',
    text: `SELECT ${STATE_COLUMNS} FROM mayfly.task_states t WHERE id = ANY($1)`,
    values: [ids],
  });
  const states = new Map(rows.map((row) => [row.id, toState(row)]));
  return ids.map((id) => states.get(id) ?? null);
}

export function toTask(row: TaskRow): Task {
  return {
    id: row.id,
    rootId: row.root_id,
    parentId: row.parent_id,
    depth: row.depth,
    maxDepth: row.max_depth,
    issuer: row.issuer,
    externalId: row.external_id,
    jti: row.jti,
    txn: row.txn,
    state: row.state,
    purpose: row.purpose,
    phase: row.phase,
    subject: row.subject,
    workload: { source: row.workload_source, subject: row.workload_subject },
    keyThumbprint: row.key_thumbprint,
    instance: row.instance,
    deliveryThumbprint: row.delivery_thumbprint,
    ceiling: row.ceiling,
    intentHash: row.intent_hash,
    createdAt: row.created_at,
    notAfter: row.not_after,
    endedAt: row.ended_at,
    endedBy: row.ended_by,
  };
}
