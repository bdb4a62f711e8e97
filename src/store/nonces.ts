import { randomBytes } from 'node:crypto';
import type { Queryable } from './database.ts';

/** The nonce of this minute is taken, and those of so many minutes before it: each for two to three minutes. */
const MINUTES_BEFORE = 2;
/** However many nonces are not known here, the store is looked at once in this time for them. */
const UNKNOWN_COOLDOWN_MS = 1_000;

/** What proofs of possession must carry: made by us, unpredictable, and soon over. */
export interface Nonces {
  /** The one that proofs shall carry from now on. @throws MayflyError `store_unavailable` */
  current(): Promise<string>;
  /** Whether it was given lately, by any replica. @throws MayflyError `store_unavailable` */
  takes(nonce: string): Promise<boolean>;
}

interface Known {
  /** Never empty; the newest first. */
  readonly nonces: readonly [string, ...string[]];
  readonly readAt: number;
  /** Until the minute is over at the store. */
  readonly freshMs: number;
}

/** One nonce a minute for all replicas. Each asks the store once a minute, and once more when it meets one that it does not know. */
export class SharedNonces implements Nonces {
  readonly #db: Queryable;
  readonly #clock: () => number;
  #known: Known | undefined;
  #underWay: Promise<Known> | undefined;

  /** @param clock Monotonic milliseconds; only differences count. */
  constructor(db: Queryable, clock: () => number = () => performance.now()) {
    this.#db = db;
    this.#clock = clock;
  }

  async current(): Promise<string> {
    return (await this.#fresh()).nonces[0];
  }

  async takes(nonce: string): Promise<boolean> {
    const known = await this.#fresh();
    if (known.nonces.includes(nonce)) return true;
    // Another replica may have begun the next minute a moment before this one noticed.
    return this.#age(known) >= UNKNOWN_COOLDOWN_MS && (await this.#read()).nonces.includes(nonce);
  }

  async #fresh(): Promise<Known> {
    const known = this.#known;
    return known !== undefined && this.#age(known) < known.freshMs ? known : await this.#read();
  }

  #age({ readAt }: Known): number {
    return this.#clock() - readAt;
  }

  /** Joins the look under way or begins one. */
  #read(): Promise<Known> {
    this.#underWay ??= this.#load().finally(() => {
      this.#underWay = undefined;
    });
    return this.#underWay;
  }

  async #load(): Promise<Known> {
    let found = await findNonces(this.#db);
    while (!found.begun) {
      await beginMinute(this.#db, randomBytes(32).toString('base64url'));
      found = await findNonces(this.#db);
    }
    const [newest, ...before] = found.nonces;
    if (newest === undefined) throw new Error('The store did not tell the nonce that it has.');
    this.#known = { nonces: [newest, ...before], readAt: this.#clock(), freshMs: found.left_millis };
    return this.#known;
  }
}

interface Found {
  readonly [column: string]: unknown;
  readonly nonces: readonly string[];
  /** Whether this minute has its nonce yet. */
  readonly begun: boolean;
  readonly left_millis: number;
}

async function findNonces(db: Queryable): Promise<Found> {
  const [found] = await db.query<Found>({
    name: 'find_nonces',
    text: `WITH moment AS MATERIALIZED (SELECT extract(epoch FROM clock_timestamp())::float8 AS seconds),
        taken AS (SELECT t.minute, t.nonce, floor(seconds / 60) AS now FROM moment, mayfly.dpop_nonces t
          WHERE t.minute BETWEEN floor(seconds / 60) - $1 AND floor(seconds / 60))
      SELECT coalesce((SELECT array_agg(nonce ORDER BY minute DESC) FROM taken), '{}') AS nonces,
        EXISTS (SELECT 1 FROM taken WHERE minute = now) AS begun, (60 - seconds + 60 * floor(seconds / 60)) * 1000 AS left_millis
      FROM moment`,
    values: [MINUTES_BEFORE],
  });
  if (found === undefined) throw new Error('The store did not tell its clock.');
  return found;
}

/** Of replicas that begin it at once one is first, and its nonce is everyone's. */
async function beginMinute(db: Queryable, nonce: string): Promise<void> {
  const begun = await db.query({
    name: 'begin_nonce',
    text: `INSERT INTO mayfly.dpop_nonces (minute, nonce) VALUES (floor(extract(epoch FROM clock_timestamp()) / 60), $1)
      ON CONFLICT DO NOTHING RETURNING 1`,
    values: [nonce],
  });
  if (begun.length === 0) return;
  await db.query({
    name: 'forget_nonces',
    text: 'DELETE FROM mayfly.dpop_nonces WHERE minute < floor(extract(epoch FROM clock_timestamp()) / 60) - $1',
    values: [MINUTES_BEFORE],
  });
}
