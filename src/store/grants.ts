import type { Facts, Grant, GrantState, Guarantee } from '../domain/grant.ts';
import type { DecisionId, GrantId, RevocationId, TaskId } from '../domain/ids.ts';
import type { ErrorClass, Evidence, Revocation, RevocationState } from '../domain/revocation.ts';
import type { EndedBy, ParamValue, Workload } from '../domain/task.ts';
import type { Queryable, Transaction } from './database.ts';
import { page, type Page, type PageRequest } from './page.ts';
import { decisionValues, type NewDecision } from './tasks.ts';

type Row = {
  id: GrantId;
  task_id: TaskId;
  root_id: TaskId;
  entitlement: string;
  target: string;
  params: Readonly<Record<string, ParamValue>>;
  state: GrantState;
  handle: string;
  facts: Facts | null;
  guarantee: Guarantee;
  deadline: Date;
  decision_id: DecisionId;
  decided_revision: string;
  created_at: Date;
  ended_at: Date | null;
  ended_by: EndedBy | null;
  rev_id: RevocationId;
  rev_state: RevocationState;
  due_at: Date;
  try_at: Date;
  attempts: number;
  last_error: ErrorClass | null;
  overdue_at: Date | null;
  evidence: Evidence | null;
  contained_at: Date | null;
  clean_at: Date | null;
};

const SELECT = `SELECT g.id, g.task_id, g.root_id, g.entitlement, g.target, g.params, g.state, g.handle, g.facts, g.guarantee, g.deadline,
    g.decision_id, g.decided_revision, g.created_at, g.ended_at, g.ended_by,
    r.id AS rev_id, r.state AS rev_state, r.due_at, r.try_at, r.attempts, r.last_error, r.overdue_at, r.evidence, r.contained_at, r.clean_at
  FROM mayfly.grants g JOIN mayfly.revocations r ON r.grant_id = g.id`;

/** A grant and the obligation to end it: born together, read together. */
export interface GrantWithRevocation {
  readonly grant: Grant;
  readonly revocation: Revocation;
}

export interface Intent {
  readonly grant: Pick<
    Grant,
    'id' | 'taskId' | 'rootId' | 'entitlement' | 'target' | 'params' | 'handle' | 'guarantee' | 'deadline'
  >;
  readonly sink: boolean;
  readonly mintBy: Date;
  readonly revocationId: RevocationId;
  /** When the obligation falls due if the mint never reports. */
  readonly dueAt: Date;
  readonly decision: NewDecision;
}

/** Intent before mint: decision, grant and obligation in one statement. */
export async function insertIntent(tx: Transaction, intent: Intent): Promise<void> {
  const { grant } = intent;
  await tx.query({
    name: 'insert_intent',
    text: `WITH decided AS (
        INSERT INTO mayfly.decisions (id, task_id, action, resource, permitted, policies, errors, max_ttl_seconds, revision, inputs, decided_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)),
      granted AS (
        INSERT INTO mayfly.grants (id, task_id, root_id, entitlement, target, params, sink, state, handle, guarantee, deadline, mint_by,
          decision_id, decided_revision, created_at)
        VALUES ($12, $2, $13, $14, $15, $16, $17, 'minting', $18, $19, $20, $21, $1, $9, $11))
      INSERT INTO mayfly.revocations (id, grant_id, target, state, due_at, try_at) VALUES ($22, $12, $15, 'scheduled', $23, $23)`,
    values: [
      ...decisionValues(intent.decision, tx.now),
      grant.id,
      grant.rootId,
      grant.entitlement,
      grant.target,
      JSON.stringify(grant.params),
      intent.sink,
      grant.handle,
      JSON.stringify(grant.guarantee),
      grant.deadline,
      intent.mintBy,
      intent.revocationId,
      intent.dueAt,
    ],
  });
}

/**
 * `minting → active`, only while the task is alive; the obligation moves to the grant's deadline. False when the grant was ended
 * meanwhile: then only the facts are kept, for whoever ends it.
 */
