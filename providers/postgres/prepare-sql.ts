import { readFileSync } from 'node:fs';
import type { DeclaredParam } from './prepare-bound.ts';
import { block, literal } from './quote.ts';
import type { PostgresEntitlement } from './schema.ts';

export interface PrepareEntitlement {
  readonly name: string;
  /** The longest one step into the future: a grant's life, or a renewal. */
  readonly maxTtlSeconds: number;
  readonly config: PostgresEntitlement;
  /** The params that the entitlement declares; without it none is known, and their types are not checked. */
  readonly params?: Readonly<Record<string, DeclaredParam>>;
  /** What becomes of tables and sequences that its roles own at their end. Default: drop. */
  readonly onOwnedObjects?: 'drop' | 'keep';
}

/** One of the SQL files beside this. */
export function part(file: string): string {
  return readFileSync(new URL(file, import.meta.url), 'utf8');
}

/** In the right database, and not by the broker itself. */
export function rightDatabase(database: string, user: string): string {
  return block(`BEGIN
  IF current_database() <> ${literal(database)} THEN
    RAISE EXCEPTION 'this is for the database %', ${literal(database)};
  END IF;
  IF session_user = ${literal(user)} THEN
    RAISE EXCEPTION 'the broker must not prepare its own target: use an admin';
  END IF;
END`);
}
