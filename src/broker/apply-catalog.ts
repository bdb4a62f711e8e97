import type { Catalog, Webhook } from '../catalog/types.ts';
import { MayflyError } from '../domain/errors.ts';
import { familyOf } from '../domain/news.ts';
import { step } from '../domain/step.ts';
import {
  type AppliedRevision,
  type Enforcement,
  findActiveRevisionNumber,
  findRevision,
  insertActiveRevision,
  readActiveRevision,
  type StoredRevision,
} from '../store/catalog-revisions.ts';
import type { Database, Transaction } from '../store/database.ts';
import { type DeclaredWebhook, declareWebhooks } from '../store/webhooks.ts';
import { countLiving, foreseeDrift, type Guard, requireLittleDrift } from './foresee-drift.ts';

export interface ApplyDeps {
  readonly db: Database;
  readonly published: () => Promise<void>;
}

export interface ApplyOptions {
  /** The active revision that the caller looked at, or null for "none"; absent: whatever it is. */
  readonly expected?: number | null;
  /** Default: `revoke`. */
  readonly enforce?: Enforcement;
  /** Absent: however much of what lives it ends. */
  readonly guard?: Guard;
  readonly commit?: string | null;
  readonly signature?: string | null;
  /**
   * Asked in the transaction, behind its lock, before anything is written. Answers what the evidence is to say besides; undefined:
   * nothing is applied.
   * @param before The active revision.
   */
  readonly admit?: (
    tx: Transaction,
    before: StoredRevision | undefined,
  ) => Promise<Readonly<Record<string, unknown>> | undefined>;
}

/**
 * Makes a checked catalog the active revision, whole, in one transaction. Births wait for it and then see it.
 * @returns null when exactly this catalog is active already, and enforced in that way; or it was not admitted.
 * @throws MayflyError `catalog_changed` when another revision became active meanwhile, `too_much_drift`
 */
export async function applyCatalog(
  deps: ApplyDeps,
  catalog: Catalog,
  by: string,
  requestId: string,
  { expected, enforce = 'revoke', guard, admit, commit = null, signature = null }: ApplyOptions = {},
): Promise<AppliedRevision | null> {
  const standing = await readActiveRevision(deps.db);
  if (standing?.digest === catalog.digest && standing.enforce === enforce) return null;
  // Before anybody has to wait. What is born from here to the commit is decided again all the same.
  const foreseen = guard && (await foreseeDrift(deps.db, catalog));
  if (guard !== undefined && foreseen !== undefined) requireLittleDrift(foreseen, guard);
  const applied = await deps.db.transaction({ catalog: 'exclusive' }, async (tx) => {
    const before = await findActiveRevisionNumber(tx);
    if (expected !== undefined && before !== expected) throw new MayflyError('catalog_changed');
    const active = before === null ? undefined : await findRevision(tx, before);
    if (active?.digest === catalog.digest && active.enforce === enforce) return null;
    const more = admit === undefined ? {} : await admit(tx, active);
    if (more === undefined) return null;
    const provenance = { appliedBy: by, commit, signature };
    const revision = await insertActiveRevision(tx, catalog.digest, catalog.files, provenance, enforce);
    await declareWebhooks(tx, revision.number, catalog.webhooks.map(asDeclared));
    tx.record({
      type: 'catalog.applied',
      agent: 'none',
      subject: by,
      resource: 'catalog',
      action: 'apply',
      decision: 'none',
      correlationId: requestId,
      posture: 'unknown',
      cause: 'none',
      taskId: null,
      grantId: null,
      decisionId: null,
      txn: null,
      policyDigest: catalog.digest,
      payload: {
        ...{ revision: revision.number, before, enforce, ...more },
        ...(commit !== null && { commit }),
        ...(foreseen && { living: countLiving(foreseen), would_end: foreseen.ends.length }),
      },
    });
    step('apply.before');
    return revision;
  });
  step('apply.after');
  if (applied === null) return null;
  step('publish.before');
  await deps.published();
  step('publish.after');
  return applied;
}

function asDeclared({ name, events, targets }: Webhook): DeclaredWebhook {
  return {
    ...{ name, targets },
    types: events.filter((pattern) => familyOf(pattern) === undefined),
    families: events.flatMap((pattern) => familyOf(pattern) ?? []),
  };
}
