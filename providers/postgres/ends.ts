import type { Ref } from '../../src/provider.ts';
import { oidOf, strayed } from './handle.ts';
import type { Target } from './target.ts';

/**
 * When each role can log in no more, as the cluster itself says: a renewal has told it first. Null for a role that is not there. No
 * renewal takes an end away: where somebody else did, it is the deadline.
 */
export async function ends(
  target: Target,
  refs: readonly Ref[],
  signal: AbortSignal,
): Promise<readonly (Date | null)[]> {
  return target.revoking.useTwice(signal, async ({ connection, status }) => {
    const rows = await connection.query<{ oid: number; name: string; until: number | null }>(
      'reading ends',
      `SELECT oid, rolname AS name, extract(epoch FROM rolvaliduntil)::float8 * 1000 AS until FROM pg_roles
       WHERE oid = ANY($1::oid[]) OR rolname = ANY($2::text[])`,
      [refs.flatMap(({ facts }) => oidOf(facts) ?? []), refs.map(({ handle }) => handle)],
      signal,
    );
    return refs.map((ref) => {
      const oid = oidOf(ref.facts);
      const row = rows.find((one) => (oid === null ? one.name === ref.handle : one.oid === oid));
      if (strayed(ref, status) !== null || row === undefined) return null;
      return row.until !== null && Number.isFinite(row.until)
        ? target.clock.fromTarget(new Date(row.until))
        : ref.deadline;
    });
  });
}
