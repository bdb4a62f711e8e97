import { leafHash } from '../../src/audit/leaf.ts';
import type { Eye } from './eye.ts';

/** How often a revocation was done with, and begun once more. */
const returned = `(SELECT count(*) FROM mayfly.audit_events e WHERE e.grant_id = r.grant_id AND (e.type = 'revocation.returned'
  OR (e.type = 'revocation.reopened' AND e.payload->>'contained_at' IS NOT NULL)))`;

const returnedFromClean = `(SELECT count(*) FROM mayfly.audit_events e WHERE e.grant_id = r.grant_id AND e.type IN ('revocation.returned', 'revocation.reopened')
  AND e.payload->>'clean_at' IS NOT NULL)`;

/**
 * For each thing that the store says, the events that must tell of it, each exactly so often. What an orphan needs to have a task and a
 * decision is told with the orphan.
 */
const told: readonly { readonly says: string; readonly query: string }[] = [
  {
    says: 'a task was opened or offered',
    query: `SELECT t.id, (SELECT count(*) FROM mayfly.audit_events e WHERE e.task_id = t.id AND e.type = CASE WHEN t.parent_id IS NULL THEN 'task.opened' ELSE 'task.offered' END) AS told, 1 AS due FROM mayfly.tasks t WHERE t.issuer <> 'mayfly'`,
  },
  {
    says: 'a task ended',
    query: `SELECT t.id, (SELECT count(*) FROM mayfly.audit_events e WHERE e.task_id = t.id AND e.type = 'task.' || t.state) AS told,
      (t.ended_at IS NOT NULL)::int AS due FROM mayfly.tasks t WHERE t.state NOT IN ('active', 'offered') AND t.issuer <> 'mayfly'`,
  },
  {
    says: 'a task was claimed',
    query: `SELECT t.id, (SELECT count(*) FROM mayfly.audit_events e WHERE e.task_id = t.id AND e.type = 'task.claimed') AS told,
      (t.state <> 'cancelled' AND t.state <> 'offered')::int AS due FROM mayfly.tasks t WHERE t.parent_id IS NOT NULL AND t.ended_by IS DISTINCT FROM 'parent_ended'`,
  },
  {
    says: 'a task moved to its phase',
    query: `SELECT t.id, (SELECT count(*) FROM mayfly.audit_events e WHERE e.task_id = t.id AND e.type = 'task.moved') AS told,
      (t.phase <> (SELECT e.payload->>'phase' FROM mayfly.audit_events e WHERE e.task_id = t.id AND e.type IN ('task.opened', 'task.offered')))::int AS due
      FROM mayfly.tasks t WHERE t.phase IS NOT NULL AND t.issuer <> 'mayfly'`,
  },
  {
    says: 'a decision was made',
    query: `SELECT d.id, (SELECT count(*) FROM mayfly.audit_events e WHERE e.decision_id = d.id
      AND e.type = CASE d.action WHEN 'evaluate' THEN 'use.evaluated' ELSE 'decision.made' END) AS told, 1 AS due
      FROM mayfly.decisions d JOIN mayfly.tasks t ON t.id = d.task_id WHERE t.issuer <> 'mayfly'`,
  },
  {
    says: 'a grant was intended',
    query: `SELECT g.id, (SELECT count(*) FROM mayfly.audit_events e WHERE e.grant_id = g.id AND e.type IN ('grant.intended', 'grant.orphaned')) AS told,
      (g.state NOT IN ('pending_approval', 'approved', 'denied'))::int AS due FROM mayfly.grants g`,
  },
  {
    says: 'a grant became active',
    query: `SELECT g.id, (SELECT count(*) FROM mayfly.audit_events e WHERE e.grant_id = g.id AND e.type = 'grant.activated') AS told,
      (g.activated_at IS NOT NULL)::int AS due FROM mayfly.grants g`,
  },
  {
    says: 'a grant was renewed until its deadline',
    query: `SELECT g.id, 0 AS told, 1 AS due FROM mayfly.grants g WHERE abs(extract(epoch FROM g.deadline) - (
      SELECT max(extract(epoch FROM (e.payload->>'deadline')::timestamptz)) FROM mayfly.audit_events e
      WHERE e.grant_id = g.id AND e.type IN ('grant.intended', 'grant.renewed'))) > 0.002`,
  },
  {
    says: 'a grant ended',
    query: `SELECT g.id, (SELECT count(*) FROM mayfly.audit_events e WHERE e.grant_id = g.id AND e.type IN ('grant.ended', 'grant.mint_failed', 'grant.orphaned')) AS told,
      (g.ended_at IS NOT NULL)::int AS due FROM mayfly.grants g`,
  },
  {
    says: 'a revocation was contained',
    query: `SELECT r.grant_id AS id, (SELECT count(*) FROM mayfly.audit_events e WHERE e.grant_id = r.grant_id AND e.type = 'revocation.contained') AS told,
      (r.contained_at IS NOT NULL)::int + ${returned} AS due FROM mayfly.revocations r`,
  },
  {
    says: 'a revocation was clean',
    query: `SELECT r.grant_id AS id, (SELECT count(*) FROM mayfly.audit_events e WHERE e.grant_id = r.grant_id AND e.type = 'revocation.clean') AS told,
      (r.clean_at IS NOT NULL)::int + ${returnedFromClean} AS due FROM mayfly.revocations r`,
  },
  {
    says: 'a revocation was overdue',
    query: `SELECT r.grant_id AS id, (SELECT count(*) FROM mayfly.audit_events e WHERE e.grant_id = r.grant_id AND e.type = 'revocation.overdue') AS told,
      (r.overdue_at IS NOT NULL)::int AS due FROM mayfly.revocations r WHERE ${returned} = 0`,
  },
  {
    says: 'a revocation was written off',
    query: `SELECT r.grant_id AS id, (SELECT count(*) FROM mayfly.audit_events e WHERE e.grant_id = r.grant_id AND e.type = 'revocation.written_off') AS told,
      (r.written_off_at IS NOT NULL)::int AS due FROM mayfly.revocations r`,
  },
  {
    says: 'a target is paused',
    query: `SELECT c.target AS id, (SELECT coalesce(sum(CASE e.type WHEN 'target.paused' THEN 1 ELSE -1 END), 0) FROM mayfly.audit_events e
        WHERE e.resource = c.target AND e.type IN ('target.paused', 'target.resumed')) AS told,
      c.paused::int AS due FROM mayfly.target_controls c`,
  },
  {
    says: 'a kill was raised, and perhaps lifted',
    query: `SELECT k.id, (SELECT count(*) FROM mayfly.audit_events e WHERE e.type IN ('kill.raised', 'kill.lifted') AND e.payload->>'kill_id' = 'kill_' || k.id) AS told,
      1 + (k.lifted_at IS NOT NULL)::int AS due FROM mayfly.kills k`,
  },
  {
    says: 'an approval was asked for, decided, withdrawn or lapsed',
    query: `SELECT a.id, (SELECT count(*) FROM mayfly.audit_events e WHERE e.grant_id = a.grant_id AND e.type LIKE 'approval.%') AS told,
      1 + jsonb_array_length(a.words) + (a.state = 'lapsed')::int AS due FROM mayfly.approvals a`,
  },
  {
    says: 'a catalog was applied',
    query: `SELECT c.number AS id, (SELECT count(*) FROM mayfly.audit_events e WHERE e.type = 'catalog.applied' AND e.payload->>'revision' = c.number::text) AS told,
      1 AS due FROM mayfly.catalog_revisions c`,
  },
];

/** What a leaf is made of. */
const columns = `id, ts, type, agent, subject, resource, action, decision, correlation_id, posture, cause, task_id, grant_id,
  decision_id, txn, policy_digest, payload`;

/** What is wrong with the evidence: told too often or not at all, or rows that are not what they were. */
export async function faultsOfEvidence(eye: Eye): Promise<string[]> {
  const faults: string[] = [];
  for (const { says, query } of told) {
    const wrong = await eye.store<{ id: string; told: string; due: number }>(
      `SELECT id::text, told::text, due FROM (${query}) x WHERE told <> due`,
    );
    faults.push(...wrong.map(({ id, told: times, due }) => `${says}: ${id} is told ${times} times, not ${due}`));
  }
  const rows = await eye.store<Record<string, unknown> & { ts: Date; leaf_hash: Buffer }>(
    `SELECT leaf_hash, ${columns} FROM mayfly.audit_events`,
  );
  for (const { leaf_hash: hash, ...row } of rows) {
    const plain = { ...row, ts: row.ts.toISOString() };
    if (!leafHash(plain).equals(hash)) faults.push(`event ${String(row['id'])} is not what was written`);
  }
  return faults;
}
