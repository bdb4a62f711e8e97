import pg from 'pg';
import type { AuditEvent } from '../domain/audit-event.ts';
import { MayflyError } from '../domain/errors.ts';
import type { TaskId } from '../domain/ids.ts';
import type { Secret } from '../domain/secret.ts';
import { auditRows } from './audit-rows.ts';
import { acquireLocks, type Locks } from './locks.ts';

type Row = Record<string, unknown>;
type DecisionRow = Readonly<Record<string, unknown>>;

/** A row of what `mayfly.task_uses` counts. */
export interface TaskUse {
  readonly root_id: TaskId;
  readonly task_id: TaskId;
  readonly permitted: boolean;
}

/** What a repository needs: one statement, bound values. */
export interface Queryable {
  query<R extends Row>(statement: Statement): Promise<R[]>;
}

/** `name` makes it a prepared statement of the connection; leave it out for rare ones. */
export interface Statement {
  readonly name?: string;
  readonly text: string;
  readonly values: readonly unknown[];
}

/** One transaction. Its events are written just before COMMIT: if they cannot be, nothing happens. */
export interface Transaction extends Queryable {
  /** The store's clock, read after the locks. */
  readonly now: Date;
  record(event: AuditEvent): void;
  /** A row of `mayfly.decisions`, written with the events in one statement. */
  decided(row: DecisionRow): void;
  /** An evaluation of a task, counted in the same statement. */
  used(use: TaskUse): void;
  /** Wakes whoever waits for this task, after the commit. */
  changed(taskId: TaskId): void;
}

export interface DatabaseOptions {
  readonly url: Secret<string>;
  readonly connections: number;
  readonly onError: (error: unknown) => void;
  readonly onChanged?: (taskIds: ReadonlySet<TaskId>) => void;
}

/** The store's connection pool, as the runtime login. */
export class Database implements Queryable {
  readonly #pool: pg.Pool;
  readonly #onChanged: (taskIds: ReadonlySet<TaskId>) => void;

  constructor(options: DatabaseOptions) {
    this.#pool = new pg.Pool({
      connectionString: options.url.reveal(),
      max: options.connections,
      connectionTimeoutMillis: 5_000,
      idleTimeoutMillis: 30_000,
      keepAlive: true,
      keepAliveInitialDelayMillis: 10_000,
      // The server's own time-outs do not help when its answer is lost on the way: the connection is then given up.
      query_timeout: 20_000,
      // A client of ours that hangs must not hold locks for ever.
      options:
        '-c statement_timeout=15s -c lock_timeout=10s -c idle_in_transaction_session_timeout=15s -c search_path=mayfly -c default_transaction_isolation=read\\ committed -c synchronous_commit=on',
    });
    this.#pool.on('error', options.onError);
    this.#pool.on('connect', (client) => client.on('error', options.onError));
    this.#onChanged = options.onChanged ?? (() => {});
  }

  async query<R extends Row>(statement: Statement): Promise<R[]> {
    try {
      const result = await this.#pool.query<R>({ ...statement, values: [...statement.values] });
      return result.rows;
    } catch (error) {
      throw storeError(error);
    }
  }

  /**
   * Runs `body` between BEGIN and COMMIT, holding `locks` from the first statement on. The body must do nothing slow
   * and nothing remote but its own statements.
   * @throws MayflyError `store_unavailable` when the store cannot be reached or fails over.
   */
  async transaction<T>(locks: Locks, body: (tx: Transaction) => Promise<T>): Promise<T> {
    const client = await this.#pool.connect().catch((error: unknown) => {
      throw storeError(error);
    });
    const tx = new OpenTransaction(client);
    let broken: Error | boolean | undefined;
    try {
      await tx.begin(locks);
      const answer = await body(tx);
      await tx.commit();
      if (tx.changedTasks.size > 0) this.#onChanged(tx.changedTasks);
      return answer;
    } catch (error) {
      // After a time-out of ours the connection still waits for its answer: nothing more can be asked on it.
      if (isTimeout(error)) broken = true;
      else {
        await client.query('ROLLBACK').catch((failure: Error) => {
          broken = failure;
        });
      }
      throw storeError(error);
    } finally {
      client.release(broken);
    }
  }

  /** Wakes whoever waits for these tasks: what a transaction does by itself, for a statement that is one. */
  announce(taskIds: Iterable<TaskId>): void {
    const ids = new Set(taskIds);
    if (ids.size > 0) this.#onChanged(ids);
  }

  async close(): Promise<void> {
    await this.#pool.end();
  }
}

