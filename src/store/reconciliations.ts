import type { Queryable, Transaction } from './database.ts';

/** What one run found, in counts. Written to the row of its target for whoever asked, and to the evidence. */
export interface ReconcileResult {
  /** `unlisted`: the target says nothing about what is in it. */
  readonly outcome: 'done' | 'failed' | 'stranger' | 'unlisted';
  readonly says: string;
  /** Credentials listed. */
  readonly listed: number;
  /** Unknown here: revoked now. */
  readonly orphans: number;
  /** Unknown here, and not yet older than any mint in flight. */
  readonly waiting: number;
  readonly lost: number;
  readonly returned: number;
  readonly drifted: number;
  readonly unverified: number;
  /** Their credentials were changed in the target: ended now. */
  readonly changed: number;
  /** The same, and too many at once to be believed: left alone. */
  readonly held: number;
  /** The target said nothing of them that could be compared. */
  readonly uninspected: number;
}

export interface RunClaim {
  readonly target: string;
  readonly number: bigint;
  /** The store's clock when it began. */
  readonly startedAt: Date;
}

/**
 * Makes the targets known to the schedule, each to be looked at now; one that another has in hand is looked at once more after.
 */
export async function requestRuns(db: Queryable, targets: readonly string[]): Promise<Date> {
  const rows = await db.query<{ asked_at: Date }>({
    name: 'request_reconciliations',
    text: `WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now), asked AS (
        INSERT INTO mayfly.reconciliations AS r (target, next_at, asked_at) SELECT t, now, now FROM unnest($1::text[]) t, clock
        ON CONFLICT (target) DO UPDATE SET next_at = least(r.next_at, excluded.next_at), asked_at = excluded.asked_at)
      SELECT now AS asked_at FROM clock`,
    values: [targets],
  });
  return rows[0]?.asked_at ?? new Date(0);
}

/** Claims one of the targets whose time has come and that nobody has in hand. */
export async function claimRun(
  db: Queryable,
  targets: readonly string[],
  worker: string,
  leaseSeconds: number,
): Promise<RunClaim | undefined> {
  const rows = await db.query<{ target: string; claim_number: string; started_at: Date }>({
    name: 'claim_reconciliation',
    text: `WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now), ready AS (
        SELECT target FROM mayfly.reconciliations, clock
        WHERE target = ANY($1) AND next_at <= now AND coalesce(claimed_until <= now, true)
        ORDER BY next_at LIMIT 1 FOR UPDATE OF reconciliations SKIP LOCKED)
      UPDATE mayfly.reconciliations r SET claim_number = nextval('mayfly.claim_numbers'), claimed_by = $2, started_at = now,
        claimed_until = now + make_interval(secs => $3), run_timeline = mayfly.current_timeline()
      FROM ready, clock WHERE r.target = ready.target RETURNING r.target, r.claim_number, r.started_at`,
    values: [targets, worker, leaseSeconds],
  });
  const [row] = rows;
  return row && { target: row.target, number: BigInt(row.claim_number), startedAt: row.started_at };
}

/**
 * Holds the run's claim for `leaseSeconds` from now; in a transaction until its end too: what a run writes, it writes behind this.
 * @returns false when another has taken over.
 */
export async function keepRun(db: Queryable, claim: RunClaim, leaseSeconds: number): Promise<boolean> {
  const rows = await db.query({
    name: 'keep_reconciliation',
    text: `UPDATE mayfly.reconciliations SET claimed_until = clock_timestamp() + make_interval(secs => $3)
      WHERE target = $1 AND claim_number = $2 AND claimed_until IS NOT NULL RETURNING target`,
    values: [claim.target, String(claim.number), leaseSeconds],
  });
  return rows.length > 0;
}

/**
 * Ends a run. The next is in `nextSeconds`, or at once when it was asked for since this one began.
 * @param reconciled Nothing in the target is unknown any more: it may be issued there, if this is the timeline that the run began on.
 * @returns what the run before came to, null for the first one; undefined when another has taken over.
 */
export async function finishRun(
  tx: Transaction,
  claim: RunClaim,
  result: ReconcileResult,
  nextSeconds: number,
  reconciled: boolean,
): Promise<ReconcileResult | null | undefined> {
  const rows = await tx.query<{ before: ReconcileResult | null }>({
    name: 'finish_reconciliation',
    text: `WITH held AS (
        SELECT target, result FROM mayfly.reconciliations WHERE target = $1 AND claim_number = $2 AND claimed_until IS NOT NULL FOR UPDATE)
      UPDATE mayfly.reconciliations r SET claimed_by = NULL, claimed_until = NULL, finished_at = $3, result = $4,
        next_at = CASE WHEN asked_at > started_at THEN $3 ELSE $3::timestamptz + make_interval(secs => $5) END,
        reconciled_timeline = CASE WHEN $6 THEN run_timeline ELSE reconciled_timeline END
      FROM held h WHERE r.target = h.target RETURNING h.result AS before`,
    values: [claim.target, String(claim.number), tx.now, JSON.stringify(result), nextSeconds, reconciled],
  });
  return rows[0]?.before;
}

/** Where the comparisons of one target stand. Times by the store's clock. */
export interface Reconciliation {
  readonly target: string;
  /** When it was last asked for: by a person, at a start, or by a catalog that brought the target. */
  readonly askedAt: Date | null;
  /** Of the last run, or of the one under way. */
  readonly startedAt: Date | null;
  readonly finishedAt: Date | null;
  /** Who has it in hand now. */
  readonly worker: string | null;
  readonly nextAt: Date;
  /** Of the last run that is over. */
  readonly result: ReconcileResult | null;
}

/** Of those of the targets that were ever to be compared. */
export async function findReconciliations(db: Queryable, targets: readonly string[]): Promise<Reconciliation[]> {
  const rows = await db.query<{
    target: string;
    asked_at: Date | null;
    started_at: Date | null;
    finished_at: Date | null;
    worker: string | null;
    next_at: Date;
    result: ReconcileResult | null;
  }>({
    name: 'find_reconciliations',
    text: `SELECT target, asked_at, started_at, finished_at, CASE WHEN claimed_until > clock_timestamp() THEN claimed_by END AS worker, next_at, result
      FROM mayfly.reconciliations WHERE target = ANY($1)`,
    values: [targets],
  });
  return rows.map((row) => ({
    target: row.target,
    askedAt: row.asked_at,
    startedAt: row.started_at,
    finishedAt: row.finished_at,
    worker: row.worker,
    nextAt: row.next_at,
    result: row.result,
  }));
}
