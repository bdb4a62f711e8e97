import type { GrantId } from '../domain/ids.ts';
import type { Queryable } from './database.ts';
import { EVENT_COLUMNS, type EventRow, type EventSubject, subjectOf } from './event-subject.ts';

/** Who and what the events of these grants are about. */
export async function findSubjects(
  db: Queryable,
  grantIds: readonly GrantId[],
): Promise<ReadonlyMap<GrantId, EventSubject>> {
  const rows = await db.query<EventRow & { id: GrantId }>({
    name: 'find_subjects',
    text: `SELECT g.id, g.entitlement, ${EVENT_COLUMNS} FROM mayfly.grants g JOIN mayfly.tasks t ON t.id = g.task_id WHERE g.id = ANY($1)`,
    values: [grantIds],
  });
  return new Map(rows.map((row) => [row.id, subjectOf(row)]));
}
