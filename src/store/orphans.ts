import type { Facts } from '../domain/grant.ts';
import type { GrantId, Ids, RevocationId, TaskId } from '../domain/ids.ts';
import type { Transaction } from './database.ts';
import type { EventSubject } from './event-subject.ts';

/** Something in a target that verifiably bears our mark. */
export interface Marked {
  readonly grantId: string;
  readonly handle: string;
  readonly facts: Facts;
}

export interface Orphan extends EventSubject {
  readonly id: RevocationId;
  readonly grantId: GrantId;
  readonly handle: string;
  readonly endedBy: 'orphaned';
  readonly firstSeenAt: Date;
}

/** Notes what is unknown here. @returns the handles that were first seen `graceSeconds` ago or earlier, and since when. */
export async function noteUnknown(
  tx: Transaction,
  target: string,
  handles: readonly string[],
  graceSeconds: number,
): Promise<ReadonlyMap<string, Date>> {
  const rows = await tx.query<{ handle: string; first_seen_at: Date }>({
    name: 'note_unknown',
    text: `WITH noted AS (
        INSERT INTO mayfly.orphan_sightings (target, handle, first_seen_at) SELECT $1, h, $3 FROM unnest($2::text[]) h
        ON CONFLICT DO NOTHING)
      SELECT handle, first_seen_at FROM mayfly.orphan_sightings WHERE target = $1 AND handle = ANY($2)
        AND first_seen_at <= $3::timestamptz - make_interval(secs => $4)`,
    values: [target, handles, tx.now, graceSeconds],
  });
  return new Map(rows.map((row) => [row.handle, row.first_seen_at]));
}

/** Forgets sightings of what was not seen again for a day: it went away by itself. */
export async function forgetUnknown(tx: Transaction, target: string): Promise<void> {
  await tx.query({
    name: 'forget_unknown',
    text: `DELETE FROM mayfly.orphan_sightings WHERE target = $1 AND first_seen_at < $2::timestamptz - interval '1 day'`,
    values: [target, tx.now],
  });
}

/**
 * Takes orphans in, so that they end as everything else does: each gets a grant that is ended from birth and an obligation that is
 * due, under a task of the reconciler's own that is over, since nothing belongs to nobody. Whoever it was minted for is not known.
 */
export async function takeInOrphans(
  tx: Transaction,
  target: string,
  found: readonly (Marked & { readonly firstSeenAt: Date })[],
  revision: number,
  ids: Ids,
): Promise<Orphan[]> {
  const task: TaskId = ids.next('task');
  const decision = ids.next('dec');
  const born = found.map((one) => ({ ...one, id: ids.next('rev') }));
  await tx.query({
    name: 'open_orphans_task',
    text: `INSERT INTO mayfly.tasks (id, root_id, depth, max_depth, issuer, external_id, jti, request_digest, state, purpose, subject,
        workload_source, workload_subject, ceiling, opened_revision, created_at, not_after)
      VALUES ($1, $1, 0, 0, 'mayfly', $2, $2, '', 'active', 'reconcile', 'reconciler', 'mayfly', 'reconciler',
        '{"entitlements": [], "params": {}, "maxTtlSeconds": 0}', $3, $4, $4::timestamptz + interval '1 second')`,
    values: [task, `orphans:${task}`, revision, tx.now],
  });
  await tx.query({
    name: 'end_orphans_task',
    text: `UPDATE mayfly.tasks SET state = 'completed', ended_at = $2, ended_by = 'orphaned' WHERE id = $1`,
    values: [task, tx.now],
  });
  await tx.query({
    name: 'decide_orphans',
    text: `INSERT INTO mayfly.decisions (id, task_id, action, resource, permitted, policies, errors, revision, inputs, decided_at)
      VALUES ($1, $2, 'retain', $3, false, '{}', '{}', $4, '{"unknown_in_store": true}', $5)`,
    values: [decision, task, target, revision, tx.now],
  });
  const rows = await tx.query<{ id: GrantId }>({
    name: 'insert_orphans',
    text: `INSERT INTO mayfly.grants (id, task_id, root_id, entitlement, target, params, sink, state, handle, facts, guarantee, deadline, mint_by,
        decision_id, decided_revision, created_at)
      SELECT f.id, $2, $2, $3, $3, '{}', false, 'minting', f.handle, f.facts, $4, $5, $5, $6, $7, $5
      FROM jsonb_to_recordset($1) AS f(id uuid, handle text, facts jsonb) ON CONFLICT DO NOTHING RETURNING id`,
    values: [
      JSON.stringify(born.map(({ grantId, handle, facts }) => ({ id: grantId, handle, facts }))),
      ...[task, target, JSON.stringify(NOTHING_PROMISED), tx.now, decision, revision],
    ],
  });
  const inserted = new Set<string>(rows.map(({ id }) => id));
  const orphans = born.flatMap(({ id, grantId, handle, firstSeenAt }) => {
    const known = rows.find((row) => row.id === grantId);
    if (known === undefined) return [];
    const subject = { taskId: task, agent: 'mayfly:reconciler', subject: 'none', txn: null, entitlement: target };
    return [{ ...subject, id, grantId: known.id, handle, firstSeenAt, endedBy: 'orphaned' as const }];
  });
  await tx.query({
    name: 'owe_orphans',
    text: `WITH ended AS (UPDATE mayfly.grants SET state = 'revoking', ended_at = $3, ended_by = 'orphaned' WHERE id = ANY($2)),
      forgotten AS (DELETE FROM mayfly.orphan_sightings WHERE target = $1 AND handle = ANY($5))
      INSERT INTO mayfly.revocations (id, grant_id, target, state, due_at, try_at)
      SELECT f.id, f.grant_id, $1, 'scheduled', $3, $3 FROM jsonb_to_recordset($4) AS f(id uuid, grant_id uuid)`,
    values: [
      target,
      [...inserted],
      tx.now,
      JSON.stringify(orphans.map(({ id, grantId }) => ({ id, grant_id: grantId }))),
      orphans.map(({ handle }) => handle),
    ],
  });
  await tx.query({
    name: 'orphans_fall_due',
    text: `UPDATE mayfly.revocations SET state = 'due' WHERE id = ANY($1)`,
    values: [orphans.map(({ id }) => id)],
  });
  return orphans;
}

/** A guarantee has to stand with every grant: what nobody promised. */
const NOTHING_PROMISED = {
  revocation: 'expiry-only',
  native_expiry: false,
  ends_sessions: false,
  enumerable: true,
  min_ttl_seconds: 1,
  max_ttl_seconds: 1,
  says: 'Found in the target and unknown here: nothing was promised.',
};
