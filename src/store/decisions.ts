import type { DecisionId, GrantId, TaskId } from '../domain/ids.ts';
import type { Queryable, Transaction } from './database.ts';

export interface NewDecision {
  readonly id: DecisionId;
  /** Null: an evaluation about somebody who is no task. */
  readonly taskId: TaskId | null;
  readonly action: string;
  readonly resource: string;
  readonly permitted: boolean;
  readonly policies: readonly string[];
  readonly errors: readonly string[];
  readonly maxTtlSeconds: number | null;
  readonly revision: number;
  readonly inputs: Readonly<Record<string, unknown>>;
}

/** Decisions that no new grant follows from: a denial, a renewal, an evaluation. */
export async function insertDecision(tx: Transaction, decision: NewDecision): Promise<void> {
  await tx.query({
    name: 'insert_decision',
    text: `INSERT INTO mayfly.decisions (id, task_id, action, resource, permitted, policies, errors, max_ttl_seconds, revision, inputs, decided_at)
      VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`,
    values: decisionValues(decision, tx.now),
  });
}

/** The same, written with the events of the transaction: nothing in it may refer to the decision before. */
export function recordDecision(tx: Transaction, decision: NewDecision): void {
  tx.decided({
    ...{ id: decision.id, task_id: decision.taskId, action: decision.action, resource: decision.resource },
    ...{ permitted: decision.permitted, policies: decision.policies, errors: decision.errors },
    ...{ max_ttl_seconds: decision.maxTtlSeconds, revision: decision.revision, inputs: decision.inputs },
    decided_at: tx.now,
  });
}

function decisionValues(decision: NewDecision, now: Date): unknown[] {
  return [
    decision.id,
    decision.taskId,
    decision.action,
    decision.resource,
    decision.permitted,
    decision.policies,
    decision.errors,
    decision.maxTtlSeconds,
    decision.revision,
    JSON.stringify(decision.inputs),
    now,
  ];
}

/** By what a decision was made. */
export type Deciding = Pick<NewDecision, 'policies' | 'revision'>;

export async function findDeciding(
  db: Queryable,
  ids: readonly DecisionId[],
): Promise<ReadonlyMap<DecisionId, Deciding>> {
  const rows = await db.query<{ id: DecisionId; policies: string[]; revision: string }>({
    text: 'SELECT id, policies, revision FROM mayfly.decisions WHERE id = ANY($1)',
    values: [ids],
  });
  return new Map(rows.map(({ id, policies, revision }) => [id, { policies, revision: Number(revision) }]));
}

/** As it stands in the store, with the revision that it was made under. */
export interface StoredDecision extends NewDecision {
  readonly at: Date;
  readonly digest: string;
  readonly appliedBy: string;
  readonly appliedAt: Date;
  /** The grant that came of it, or that it was about. */
  readonly grantId: GrantId | null;
  /** Why nothing came of it although policy permitted it: what the caller was told, and the limit that was reached. */
  readonly refusal: string | null;
  readonly limit: string | null;
}

export interface DecisionFilter {
  readonly taskId?: TaskId | undefined;
  readonly resource?: string | undefined;
  readonly permitted?: boolean | undefined;
}

type Row = {
  id: DecisionId;
  task_id: TaskId | null;
  action: string;
  resource: string;
  permitted: boolean;
  policies: string[];
  errors: string[];
  max_ttl_seconds: number | null;
  revision: string;
  inputs: Readonly<Record<string, unknown>>;
  decided_at: Date;
  digest: string;
  applied_by: string;
  applied_at: Date;
  grant_id: GrantId | null;
  refusal: string | null;
  reached: string | null;
};

const COLUMNS = `d.id, d.task_id, d.action, d.resource, d.permitted, d.policies, d.errors, d.max_ttl_seconds, d.revision, d.inputs, d.decided_at,
  c.digest, c.applied_by, c.applied_at, e.grant_id, e.payload->>'refusal' AS refusal, e.payload->>'limit' AS reached`;
/** The event that tells of a decision is of its task. */
const BESIDE = `JOIN mayfly.catalog_revisions c ON c.number = d.revision
  LEFT JOIN LATERAL (SELECT grant_id, payload FROM mayfly.audit_events WHERE task_id = d.task_id AND decision_id = d.id AND type = 'decision.made' LIMIT 1) e ON true`;

export async function findDecision(db: Queryable, id: DecisionId): Promise<StoredDecision | undefined> {
  const rows = await db.query<Row>({
    text: `SELECT ${COLUMNS} FROM mayfly.decisions d ${BESIDE} WHERE d.id = $1`,
    values: [id],
  });
  return rows.map(toDecision)[0];
}

/**
 * A page of decisions, the latest first.
 * @param within Only those about these targets; null: all.
 */
export async function listDecisions(
  db: Queryable,
  filter: DecisionFilter,
  within: readonly string[] | null,
  before: DecisionId | null,
  limit: number,
): Promise<StoredDecision[]> {
  const rows = await db.query<Row>({
    text: `SELECT ${COLUMNS} FROM (SELECT * FROM mayfly.decisions
        WHERE ($1::uuid IS NULL OR task_id = $1) AND ($2::text IS NULL OR resource = $2) AND ($3::boolean IS NULL OR permitted = $3)
          AND ($4::text[] IS NULL OR split_part(resource, '/', 1) = ANY($4)) AND ($5::uuid IS NULL OR id < $5)
        ORDER BY id DESC LIMIT $6) d
      ${BESIDE} ORDER BY d.id DESC`,
    values: [filter.taskId ?? null, filter.resource ?? null, filter.permitted ?? null, within, before, limit],
  });
  return rows.map(toDecision);
}

function toDecision(row: Row): StoredDecision {
  return {
    id: row.id,
    taskId: row.task_id,
    action: row.action,
    resource: row.resource,
    permitted: row.permitted,
    policies: row.policies,
    errors: row.errors,
    maxTtlSeconds: row.max_ttl_seconds,
    revision: Number(row.revision),
    inputs: row.inputs,
    at: row.decided_at,
    digest: row.digest,
    appliedBy: row.applied_by,
    appliedAt: row.applied_at,
    grantId: row.grant_id,
    refusal: row.refusal,
    limit: row.reached,
  };
}
