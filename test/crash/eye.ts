import pg from 'pg';
import type { House } from '../support/house.ts';

/** Looks every so often. It costs the cores one query a look. */
const LOOK_MILLIS = 100;
const AGAIN_MILLIS = 200;

export interface Seen {
  readonly handle: string;
  /** It can log in, or somebody is logged in with it. */
  readonly live: boolean;
}

/** What one grant has come to, as the store says and as the target shows. */
export interface Fate {
  readonly id: string;
  readonly taskId: string;
  readonly state: string;
  readonly revocation: string;
  /** How often it was tried, and what the last failure that was told said. */
  readonly tries: string;
  /** Milliseconds from due to the last moment at which it was seen alive in the target. */
  readonly lateMillis: number;
  /** It was seen alive in the target after the store had called it contained. */
  readonly lied: boolean;
}

/**
 * Watches one house from outside: a superuser on the target, the owner on the store. Both are on one machine, so that all times
 * here are of one clock.
 */
export class Eye {
  readonly #target: pg.Client;
  #store: pg.Pool;
  readonly #lastAlive = new Map<string, number>();
  #running: Promise<void> = Promise.resolve();
  #stopped = false;

  private constructor(target: pg.Client, store: pg.Pool) {
    this.#target = target;
    this.#store = store;
  }

  static async open(house: House): Promise<Eye> {
    const target = new pg.Client({ connectionString: house.targetServer.superuserUrl(house.targetDatabase) });
    target.on('error', () => {});
    await target.connect();
    const eye = new Eye(target, ownersPool(house.store.ownerUrl.reveal()));
    eye.#running = eye.#watch();
    return eye;
  }

  async close(): Promise<void> {
    this.#stopped = true;
    await this.#running;
    await Promise.all([this.#target.end(), this.#store.end()]);
  }

  /** A query on the store, as its owner, asked until a store is there to answer. */
  async store<R extends pg.QueryResultRow>(text: string, values: unknown[] = []): Promise<R[]> {
    for (;;) {
      try {
        return (await this.#store.query<R>(text, values)).rows;
      } catch (error) {
        // 57P..: it goes down, or comes up.
        if (this.#stopped || (error instanceof pg.DatabaseError && error.code?.startsWith('57P') !== true)) throw error;
        await new Promise((resolve) => setTimeout(resolve, AGAIN_MILLIS));
      }
    }
  }

  /** Looks at the store there from now on. */
  async follow(url: string): Promise<void> {
    const before = this.#store;
    this.#store = ownersPool(url);
    await before.end();
  }

  /** A superuser's query on the target. */
  async target<R extends pg.QueryResultRow>(text: string, values: unknown[] = []): Promise<R[]> {
    return (await this.#target.query<R>(text, values)).rows;
  }

  /** Every identity of this house that stands in the target, or has a session left there. */
  async look(): Promise<Seen[]> {
    // The time before the look: what is seen was alive then or later.
    const rows = await this.target<Seen & { at: number }>(
      `SELECT h.handle, extract(epoch FROM statement_timestamp())::float8 * 1000 AS at, s.open
          OR coalesce(r.rolcanlogin AND (r.rolvaliduntil IS NULL OR r.rolvaliduntil > clock_timestamp()), false) AS live
        FROM (
          SELECT handle, role_oid FROM mayfly.handle UNION ALL
          -- What bears the mark of this house, and is in no registry.
          SELECT 'mfy_' || replace(split_part(d.description, ':', 4), '-', ''), d.objoid FROM pg_shdescription d, mayfly.installation i
          WHERE d.classoid = 'pg_authid'::regclass AND d.description LIKE 'mayfly:1:' || i.id || ':%'
            AND NOT EXISTS (SELECT FROM mayfly.handle h WHERE h.role_oid = d.objoid)) h
          LEFT JOIN pg_roles r ON r.oid = h.role_oid OR r.rolname = h.handle
          CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM pg_stat_activity a WHERE a.usesysid = h.role_oid) AS open) s
        WHERE r.oid IS NOT NULL OR s.open`,
    );
    for (const { handle, live, at } of rows) if (live) this.#lastAlive.set(handle, at);
    return rows;
  }

  /** What became of the grants of these tasks, or of all. */
  async fates(taskIds?: readonly string[]): Promise<Fate[]> {
    await this.look();
    const rows = await this.store<{
      id: string;
      task_id: string;
      state: string;
      revocation: string;
      tries: string;
      handle: string;
      due: number;
      contained: number | null;
    }>(
      `SELECT g.id, g.task_id, g.state, r.state AS revocation, g.handle,
         r.attempts || coalesce(', ' || (SELECT e.payload->>'says' FROM mayfly.audit_events e WHERE e.grant_id = g.id AND e.type = 'revocation.attempted'
           ORDER BY e.ts DESC LIMIT 1), '') AS tries, extract(epoch FROM r.due_at)::float8 * 1000 AS due,
         extract(epoch FROM r.contained_at)::float8 * 1000 AS contained
       FROM mayfly.grants g JOIN mayfly.revocations r ON r.grant_id = g.id WHERE $1::uuid[] IS NULL OR g.task_id = ANY ($1)`,
      [taskIds ?? null],
    );
    return rows.map(({ id, task_id: taskId, state, revocation, tries, handle, due, contained }) => {
      const alive = this.#lastAlive.get(handle) ?? 0;
      return {
        ...{ id, taskId, state, revocation, tries },
        lateMillis: Math.max(0, alive - due),
        lied: contained !== null && alive > contained,
      };
    });
  }

  /** What must not be: identities in the target that the store does not know, and ended grants that are not clean, nor written off. */
  async leftBehind(): Promise<string[]> {
    const [seen, fates] = [await this.look(), await this.fates()];
    const known = new Set(fates.map(({ id }) => `mfy_${id.replaceAll('-', '')}`));
    return [
      ...seen.map(
        ({ handle }) => `${handle} is in the target${known.has(handle) ? '' : ', and the store does not know it'}`,
      ),
      ...fates
        .filter(
          ({ state, revocation }) => (state !== 'revoked' || revocation !== 'clean') && revocation !== 'written_off',
        )
        .map(({ id, state, revocation, tries }) => `${id} is ${state}, its revocation ${revocation} (tried ${tries})`),
    ];
  }

  async #watch(): Promise<void> {
    while (!this.#stopped) {
      await this.look();
      await new Promise((resolve) => setTimeout(resolve, LOOK_MILLIS));
    }
  }
}

function ownersPool(connectionString: string): pg.Pool {
  const pool = new pg.Pool({ connectionString, max: 2, connectionTimeoutMillis: 5_000 });
  pool.on('error', () => {});
  return pool;
}
