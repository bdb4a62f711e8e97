import type { Queryable } from './database.ts';

export interface Installation {
  /** Part of the mark on everything that this broker makes in a target. */
  readonly id: string;
  /** Made by `mayfly dev`. */
  readonly dev: boolean;
}

/** Undefined when the store was migrated but never initialised. */
export async function findInstallation(db: Queryable): Promise<Installation | undefined> {
  const rows = await db.query<{ id: string; dev: boolean }>({
    text: 'SELECT id, dev FROM mayfly.installation',
    values: [],
  });
  return rows[0];
}
