import type { PostgresSettings } from '../../support/postgres-servers.ts';
import type { House } from '../../support/house.ts';
import { quantile, type Row } from './report.ts';

/** What the server needs for `watchFences`. */
export const COMMIT_TIMES: PostgresSettings = { track_commit_timestamp: 'on' };

export interface Lateness {
  /** Milliseconds from each deadline to the commit of its fence. */
  readonly fenced: readonly number[];
  /** Milliseconds from each deadline to contained: fenced, swept, looked at, recorded. */
  readonly contained: readonly number[];
}

/**
 * From now on the time of each fence's commit is kept in the target. The tombstone's `fenced_at` is taken when the statement begins,
 * and the tombstone is written again by later steps; a row of its own is not.
 */
export async function watchFences(house: House): Promise<void> {
  await house.onTarget(`CREATE TABLE IF NOT EXISTS public.fenced (handle text NOT NULL)`);
  await house.onTarget(`CREATE OR REPLACE FUNCTION public.note_fence() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN INSERT INTO public.fenced VALUES (NEW.handle); RETURN NULL; END $$`);
  await house.onTarget(`CREATE OR REPLACE TRIGGER note_fence AFTER UPDATE ON mayfly.handle FOR EACH ROW
    WHEN (OLD.fenced_at IS NULL AND NEW.fenced_at IS NOT NULL) EXECUTE FUNCTION public.note_fence()`);
}

/** Of grants that are all contained. Store and target are on one server, and so on one clock. */
export async function readLateness(house: House, grants: readonly string[]): Promise<Lateness> {
  const fences = await house.onTarget<{ handle: string; at: number }>(
    `SELECT handle, (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000)::float8 AS at FROM public.fenced`,
  );
  const fencedAt = new Map(fences.map(({ handle, at }) => [handle, at]));
  const rows = await house.onStore<{ handle: string; due: number; contained: number }>(
    `SELECT g.handle, (extract(epoch FROM g.deadline) * 1000)::float8 AS due, (extract(epoch FROM r.contained_at) * 1000)::float8 AS contained
     FROM mayfly.revocations r JOIN mayfly.grants g ON g.id = r.grant_id WHERE r.grant_id = ANY($1)`,
    [grants],
  );
  const missing = rows.filter(({ handle }) => !fencedAt.has(handle)).length;
  if (rows.length !== grants.length || missing > 0) throw new Error(`${missing} fences were not seen`);
  return {
    fenced: rows.map(({ handle, due }) => (fencedAt.get(handle) ?? 0) - due),
    contained: rows.map(({ due, contained }) => contained - due),
  };
}

/** `<name> p50`, `p99`, `max` to the fence's commit, and the same to contained. */
export function latenessRows(name: string, { fenced, contained }: Lateness): Row[] {
  return [['', fenced] as const, [' contained', contained] as const].flatMap(([what, millis]) =>
    (
      [
        ['p50', quantile(millis, 0.5)],
        ['p99', quantile(millis, 0.99)],
        ['max', Math.max(...millis)],
      ] as const
    ).map(([point, value]) => ({ case: `${name}${what} ${point}`, value, unit: 'ms' })),
  );
}
