import type { AuditEvent } from '../domain/audit-event.ts';
import type { GrantId } from '../domain/ids.ts';
import type { EndedBy, Owner, Task } from '../domain/task.ts';
import { auditRows } from './audit-rows.ts';
import { Coalescer } from './coalescer.ts';
import type { Queryable } from './database.ts';
import { GRANT_COLUMNS, type GrantRow, type GrantWithRevocation, toGrant } from './grants.ts';
import { owedAt } from './owed.ts';
import { ownedBy, ownerValues } from './tasks.ts';

/** A grant with what an event about it must tell of its task. */
export interface OwnedGrant extends GrantWithRevocation {
  readonly task: Pick<Task, 'id' | 'subject' | 'workload' | 'txn'>;
  /** The store's clock when it was read. */
  readonly now: Date;
}

export interface Ending {
  readonly id: GrantId;
  readonly endedBy: EndedBy;
  readonly event: AuditEvent;
  /** The store's clock, for the event. */
  readonly now: Date;
}

/** Single grants as their owners see and end them. What is asked for at the same moment shares a statement. */
export interface OwnedGrants {
  /** A grant, if it is this owner's (or anyone's: null). Unknown and foreign are alike. */
  find(id: GrantId, owner: Owner | null): Promise<OwnedGrant | null>;
  /** Ends a grant, with its event. False when it was ended before: then nothing is written. */
  end(ending: Ending): Promise<boolean>;
}

export function coalescedOwnedGrants(db: Queryable): OwnedGrants {
  const finds = new Coalescer((asks: readonly Ask[]) => findOwnedGrants(db, asks));
  const ends = new Coalescer((endings: readonly Ending[]) => endEach(db, endings));
  return { find: (id, owner) => finds.call({ id, owner }), end: (ending) => ends.call(ending) };
}

interface Ask {
  readonly id: GrantId;
  readonly owner: Owner | null;
}

type OwnedRow = GrantRow & {
  n: string;
  subject: string;
  txn: string | null;
  workload_source: string;
  workload_subject: string;
  now: Date;
};

async function findOwnedGrants(db: Queryable, asks: readonly Ask[]): Promise<(OwnedGrant | null)[]> {
  const rows = await db.query<OwnedRow>({
    name: 'find_owned_grants',
    text: `SELECT ask.n, ${GRANT_COLUMNS}, t.subject, t.txn, t.workload_source, t.workload_subject, clock_timestamp() AS now
      FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[]) WITH ORDINALITY AS ask (id, source, subject, key, instance, n)
      JOIN mayfly.grants g ON g.id = ask.id JOIN mayfly.revocations r ON r.grant_id = g.id JOIN mayfly.tasks t ON t.id = g.task_id
      WHERE ask.source IS NULL OR ${ownedBy({ source: 'ask.source', subject: 'ask.subject', key: 'ask.key', instance: 'ask.instance' })}`,
    values: [
      asks.map(({ id }) => id),
      ...[0, 1, 2, 3].map((place) => asks.map(({ owner }) => ownerValues(owner)[place])),
    ],
  });
  const found = new Map(rows.map((row) => [Number(row.n), row]));
  return asks.map((_, index) => {
    const row = found.get(index + 1);
    return row === undefined ? null : toOwned(row);
  });
}

function toOwned(row: OwnedRow): OwnedGrant {
  const { subject, txn, now } = row;
  const workload = { source: row.workload_source, subject: row.workload_subject };
  return { ...toGrant(row), task: { id: row.task_id, subject, txn, workload }, now };
}

async function endEach(db: Queryable, endings: readonly Ending[]): Promise<boolean[]> {
  const rows = await db.query<{ id: GrantId; n: string }>({
    name: 'end_each',
    // In the order of their ids, so that two such statements do not wait for each other. Said twice at once, the first one counts.
    text: `WITH asked AS (
        SELECT DISTINCT ON (id) * FROM ROWS FROM (jsonb_to_recordset($1) AS (id uuid, ended_by text, event jsonb)) WITH ORDINALITY AS d (id, ended_by, event, n)
        ORDER BY id, n),
      held AS (
        SELECT a.* FROM mayfly.grants g JOIN asked a ON a.id = g.id WHERE g.state IN ('minting', 'active') ORDER BY g.id FOR UPDATE OF g),
      ended AS (
        UPDATE mayfly.grants g SET state = 'revoking', ended_at = clock_timestamp(), ended_by = h.ended_by
        FROM held h WHERE g.id = h.id RETURNING g.id, g.guarantee, g.deadline, g.ended_at, h.event, h.n),
      due AS (
        UPDATE mayfly.revocations r SET state = 'due', due_at = ${owedAt('least(r.due_at, g.ended_at)')}, try_at = g.ended_at FROM ended g
        WHERE r.grant_id = g.id AND r.state = 'scheduled'),
      told AS (INSERT INTO mayfly.audit_events SELECT t.* FROM ended e, jsonb_populate_record(NULL::mayfly.audit_events, e.event) t)
      SELECT n FROM ended`,
    values: [
      JSON.stringify(
        endings.map(({ id, endedBy, event, now }) => ({ id, ended_by: endedBy, event: auditRows([event], now)[0] })),
      ),
    ],
  });
  const ended = new Set(rows.map(({ n }) => Number(n)));
  return endings.map((_, index) => ended.has(index + 1));
}
