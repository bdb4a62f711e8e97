import type { Facts, Grant, GrantState, Guarantee } from '../domain/grant.ts';
import type { DecisionId, GrantId, RevocationId, TaskId } from '../domain/ids.ts';
import type { ErrorClass, Evidence, Revocation, RevocationState } from '../domain/revocation.ts';
import type { EndedBy, Owner, ParamValue } from '../domain/task.ts';
import type { Queryable, Transaction } from './database.ts';
import { owedAt } from './owed.ts';
import { ownedBy, ownerValues } from './tasks.ts';

export type GrantRow = {
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
  per_call: boolean;
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

/** Columns of `mayfly.grants g` and its `mayfly.revocations r`: for `toGrant`. */
export const GRANT_COLUMNS = `g.id, g.task_id, g.root_id, g.entitlement, g.target, g.params, g.state, g.handle, g.facts, g.guarantee, g.deadline, g.per_call,
    g.decision_id, g.decided_revision, g.created_at, g.ended_at, g.ended_by,
    r.id AS rev_id, r.state AS rev_state, r.due_at, r.try_at, r.attempts, r.last_error, r.overdue_at, r.evidence, r.contained_at, r.clean_at`;
const SELECT = `SELECT ${GRANT_COLUMNS} FROM mayfly.grants g JOIN mayfly.revocations r ON r.grant_id = g.id`;

const READ = `SELECT ${GRANT_COLUMNS} FROM mayfly.grants g LEFT JOIN mayfly.revocations r ON r.grant_id = g.id`;

/** A grant and the obligation to end it: born together, read together. */
export interface GrantWithRevocation {
  readonly grant: Grant;
  readonly revocation: Revocation;
}

/** Also one that nothing was made of yet, or never will be: there is nothing to end then. */
export interface ReadGrant {
  readonly grant: Grant;
  readonly revocation: Revocation | null;
}

type ReadRow = GrantRow | (Omit<GrantRow, 'rev_id'> & { rev_id: null });

/**
 * Moves an active grant's end later, and the obligation with it. Answers its end now; undefined when it is no longer active.
 * @param phase That of its task when this was decided: in another one it is to be decided again.
 */
export async function extendGrant(
  tx: Transaction,
  id: GrantId,
  deadline: Date,
  facts: Facts,
  decisionId: DecisionId,
  revision: number,
  phase: string | null,
): Promise<Date | undefined> {
  const rows = await tx.query<{ due_at: Date }>({
    name: 'extend_grant',
    text: `WITH extended AS (
        UPDATE mayfly.grants g SET deadline = greatest(g.deadline, $2), facts = $3, decision_id = $4, decided_revision = $5,
          retained_revision = CASE WHEN g.retained_revision = 0 OR t.phase IS DISTINCT FROM $7 THEN 0 ELSE $5::bigint END
        FROM mayfly.tasks t
        WHERE g.id = $1 AND g.state = 'active' AND g.deadline > $6 AND t.id = g.task_id AND t.state = 'active' AND t.not_after >= $2
        RETURNING g.id, g.deadline)
      UPDATE mayfly.revocations r SET due_at = e.deadline, try_at = e.deadline FROM extended e
      WHERE r.grant_id = e.id AND r.state = 'scheduled' RETURNING r.due_at`,
    values: [id, deadline, JSON.stringify(facts), decisionId, revision, tx.now, phase],
  });
  return rows[0]?.due_at;
}

/** Of one that is to be approved first. Nothing is owed: nothing of it is in its target. */
export async function insertUnminted(tx: Transaction, grant: Grant, sink: boolean, mintBy: Date): Promise<void> {
  await tx.query({
    text: `INSERT INTO mayfly.grants (id, task_id, root_id, entitlement, target, params, sink, state, handle, guarantee, deadline, per_call, mint_by,
        decision_id, decided_revision, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)`,
    values: [
      ...[grant.id, grant.taskId, grant.rootId, grant.entitlement, grant.target, JSON.stringify(grant.params), sink],
      ...[grant.state, grant.handle, JSON.stringify(grant.guarantee), grant.deadline, grant.perCall, mintBy],
      ...[grant.decisionId, grant.decidedRevision, grant.createdAt],
    ],
  });
}

/** Ends grants that are not ended yet: `revoking`, with their obligations due now. */
export async function endGrants(
  tx: Transaction,
  { grantIds }: { readonly grantIds: readonly GrantId[] },
  endedBy: EndedBy,
): Promise<GrantWithRevocation[]> {
  const held = `SELECT g.id, $3::text AS ended_by FROM mayfly.grants g WHERE g.id = ANY($4) AND g.state IN ('minting', 'active')`;
  return await endHeld(tx, 'end_grants', held, false, [endedBy, grantIds]);
}

/**
 * The same with all grants of tasks that have ended, each for the reason of its task.
 * @param urgent No pause of a target holds it back.
 */
export async function endGrantsOfTasks(
  tx: Transaction,
  taskIds: readonly TaskId[],
  urgent = false,
): Promise<GrantWithRevocation[]> {
  const held = `SELECT g.id, t.ended_by FROM mayfly.grants g JOIN mayfly.tasks t ON t.id = g.task_id
      WHERE t.id = ANY($3) AND g.state IN ('minting', 'active')`;
  return await endHeld(tx, 'end_grants_of_tasks', held, urgent, [taskIds]);
}

/** The same with all grants of these tasks and of all below them, whether those have ended or not. */
export async function endGrantsBelow(
  tx: Transaction,
  taskIds: readonly TaskId[],
  endedBy: EndedBy,
): Promise<GrantWithRevocation[]> {
  const held = `SELECT g.id, $3::text AS ended_by FROM mayfly.grants g
      WHERE g.task_id IN (SELECT s.id FROM unnest($4::uuid[]) AS top (id), mayfly.subtree(top.id) s) AND g.state IN ('minting', 'active')`;
  return await endHeld(tx, 'end_grants_below', held, false, [endedBy, taskIds]);
}

/** The same with all grants on a target, or those of one entitlement there; no pause of the target holds it back. */
export async function endGrantsOn(
  tx: Transaction,
  target: string,
  entitlement: string | null,
  endedBy: EndedBy,
): Promise<GrantWithRevocation[]> {
  const held = `SELECT g.id, $3::text AS ended_by FROM mayfly.grants g
      WHERE g.target = $4 AND ($5::text IS NULL OR g.entitlement = $5) AND g.state IN ('minting', 'active')`;
  return await endHeld(tx, 'end_grants_on', held, true, [endedBy, target, entitlement]);
}

/**
 * @param held Which grants `g`, with why they end.
 * @param values From `$3` on.
 */
async function endHeld(
  tx: Transaction,
  name: string,
  held: string,
  urgent: boolean,
  values: readonly unknown[],
): Promise<GrantWithRevocation[]> {
  const ended = await tx.query<{ id: GrantId }>({
    name,
    // In the order of their ids, as all that end or contain several take them.
    text: `WITH held AS (${held} ORDER BY g.id FOR NO KEY UPDATE OF g),
      ended AS (
        UPDATE mayfly.grants g SET state = 'revoking', ended_at = $1, ended_by = h.ended_by FROM held h WHERE g.id = h.id
        RETURNING g.id, g.guarantee, g.deadline)
      UPDATE mayfly.revocations r SET state = 'due', due_at = ${owedAt('least(r.due_at, $1)')}, try_at = $1, urgent_at = CASE WHEN $2 THEN $1 END
      FROM ended g WHERE r.grant_id = g.id AND r.state = 'scheduled' RETURNING g.id`,
    values: [tx.now, urgent, ...values],
  });
  return ended.length === 0
    ? []
    : await findGrants(
        tx,
        ended.map((row) => row.id),
      );
}

export async function findGrants(db: Queryable, ids: readonly GrantId[]): Promise<GrantWithRevocation[]> {
  const rows = await db.query<GrantRow>({
    name: 'find_grants',
    text: `${SELECT} WHERE g.id = ANY($1) ORDER BY g.id`,
    values: [ids],
  });
  return rows.map(toGrant);
}

export async function listGrantsOfTask(db: Queryable, taskId: TaskId): Promise<ReadGrant[]> {
  const rows = await db.query<ReadRow>({
    name: 'list_grants_of_task',
    text: `${READ} WHERE g.task_id = $1 ORDER BY g.id`,
    values: [taskId],
  });
  return rows.map(toReadGrant);
}

/** Also those of which nothing was made. */
export async function findAnyGrants(db: Queryable, ids: readonly GrantId[]): Promise<ReadGrant[]> {
  const rows = await db.query<ReadRow>({ text: `${READ} WHERE g.id = ANY($1)`, values: [ids] });
  return rows.map(toReadGrant);
}

/** Also one that waits for its approval, or that nothing came of, if it is this owner's (or anyone's: null). */
export async function findAnyGrant(db: Queryable, id: GrantId, owner: Owner | null): Promise<ReadGrant | undefined> {
  const rows = await db.query<ReadRow>({
    text: `${READ} JOIN mayfly.tasks t ON t.id = g.task_id WHERE g.id = $1
      AND ($2::text IS NULL OR ${ownedBy({ source: '$2', subject: '$3', key: '$4::text', instance: '$5::text' })})`,
    values: [id, ...ownerValues(owner)],
  });
  return rows.map(toReadGrant)[0];
}

/** Grants of the tree whose root this is. */
export async function listGrantsOfTree(db: Queryable, taskId: TaskId): Promise<GrantWithRevocation[]> {
  const rows = await db.query<GrantRow>({
    name: 'list_grants_of_tree',
    text: `${SELECT} WHERE g.task_id IN (SELECT id FROM mayfly.subtree($1)) ORDER BY g.id`,
    values: [taskId],
  });
  return rows.map(toGrant);
}

function toReadGrant(row: ReadRow): ReadGrant {
  return row.rev_id === null ? { grant: grantOf(row), revocation: null } : toGrant(row);
}

export function toGrant(row: GrantRow): GrantWithRevocation {
  return { grant: grantOf(row), revocation: revocationOf(row) };
}

function grantOf(row: Omit<GrantRow, 'rev_id'>): Grant {
  return {
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
    perCall: row.per_call,
    decisionId: row.decision_id,
    decidedRevision: Number(row.decided_revision),
    createdAt: row.created_at,
    endedAt: row.ended_at,
    endedBy: row.ended_by,
  };
}

function revocationOf(row: GrantRow): Revocation {
  return {
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
  };
}
