import type { TaskId } from '../domain/ids.ts';
import type { Owner } from '../domain/task.ts';
import type { Queryable } from './database.ts';
import { ownedBy, ownerValues } from './tasks.ts';

/** Of how many it is remembered. */
const MOST_KNOWN = 10_000;

/**
 * The root of the tree that a task belongs to, for its owner: says which lock to take. Neither the root nor, once nobody can claim it
 * any more, the owner of a task ever changes, so that what was found is not looked for again.
 */
export class OwnedRoots {
  readonly #db: Queryable;
  readonly #known = new Map<string, TaskId>();

  constructor(db: Queryable) {
    this.#db = db;
  }

  /** Undefined: there is no such task of that owner. */
  async find(id: TaskId, owner: Owner): Promise<TaskId | undefined> {
    const asks = ownerValues(owner);
    const key = JSON.stringify([id, ...asks]);
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    const [row] = await this.#db.query<{ root_id: TaskId; offered: boolean }>({
      name: 'find_root_of_owned',
      text: `SELECT t.root_id, t.state = 'offered' AS offered FROM mayfly.tasks t
        WHERE t.id = $1 AND ${ownedBy({ source: '$2', subject: '$3', key: '$4::text', instance: '$5::text' })}`,
      values: [id, ...asks],
    });
    if (row === undefined || row.offered) return row?.root_id;
    this.#known.set(key, row.root_id);
    const [oldest] = this.#known.keys();
    if (this.#known.size > MOST_KNOWN && oldest !== undefined) this.#known.delete(oldest);
    return row.root_id;
  }
}
