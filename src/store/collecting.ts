import { type Workload, workloadId } from '../domain/task.ts';
import type { Transaction } from './database.ts';
import type { Intent } from './intents.ts';

/** The limit beyond one tree that leaves no room for it; null: all do. Locks those that count, until the commit: the last locks of a birth. */
export async function reachedLimit(
  tx: Transaction,
  { grant, limits }: Intent,
  workload: Workload,
): Promise<string | null> {
  if (limits.length === 0) return null;
  const rows = await tx.query<{ reached: string | null }>({
    text: 'SELECT mayfly.reached_limit($1, $2, true) AS reached',
    values: [JSON.stringify({ target: grant.target, limits }), workloadId(workload)],
  });
  return rows[0]?.reached ?? null;
}

/** `approved → minting`, with the obligation to end it: an intent as any other from here on. Its life begins now. */
export async function birthCollected(
  tx: Transaction,
  { grant, revocation, sink, mintBy }: Intent,
  workload: Workload,
): Promise<void> {
  await tx.query({
    text: `UPDATE mayfly.grants SET state = 'minting', guarantee = $2, deadline = $3, per_call = $4, sink = $5, mint_by = $6, decision_id = $7,
        decided_revision = $8, created_at = $9, workload = $10 WHERE id = $1`,
    values: [
      ...[grant.id, JSON.stringify(grant.guarantee), grant.deadline, grant.perCall, sink, mintBy, grant.decisionId],
      ...[grant.decidedRevision, grant.createdAt, workloadId(workload)],
    ],
  });
  await tx.query({
    text: `INSERT INTO mayfly.revocations (id, grant_id, target, state, due_at, try_at) VALUES ($1, $2, $3, 'scheduled', $4, $5)`,
    values: [revocation.id, grant.id, grant.target, revocation.dueAt, revocation.tryAt],
  });
}