class OpenTransaction implements Transaction {
  readonly #client: pg.PoolClient;
  readonly #events: AuditEvent[] = [];
  readonly #decisions: DecisionRow[] = [];
  readonly #uses: TaskUse[] = [];
  readonly changedTasks = new Set<TaskId>();
  now = new Date(0);

  constructor(client: pg.PoolClient) {
    this.#client = client;
  }

  async begin(locks: Locks): Promise<void> {
    // One round trip. The clock is read by a statement of its own after the locks are held.
    const results: unknown = await this.#client.query(`BEGIN; ${acquireLocks(locks)} SELECT clock_timestamp() AS now`);
    const last: unknown = Array.isArray(results) ? results.at(-1) : undefined;
    const now: unknown = isResult(last) ? last.rows[0]?.['now'] : undefined;
    if (!(now instanceof Date)) throw new Error('The store did not tell its clock.');
    this.now = now;
  }

  async query<R extends Row>(statement: Statement): Promise<R[]> {
    const result = await this.#client.query<R>({ ...statement, values: [...statement.values] });
    return result.rows;
  }

  record(event: AuditEvent): void {
    this.#events.push(event);
  }

  decided(row: DecisionRow): void {
    this.#decisions.push(row);
  }

  used(use: TaskUse): void {
    this.#uses.push(use);
  }

  changed(taskId: TaskId): void {
    this.changedTasks.add(taskId);
  }

  async commit(): Promise<void> {
    const writes: Promise<unknown>[] =
      this.#events.length + this.#decisions.length + this.#uses.length > 0
        ? [this.#client.query(insertEvidence(this.#events, this.#decisions, this.#uses, this.now))]
        : [];
    // Sent without waiting for the insert: if that fails, COMMIT answers ROLLBACK.
    const committed = this.#client.query('COMMIT');
    await Promise.all([...writes, committed]);
    if ((await committed).command !== 'COMMIT') throw new Error('The transaction was rolled back.');
  }
}

const INSERT_EVENTS =
  'INSERT INTO mayfly.audit_events SELECT * FROM jsonb_populate_recordset(NULL::mayfly.audit_events, $1)';
const DECIDED =
  'id, task_id, action, resource, permitted, policies, errors, max_ttl_seconds, revision, inputs, decided_at';

/** A connection always counts in the same of so many rows: two calls of one task mostly do not wait for each other's commit. */
const COUNTED = `counted AS (INSERT INTO mayfly.task_uses AS u
        SELECT n.root_id, n.task_id, pg_backend_pid() % 8, count(*), count(*) FILTER (WHERE n.permitted)
        FROM jsonb_to_recordset($3) AS n (root_id uuid, task_id uuid, permitted boolean) GROUP BY n.root_id, n.task_id
        ON CONFLICT (root_id, task_id, slot) DO UPDATE SET asked = u.asked + excluded.asked, permitted = u.permitted + excluded.permitted)`;

function insertEvidence(
  events: readonly AuditEvent[],
  decisions: readonly DecisionRow[],
  uses: readonly TaskUse[],
  now: Date,
): { name: string; text: string; values: unknown[] } {
  const rows = JSON.stringify(auditRows(events, now));
  if (decisions.length + uses.length === 0) return { name: 'insert_audit_events', text: INSERT_EVENTS, values: [rows] };
  return {
    name: 'insert_decisions_and_events',
    text: `WITH decided AS (INSERT INTO mayfly.decisions (${DECIDED}) SELECT ${DECIDED} FROM jsonb_populate_recordset(NULL::mayfly.decisions, $2)),
      ${COUNTED}
      ${INSERT_EVENTS}`,
    values: [rows, JSON.stringify(decisions), JSON.stringify(uses)],
  };
}

function isResult(value: unknown): value is { rows: Row[] } {
  return typeof value === 'object' && value !== null && 'rows' in value && Array.isArray(value.rows);
}

function isTimeout(error: unknown): boolean {
  return error instanceof Error && error.message === 'Query read timeout';
}

/** SQLSTATE classes that mean "not now": connection, resources, operator intervention, lock not available. */
const UNAVAILABLE = /^(08|53|57|58|55P03|40|25006)/;

export function storeError(error: unknown): unknown {
  if (!(error instanceof Error) || error instanceof MayflyError) return error;
  const code = 'code' in error && typeof error.code === 'string' ? error.code : '';
  // Errors of node:net carry codes like ECONNREFUSED; pg's own time-outs carry none and say so in words.
  const network =
    /^E[A-Z]+$/.test(code) || (code === '' && /timeout|terminated|closed|ended|not queryable/i.test(error.message));
  return network || UNAVAILABLE.test(code) ? new MayflyError('store_unavailable', undefined, { cause: error }) : error;
}