export async function activateGrant(tx: Transaction, id: GrantId, facts: Facts): Promise<boolean> {
  const rows = await tx.query({
    name: 'activate_grant',
    text: `WITH activated AS (
        UPDATE mayfly.grants g SET state = 'active', facts = $2, activated_at = $3 FROM mayfly.tasks t
        WHERE g.id = $1 AND g.state = 'minting' AND t.id = g.task_id AND t.state = 'active' AND t.not_after > $3 AND g.deadline > $3
        RETURNING g.id, g.deadline)
      UPDATE mayfly.revocations r SET due_at = a.deadline, try_at = a.deadline FROM activated a
      WHERE r.grant_id = a.id AND r.state = 'scheduled' RETURNING r.id`,
    values: [id, JSON.stringify(facts), tx.now],
  });
  if (rows.length === 1) return true;
  await tx.query({
    text: 'UPDATE mayfly.grants SET facts = $2 WHERE id = $1 AND facts IS NULL',
    values: [id, JSON.stringify(facts)],
  });
  return false;
}

/** Moves an active grant's end, and the obligation with it. False when it is no longer active. */
export async function extendGrant(
  tx: Transaction,
  id: GrantId,
  deadline: Date,
  facts: Facts,
  decisionId: DecisionId,
  revision: number,
): Promise<boolean> {
  const rows = await tx.query({
    name: 'extend_grant',
    text: `WITH extended AS (
        UPDATE mayfly.grants g SET deadline = $2, facts = $3, decision_id = $4, decided_revision = $5 FROM mayfly.tasks t
        WHERE g.id = $1 AND g.state = 'active' AND g.deadline > $6 AND t.id = g.task_id AND t.state = 'active' AND t.not_after >= $2
        RETURNING g.id)
      UPDATE mayfly.revocations r SET due_at = $2, try_at = $2 FROM extended e
      WHERE r.grant_id = e.id AND r.state = 'scheduled' RETURNING r.id`,
    values: [id, deadline, JSON.stringify(facts), decisionId, revision, tx.now],
  });
  return rows.length === 1;
}

/** Ends grants that are not ended yet: `revoking`, with their obligations due now. */
export async function endGrants(
  tx: Transaction,
  which: { taskIds: readonly TaskId[] } | { grantIds: readonly GrantId[] },
  endedBy: EndedBy,
): Promise<GrantWithRevocation[]> {
  const byTask = 'taskIds' in which;
  const ended = await tx.query<{ id: GrantId }>({
    name: byTask ? 'end_grants_of_tasks' : 'end_grants',
    text: `WITH ended AS (
        UPDATE mayfly.grants SET state = 'revoking', ended_at = $2, ended_by = $3
        WHERE ${byTask ? 'task_id' : 'id'} = ANY($1) AND state IN ('minting', 'active') RETURNING id)
      UPDATE mayfly.revocations r SET state = 'due', due_at = least(r.due_at, $2), try_at = $2 FROM ended e
      WHERE r.grant_id = e.id AND r.state = 'scheduled' RETURNING e.id`,
    values: [byTask ? which.taskIds : which.grantIds, tx.now, endedBy],
  });
  return ended.length === 0
    ? []
    : await findGrants(
        tx,
        ended.map((row) => row.id),
      );
}

export async function findGrants(db: Queryable, ids: readonly GrantId[]): Promise<GrantWithRevocation[]> {
  const rows = await db.query<Row>({
    name: 'find_grants',
    text: `${SELECT} WHERE g.id = ANY($1) ORDER BY g.id`,
    values: [ids],
  });
  return rows.map(toGrant);
}

/** A grant, if it is this workload's (or anyone's, for an operator). Unknown and foreign are alike. */
export async function findOwnedGrant(
  db: Queryable,
  id: GrantId,
  owner: Workload | null,
): Promise<GrantWithRevocation | undefined> {
  const rows = await db.query<Row>({
    name: 'find_owned_grant',
    text: `${SELECT} JOIN mayfly.tasks t ON t.id = g.task_id
      WHERE g.id = $1 AND ($2::text IS NULL OR (t.workload_source = $2 AND t.workload_subject = $3))`,
    values: [id, owner?.source ?? null, owner?.subject ?? null],
  });
  return rows[0] && toGrant(rows[0]);
}

export async function listGrantsOfTask(db: Queryable, taskId: TaskId): Promise<GrantWithRevocation[]> {
  const rows = await db.query<Row>({
    name: 'list_grants_of_task',
    text: `${SELECT} WHERE g.task_id = $1 ORDER BY g.id`,
    values: [taskId],
  });
  return rows.map(toGrant);
}

