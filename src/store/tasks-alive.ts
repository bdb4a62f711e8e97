import type { Queryable } from './database.ts';

/** For so long an issuer's tasks are not counted again: each open would pay for it. */
const KEPT_MILLIS = 1_000;

interface Counted {
  readonly at: number;
  /** As counted, and what this replica has let through since. */
  alive: number;
}

/**
 * How many tasks of each issuer are alive. Counted at most once a second, and anew before one is refused: so a refusal is right, and
 * replicas together may let through as many more as they open in that second.
 */
export class TasksAlive {
  readonly #db: Queryable;
  readonly #most: number;
  readonly #counted = new Map<string, Counted>();
  readonly #counting = new Map<string, Promise<Counted>>();

  /** @param most For each issuer. */
  constructor(db: Queryable, most: number) {
    this.#db = db;
    this.#most = most;
  }

  /** Whether one more may be opened; then it counts as opened. */
  async hasRoom(issuer: string): Promise<boolean> {
    const known = this.#counted.get(issuer);
    const fresh = known !== undefined && performance.now() - known.at < KEPT_MILLIS && known.alive < this.#most;
    const counted = fresh ? known : await this.#count(issuer);
    if (counted.alive >= this.#most) return false;
    counted.alive += 1;
    return true;
  }

  /** One count for all who wait for it. */
  async #count(issuer: string): Promise<Counted> {
    const counting =
      this.#counting.get(issuer) ??
      this.#readCount(issuer).finally(() => {
        this.#counting.delete(issuer);
      });
    this.#counting.set(issuer, counting);
    return await counting;
  }

  async #readCount(issuer: string): Promise<Counted> {
    const at = performance.now();
    const [row] = await this.#db.query<{ alive: number }>({
      name: 'count_tasks_alive',
      text: `SELECT count(*)::int AS alive FROM (
        SELECT FROM mayfly.tasks WHERE issuer = $1 AND state IN ('offered', 'active', 'suspended') LIMIT $2) t`,
      values: [issuer, this.#most],
    });
    const counted = { at, alive: row?.alive ?? 0 };
    this.#counted.set(issuer, counted);
    return counted;
  }
}
