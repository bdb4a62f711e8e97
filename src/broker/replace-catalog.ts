import { changeControlOf } from '../catalog/change-control.ts';
import type { ChangeControl, Catalog } from '../catalog/types.ts';
import type { AuditEvent } from '../domain/audit-event.ts';
import { MayflyError } from '../domain/errors.ts';
import { type CatalogKeys, requireFresh } from '../identity/catalog-signature.ts';
import type { Caller } from '../identity/types.ts';
import type { AppliedRevision, Enforcement, StoredRevision } from '../store/catalog-revisions.ts';
import type { Transaction } from '../store/database.ts';
import type { AwaitsSecond } from '../store/second-person.ts';
import { type ApplyDeps, applyCatalog } from './apply-catalog.ts';
import type { BrokerDeps, CallContext } from './deps.ts';
import { requireEverywhere, requireRole } from './operator-scope.ts';
import { requireRevision, revisionOf } from './revision.ts';
import { agree, personOf } from './second-person.ts';
import { validated } from './what-if.ts';

export interface Replacement {
  readonly enforce: Enforcement;
  /** So many living grants are meant to end. */
  readonly expectRevoked: number | null;
  /** Where the files come from. What is signed says so itself. */
  readonly commit: string | null;
  /** Of whoever vouches for it. */
  readonly signature: string | null;
  /** Why it may be older than what is in force. */
  readonly allowRollback: string | null;
}

export type Replaced =
  | { readonly kind: 'applied'; readonly revision: AppliedRevision }
  /** Exactly this is in force. */
  | { readonly kind: 'same' }
  | { readonly kind: 'awaits'; readonly awaits: AwaitsSecond };

/** Whoever has the store itself, and no name that anybody vouches for. */
export interface Direct {
  readonly by: string;
  /** Why four eyes, and a signature where the one in force has one, are gone without. */
  readonly breakGlass: string | null;
}

interface Rules {
  readonly keys: CatalogKeys | null;
  readonly maxDriftShare: number;
}

/**
 * Puts a catalog in force for an operator.
 * @throws MayflyError `operator_only` unless the role holds everywhere, `catalog_invalid`, `catalog_changed`, `catalog_rollback`,
 * `catalog_signature_…`, `too_much_drift`, `second_person_needed`, `comparison_running`
 */
export async function replaceCatalog(
  deps: BrokerDeps,
  caller: Caller,
  files: Readonly<Record<string, string>>,
  replacement: Replacement,
  context: CallContext,
): Promise<Replaced> {
  const active = revisionOf(deps, caller);
  requireEverywhere(requireRole(deps, caller, 'admin'));
  const person = personOf(active.catalog, caller);
  const { proposals } = deps;
  const replaced = await proposals.turn.run(async () => {
    const next = validated(proposals.check(files));
    const apply = { db: deps.db, published: proposals.published };
    return await put(apply, proposals, next, person.name, replacement, {
      requestId: context.requestId,
      expected: active.number,
      admit: async (tx, before, said) => {
        requireRevision(active, before?.number ?? null);
        // A replica without keys can not tell: those that have some would refuse what it takes.
        if (proposals.keys === null && wasSigned(before)) throw new MayflyError('catalog_signature_missing');
        if (!controlOf(before).fourEyes.includes('apply')) return { kind: 'admitted', told: {} };
        const asked = {
          operation: 'apply',
          resource: `catalog ${next.digest}`,
          said: [before?.number, ...said],
        } as const;
        const agreed = await agree(deps, tx, person, asked, context);
        return 'awaits' in agreed
          ? { kind: 'awaits', awaits: agreed.awaits }
          : { kind: 'admitted', told: { first_person: agreed.first.name } };
      },
    });
  });
  if (replaced.kind === 'applied') await deps.catalog.refresh();
  return replaced;
}

/**
 * The same for whoever has the store itself: that is more than any rule can keep. It is told what was overridden.
 * @param expected The revision that was looked at; null: none.
 */
