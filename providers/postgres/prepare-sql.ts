import { literal } from './quote.ts';
import type { PostgresEntitlement } from './schema.ts';

export interface PrepareEntitlement {
  readonly name: string;
  /** The longest one step into the future: a grant's life, or a renewal. */
  readonly maxTtlSeconds: number;
  readonly config: PostgresEntitlement;
  /** What becomes of tables and sequences that its roles own at their end. Default: drop. */
  readonly onOwnedObjects?: 'drop' | 'keep';
}

/** A DO block whose delimiter does not occur in it, whatever the names in it are. */
export function block(body: string): string {
  let tag = '$mayfly$';
  for (let count = 1; body.includes(tag); count += 1) {
    tag = `$mayfly${count}$`;
  }
  return `DO ${tag}\n${body}\n${tag};`;
}

/** Whose the database is: the first to prepare it, unless it is adopted. `handles`: those go along. */
export function owner(installation: string, adopt: boolean, handles = true): string {
  const id = `${literal(installation)}::uuid`;
  const take = `UPDATE SET id = excluded.id, epoch = i.epoch + 1, since = clock_timestamp() WHERE i.id <> excluded.id${
    handles ? `;\n  UPDATE mayfly.handle SET installation = ${id} WHERE installation <> ${id}` : ''
  }`;
  return block(`BEGIN
  INSERT INTO mayfly.installation AS i (id) VALUES (${id}) ON CONFLICT (only_one) DO ${adopt ? take : 'NOTHING'};
  IF NOT EXISTS (SELECT FROM mayfly.installation i WHERE i.id = ${id}) THEN
    RAISE EXCEPTION 'this target belongs to installation %', (SELECT i.id FROM mayfly.installation i)
      USING HINT = 'Only if that one is gone: mayfly target adopt';
  END IF;
END`);
}
