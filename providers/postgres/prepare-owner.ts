import type { PreparedBy } from '../../src/provider.ts';
import { block, literal } from './quote.ts';

/**
 * SQL that makes the installation the owner of the target, or refuses. Adopting begins a new tenure: connections of the owner
 * before it can do nothing more from then on.
 */
export function owner(
  installation: string,
  { adopt = false, by }: { readonly adopt?: boolean; readonly by?: PreparedBy },
): string {
  const id = `${literal(installation)}::uuid`;
  const store = by === undefined ? 'NULL' : literal(by.store);
  const tenure = by?.tenure === undefined ? 'NULL' : `${literal(by.tenure)}::uuid`;
  const take = `UPDATE ${newOwner}, store = ${store}, tenure = ${tenure}, beat = 0;
  UPDATE mayfly.handle SET installation = ${id} WHERE installation <> ${id}`;
  return block(`BEGIN
  ${settle(id, adopt || by?.tenure !== undefined ? take : 'NOTHING')}
  IF EXISTS (SELECT FROM mayfly.installation i WHERE i.store <> ${store}) THEN
    RAISE EXCEPTION 'this target is held by another store of the same installation: is this one a copy?'
      USING HINT = 'Only if that one is gone: mayfly target adopt';
  END IF;
END`);
}

/** The same for another database of the cluster, which has no registry. */
export function ownerElsewhere(installation: string, adopt: boolean): string {
  return block(`BEGIN
  ${settle(`${literal(installation)}::uuid`, adopt ? `UPDATE ${newOwner}` : 'NOTHING')}
END`);
}

const newOwner = 'SET id = excluded.id, epoch = i.epoch + 1, since = clock_timestamp()';

function settle(id: string, conflict: string): string {
  return `INSERT INTO mayfly.installation AS i (id) VALUES (${id}) ON CONFLICT (only_one) DO ${conflict};
  IF NOT EXISTS (SELECT FROM mayfly.installation i WHERE i.id = ${id}) THEN
    RAISE EXCEPTION 'this target belongs to installation %', (SELECT i.id FROM mayfly.installation i)
      USING HINT = 'Only if that one is gone: mayfly target adopt';
  END IF;`;
}