export async function replaceDirectly(
  deps: ApplyDeps & Rules,
  next: Catalog,
  { by, breakGlass }: Direct,
  replacement: Replacement,
  expected: number | null,
): Promise<Replaced> {
  return await put(deps, deps, next, by, replacement, {
    ...{ requestId: 'cli', expected },
    admit: async (tx, before) => {
      const forTwo = controlOf(before).fourEyes.includes('apply');
      // Where there are keys, it was verified before this.
      const unsigned = deps.keys === null && wasSigned(before);
      if (breakGlass === null && forTwo) throw new MayflyError('second_person_needed');
      if (breakGlass === null && unsigned) throw new MayflyError('catalog_signature_missing');
      if (breakGlass === null || !(forTwo || unsigned)) return { kind: 'admitted', told: {} };
      const overridden = [...(forTwo ? ['four_eyes'] : []), ...(unsigned ? ['signature'] : [])];
      tx.record(overriddenEvent(by, next, overridden, breakGlass, 'cli'));
      return { kind: 'admitted', told: { break_glass: breakGlass } };
    },
  });
}

type Admitted =
  | { readonly kind: 'awaits'; readonly awaits: AwaitsSecond }
  | { readonly kind: 'admitted'; readonly told: Told };
/** What the evidence says besides. */
type Told = Readonly<Record<string, unknown>>;

interface Putting {
  readonly requestId: string;
  readonly expected: number | null;
  /** @param said All that was asked for. */
  readonly admit: (tx: Transaction, before: StoredRevision | undefined, said: readonly unknown[]) => Promise<Admitted>;
}

async function put(
  deps: ApplyDeps,
  { keys, maxDriftShare }: Rules,
  next: Catalog,
  by: string,
  replacement: Replacement,
  { requestId, expected, admit }: Putting,
): Promise<Replaced> {
  const { enforce, expectRevoked, signature, allowRollback } = replacement;
  const manifest = keys === null ? null : await keys.verify(signature, next);
  const commit = replacement.commit ?? manifest?.commit ?? null;
  if (manifest !== null && commit !== manifest.commit)
    throw new MayflyError('catalog_signature_mismatch', 'Commit: it is another one than the signature names.');
  let awaits: AwaitsSecond | undefined;
  const revision = await applyCatalog(deps, next, by, requestId, {
    // What nobody verified vouches for nothing.
    ...{ expected, enforce, commit, signature: manifest === null ? null : signature },
    // Nothing ends by a report.
    ...(enforce === 'report' ? {} : { guard: { maxDriftShare, expectRevoked } }),
    admit: async (tx, before) => {
      if (manifest !== null) requireFresh(manifest, tx.now);
      const back = before !== undefined && goesBack(before, next);
      if (back && allowRollback === null) throw rollback(controlOf(before), next);
      const said = [next.digest, enforce, expectRevoked, commit, signature, allowRollback];
      const admitted = await admit(tx, before, said);
      if (admitted.kind === 'awaits') {
        ({ awaits } = admitted);
        return undefined;
      }
      if (back) tx.record(overriddenEvent(by, next, ['serial'], allowRollback ?? '', requestId));
      const { serial } = next.changeControl;
      return { ...admitted.told, ...(serial !== null && { serial }), ...(manifest !== null && { signed: true }) };
    },
  });
  if (awaits !== undefined) return { kind: 'awaits', awaits };
  return revision === null ? { kind: 'same' } : { kind: 'applied', revision };
}

function wasSigned(before: StoredRevision | undefined): boolean {
  return before !== undefined && before.signature !== null;
}

function controlOf(before: StoredRevision | undefined): ChangeControl {
  return changeControlOf(before?.files ?? {});
}

/** The same files again are no step back, whatever their serial: only how they are enforced changes. */
function goesBack(before: StoredRevision, next: Catalog): boolean {
  const { serial } = controlOf(before);
  return serial !== null && before.digest !== next.digest && (next.changeControl.serial ?? 0) <= serial;
}

function rollback({ serial }: ChangeControl, { changeControl }: Catalog): MayflyError {
  const has = changeControl.serial === null ? 'has none' : `has ${changeControl.serial}`;
  return new MayflyError('catalog_rollback', `The serial of the one in force is ${serial}, and this one ${has}.`, {
    members: { serial: changeControl.serial, serial_in_force: serial },
  });
}

/** Cried about by itself: the event of the apply alone could be overlooked. */
function overriddenEvent(
  by: string,
  { digest }: Catalog,
  overridden: readonly string[],
  reason: string,
  correlationId: string,
): AuditEvent {
  return {
    ...{
      type: 'catalog.guard_overridden',
      agent: 'none',
      subject: by,
      resource: 'catalog',
      action: 'guard_overridden',
    },
    ...{ decision: 'none', correlationId, posture: 'unknown', cause: 'none', taskId: null, grantId: null },
    ...{ decisionId: null, txn: null, policyDigest: digest, payload: { overridden, reason, by } },
  };
}
