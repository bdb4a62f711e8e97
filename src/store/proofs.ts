import { createHash } from 'node:crypto';
import { Coalescer } from './coalescer.ts';
import type { Queryable } from './database.ts';

/**
 * How long a proof is remembered after its use, in seconds. A replica takes it for at most 120 s from its first use by its own clock;
 * the rest is for replicas whose clocks differ from each other's.
 */
const KEPT_SECONDS = 300;

/** One proof, told from all others by its key and that key's own name for it. */
export interface UsedProof {
  readonly jkt: string;
  readonly jti: string;
}

/** Proofs of possession that were used, at any replica. */
export interface Proofs {
  /** True for the first use alone. */
  spend(proof: UsedProof): Promise<boolean>;
}

/** What comes at the same moment shares a statement and its commit. */
export function coalescedProofs(db: Queryable): Proofs {
  const spending = new Coalescer((digests: readonly string[]) => spendEach(db, digests));
  return { spend: (proof) => spending.call(digestOf(proof)) };
}

/** A thumbprint has one length and no space: no other pair has this digest. */
function digestOf({ jkt, jti }: UsedProof): string {
  return createHash('sha256').update(`${jkt} ${jti}`).digest('hex');
}

async function spendEach(db: Queryable, digests: readonly string[]): Promise<boolean[]> {
  const rows = await db.query<{ digest: string }>({
    name: 'spend_proofs',
    // In their order, so that two such statements do not wait for each other.
    text: `INSERT INTO mayfly.dpop_proofs (digest, forget_at)
      SELECT decode(asked, 'hex'), clock_timestamp() + make_interval(secs => $2) FROM unnest($1::text[]) asked ORDER BY asked
      ON CONFLICT DO NOTHING RETURNING encode(digest, 'hex') AS digest`,
    values: [digests, KEPT_SECONDS],
  });
  const first = new Set(rows.map(({ digest }) => digest));
  // Said twice at once, the first one counts.
  return digests.map((digest) => first.delete(digest));
}

/** Forgets proofs that no replica takes any more, at most so many. Answers how many. */
export async function forgetProofs(db: Queryable, limit: number): Promise<number> {
  const rows = await db.query({
    name: 'forget_proofs',
    text: `DELETE FROM mayfly.dpop_proofs WHERE digest = ANY (ARRAY(
        SELECT digest FROM mayfly.dpop_proofs WHERE forget_at <= (SELECT clock_timestamp())
        ORDER BY forget_at LIMIT $1 FOR UPDATE SKIP LOCKED)) RETURNING 1`,
    values: [limit],
  });
  return rows.length;
}