/** Grants of the tree whose root this is. */
export async function listGrantsOfTree(db: Queryable, taskId: TaskId): Promise<GrantWithRevocation[]> {
  const rows = await db.query<Row>({
    name: 'list_grants_of_tree',
    text: `WITH RECURSIVE subtree AS (
        SELECT id FROM mayfly.tasks WHERE id = $1 UNION ALL SELECT t.id FROM mayfly.tasks t JOIN subtree s ON t.parent_id = s.id)
      ${SELECT} WHERE g.task_id IN (SELECT id FROM subtree) ORDER BY g.id`,
    values: [taskId],
  });
  return rows.map(toGrant);
}

export async function listGrants(db: Queryable, request: PageRequest): Promise<Page<GrantWithRevocation>> {
  const rows = await db.query<Row>({
    text: `${SELECT} WHERE ($1::uuid IS NULL OR g.id < $1) ORDER BY g.id DESC LIMIT $2`,
    values: [request.after, request.limit + 1],
  });
  return page(rows.map(toGrant), request.limit);
}

/** What an Idempotency-Key of a task stood for before. */
export interface UsedKey {
  readonly grantId: GrantId;
  readonly state: GrantState;
  readonly sameBody: boolean;
}

/**
 * Lets the key stand for a new grant, inserted later in the same transaction. Of two first requests at once the second
 * waits here, then sees the first one's grant. Answers what the key stood for before, if anything.
 */
export async function claimIdempotencyKey(
  tx: Transaction,
  taskId: TaskId,
  key: string,
  bodyDigest: Buffer,
  grantId: GrantId,
): Promise<UsedKey | undefined> {
  const fresh = await tx.query({
    name: 'insert_idempotency_key',
    text: `INSERT INTO mayfly.idempotency_keys (task_id, key, body_digest, grant_id) VALUES ($1, $2, $3, $4)
      ON CONFLICT DO NOTHING RETURNING key`,
    values: [taskId, key, bodyDigest, grantId],
  });
  if (fresh.length === 1) return undefined;
  const rows = await tx.query<{ grant_id: GrantId; state: GrantState; same_body: boolean }>({
    name: 'find_idempotency_key',
    text: `SELECT k.grant_id, g.state, k.body_digest = $3 AS same_body FROM mayfly.idempotency_keys k
      JOIN mayfly.grants g ON g.id = k.grant_id WHERE k.task_id = $1 AND k.key = $2 FOR UPDATE OF k`,
    values: [taskId, key, bodyDigest],
  });
  const row = rows[0];
  return row && { grantId: row.grant_id, state: row.state, sameBody: row.same_body };
}

/** Lets a used key stand for the grant that replaces the first one. */
export async function moveIdempotencyKey(
  tx: Transaction,
  taskId: TaskId,
  key: string,
  grantId: GrantId,
): Promise<void> {
  await tx.query({
    name: 'move_idempotency_key',
    text: 'UPDATE mayfly.idempotency_keys SET grant_id = $3 WHERE task_id = $1 AND key = $2',
    values: [taskId, key, grantId],
  });
}

function toGrant(row: Row): GrantWithRevocation {
  return {
    grant: {
      id: row.id,
      taskId: row.task_id,
      rootId: row.root_id,
      entitlement: row.entitlement,
      target: row.target,
      params: row.params,
      state: row.state,
      handle: row.handle,
      facts: row.facts,
      guarantee: row.guarantee,
      deadline: row.deadline,
      decisionId: row.decision_id,
      decidedRevision: Number(row.decided_revision),
      createdAt: row.created_at,
      endedAt: row.ended_at,
      endedBy: row.ended_by,
    },
    revocation: {
      id: row.rev_id,
      grantId: row.id,
      target: row.target,
      state: row.rev_state,
      dueAt: row.due_at,
      tryAt: row.try_at,
      attempts: row.attempts,
      lastError: row.last_error,
      overdueAt: row.overdue_at,
      evidence: row.evidence,
      containedAt: row.contained_at,
      cleanAt: row.clean_at,
    },
  };
}
