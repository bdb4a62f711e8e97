import type { DecisionId, TaskId } from '../domain/ids.ts';
import type { Transaction } from './database.ts';

export interface NewDecision {
  readonly id: DecisionId;
  readonly taskId: TaskId;
  readonly action: string;
  readonly resource: string;
  readonly permitted: boolean;
  readonly policies: readonly string[];
  readonly errors: readonly string[];
  readonly maxTtlSeconds: number | null;
  readonly revision: number;
  readonly inputs: Readonly<Record<string, unknown>>;
}

/** Decisions that no new grant follows from: a denial, a renewal. */
export async function insertDecision(tx: Transaction, decision: NewDecision): Promise<void> {
  await tx.query({
    name: 'insert_decision',
    text: `INSERT INTO mayfly.decisions (id, task_id, action, resource, permitted, policies, errors, max_ttl_seconds, revision, inputs, decided_at)
      VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`,
    values: decisionValues(decision, tx.now),
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
