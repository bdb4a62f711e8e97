import type { Facts, Grant } from '../domain/grant.ts';
import type { GrantId } from '../domain/ids.ts';
import type { Queryable } from './database.ts';

/** What is needed to fence a grant that nobody ended before its deadline. */
export type LivingGrant = Pick<Grant, 'id' | 'target' | 'handle' | 'facts' | 'deadline' | 'decidedRevision'>;

export interface LivingGrants {
  /** The store's clock. */
  readonly now: Date;
  readonly grants: readonly LivingGrant[];
  /** Targets where an operator holds deadlines too. */
  readonly held: ReadonlySet<string>;
}

const HELD = 'FROM mayfly.target_controls c WHERE c.paused AND c.deadlines_held';

/** The living grants whose deadlines come first, but for those of the targets where they are held. */
export async function findLivingGrants(db: Queryable, limit: number): Promise<LivingGrants> {
  const rows = await db.query<{
    now: Date;
    held: string[];
    id: GrantId | null;
    target: string;
    handle: string;
    facts: Facts | null;
    deadline: Date;
    decided_revision: string;
  }>({
    name: 'find_living_grants',
    text: `SELECT clock.*, l.* FROM (SELECT clock_timestamp() AS now, ARRAY(SELECT c.target ${HELD}) AS held) clock LEFT JOIN LATERAL (
        SELECT g.id, g.target, g.handle, g.facts, r.due_at AS deadline, g.decided_revision
        FROM mayfly.revocations r JOIN mayfly.grants g ON g.id = r.grant_id
        WHERE r.state = 'scheduled' AND g.state = 'active'
          AND NOT EXISTS (SELECT ${HELD} AND c.target = r.target)
        ORDER BY r.due_at LIMIT $1) l ON true`,
    values: [limit],
  });
  const grants = rows.flatMap(({ id, target, handle, facts, deadline, decided_revision: revision }) =>
    id === null ? [] : [{ id, target, handle, facts, deadline, decidedRevision: Number(revision) }],
  );
  return { now: rows[0]?.now ?? new Date(0), grants, held: new Set(rows[0]?.held) };
}

/** Those of the grants that are not contained yet, and on no target where deadlines are held. */
export async function findUncontained(db: Queryable, ids: readonly GrantId[]): Promise<ReadonlySet<GrantId>> {
  const rows = await db.query<{ grant_id: GrantId }>({
    name: 'find_uncontained',
    text: `SELECT r.grant_id FROM mayfly.revocations r WHERE r.grant_id = ANY($1) AND r.state IN ('scheduled', 'due', 'running')
        AND NOT EXISTS (SELECT ${HELD} AND c.target = r.target)`,
    values: [ids],
  });
  return new Set(rows.map((row) => row.grant_id));
}
