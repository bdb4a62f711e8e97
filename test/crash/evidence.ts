import { leafHash } from '../../src/audit/leaf.ts';
import type { Eye } from './eye.ts';

/** Orphans are taken in under a task of the reconciler's own, which nobody opened. */
const notItsOwn = `t.ended_by IS DISTINCT FROM 'orphaned'`;

/** For each thing that the store says, the events that must tell of it, each exactly so often. */
const told: readonly { readonly says: string; readonly query: string }[] = [
  {
    says: 'a task was opened',
    query: `SELECT t.id, (SELECT count(*) FROM mayfly.audit_events e WHERE e.task_id = t.id AND e.type = 'task.opened') AS told, 1 AS due FROM mayfly.tasks t WHERE ${notItsOwn}`,
  },
  {
    says: 'a task ended',
    query: `SELECT t.id, (SELECT count(*) FROM mayfly.audit_events e WHERE e.task_id = t.id AND e.type = 'task.' || t.state) AS told,
      (t.ended_at IS NOT NULL)::int AS due FROM mayfly.tasks t WHERE t.state <> 'active' AND ${notItsOwn}`,
  },
  {
    says: 'a decision was made',
    query: `SELECT d.id, (SELECT count(*) FROM mayfly.audit_events e WHERE e.decision_id = d.id AND e.type = 'decision.made') AS told, 1 AS due
      FROM mayfly.decisions d JOIN mayfly.tasks t ON t.id = d.task_id WHERE ${notItsOwn}`,
  },
  {
    says: 'a grant was intended, or taken in',
    query: `SELECT g.id, (SELECT count(*) FROM mayfly.audit_events e WHERE e.grant_id = g.id AND e.type IN ('grant.intended', 'grant.orphaned')) AS told, 1 AS due FROM mayfly.grants g`,
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
      (r.contained_at IS NOT NULL)::int AS due FROM mayfly.revocations r`,
  },
  {
    says: 'a revocation was clean',
    query: `SELECT r.grant_id AS id, (SELECT count(*) FROM mayfly.audit_events e WHERE e.grant_id = r.grant_id AND e.type = 'revocation.clean') AS told,
      (r.clean_at IS NOT NULL)::int AS due FROM mayfly.revocations r`,
  },
  {
    says: 'a revocation was overdue',
    query: `SELECT r.grant_id AS id, (SELECT count(*) FROM mayfly.audit_events e WHERE e.grant_id = r.grant_id AND e.type = 'revocation.overdue') AS told,
      (r.overdue_at IS NOT NULL)::int AS due FROM mayfly.revocations r`,
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
