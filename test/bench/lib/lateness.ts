import type { House } from '../../support/house.ts';
import type { PostgresSettings } from '../../support/postgres-servers.ts';
import { quantile, type Row } from './report.ts';

/** What the server needs for `watchFences`. */
export const COMMIT_TIMES: PostgresSettings = { track_commit_timestamp: 'on' };

/** Milliseconds from each deadline to what came after it. Store and target are on one server, and so on one clock. */
export interface Lateness {
  /** The transaction began that let it fall due. */
  readonly woken: readonly number[];
  /** The statement began that fences it. */
  readonly fencing: readonly number[];
  /** That statement was committed: access is cut for every login from then on. */
  readonly fenced: readonly number[];
  /** Swept, looked at, recorded. */
  readonly contained: readonly number[];
}

/**
 * From now on the time of each fence's commit is kept in the target. The tombstone's `fenced_at` is taken when the statement begins,
 * and the tombstone is written again by later steps; a row of its own is not.
 */
export async function watchFences(house: House): Promise<void> {
  await house.onTarget(`CREATE TABLE public.fenced (handle text NOT NULL, began timestamptz NOT NULL);
    CREATE FUNCTION public.note_fence() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN INSERT INTO public.fenced VALUES (NEW.handle, NEW.fenced_at); RETURN NULL; END $$;
    CREATE TRIGGER note_fence AFTER UPDATE ON mayfly.handle FOR EACH ROW
    WHEN (OLD.fenced_at IS NULL AND NEW.fenced_at IS NOT NULL) EXECUTE FUNCTION public.note_fence()`);
}

const millisOf = (time: string): string => `(extract(epoch FROM ${time}) * 1000)::float8`;

/** Of grants that are all contained, since `watchFences`. */
export async function readLateness(house: House, grants: readonly string[]): Promise<Lateness> {
  const fences = await house.onTarget<{ handle: string; began: number; at: number }>(
    `SELECT handle, ${millisOf('began')} AS began, ${millisOf('pg_xact_commit_timestamp(xmin)')} AS at FROM public.fenced`,
  );
  const fenceOf = new Map(fences.map((fence) => [fence.handle, fence]));
  const rows = await house.onStore<{ handle: string; due: number; woken: number; contained: number }>(
    `SELECT g.handle, ${millisOf('g.deadline')} AS due, ${millisOf('g.ended_at')} AS woken, ${millisOf('r.contained_at')} AS contained
     FROM mayfly.revocations r JOIN mayfly.grants g ON g.id = r.grant_id WHERE r.grant_id = ANY($1)`,
    [grants],
  );
  const late = rows.flatMap(({ handle, due, woken, contained }) => {
    const fence = fenceOf.get(handle);
    return fence === undefined
      ? []
      : [{ woken: woken - due, fencing: fence.began - due, fenced: fence.at - due, contained: contained - due }];
  });
  if (late.length !== grants.length) throw new Error(`of ${grants.length} fences ${late.length} were seen`);
  return {
    woken: late.map(({ woken }) => woken),
    fencing: late.map(({ fencing }) => fencing),
    fenced: late.map(({ fenced }) => fenced),
    contained: late.map(({ contained }) => contained),
  };
}

/** `<name> p99` and `max` are to the fence's commit; the other rows say where the time goes, and to contained. */
export function latenessRows(name: string, { woken, fencing, fenced, contained }: Lateness): Row[] {
  const row = (what: string, millis: readonly number[]): Row => {
    const p99 = quantile(millis, 0.99);
    return { case: `${name}${what} p99`, value: p99, unit: 'ms', p50_ms: quantile(millis, 0.5), p99_ms: p99 };
  };
  const max = (what: string, millis: readonly number[]): Row => ({
    case: `${name}${what} max`,
    value: Math.max(...millis),
    unit: 'ms',
  });
  return [
    row('', fenced),
    max('', fenced),
    row(' woken', woken),
    row(' fencing', fencing),
    row(' contained', contained),
    max(' contained', contained),
  ];
}
