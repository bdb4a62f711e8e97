import { endingDrift } from '../domain/drift.ts';
import type { GrantId } from '../domain/ids.ts';
import { step } from '../domain/step.ts';
import type { Drift, Session } from '../provider.ts';
import { enforcementOf } from '../store/catalog-revisions.ts';
import type { Transaction } from '../store/database.ts';
import { endGrants } from '../store/grants.ts';
import type { AliveGrant } from '../store/reconcile-page.ts';
import { engineEvent } from './evidence.ts';
import type { ReconcileDeps } from './reconcile-deps.ts';
import { inspectAlive } from './reconcile-look.ts';

/** So many may always end: of a few grants, one is a large share. */
const ALWAYS = 5;
const AT_ONCE = 100;

/** What one whole look at a target showed. */
export interface ChangedFound {
  /** Grants whose credential is not what was granted. */
  readonly changed: readonly AliveGrant[];
  /** All that were alive. */
  readonly alive: number;
}

/**
 * Ends the grants whose credentials were changed in the target, with what was found. Each is looked at once more; what the target says nothing of
 * is left as it is. When so many are changed that it is rather the look which is wrong, none ends and it is cried about.
 * @param keep Whether the run is still ours, within the transaction.
 */
export async function endChanged(
  deps: ReconcileDeps,
  target: string,
  session: Session,
  { changed, alive }: ChangedFound,
  keep: (tx: Transaction) => Promise<boolean>,
  signal: AbortSignal,
): Promise<{ readonly ended: number; readonly held: number }> {
  const share = deps.maxChangedShare;
  if (changed.length === 0 || share === 0) return { ended: 0, held: 0 };
  if (changed.length > Math.max(ALWAYS, Math.floor((alive * share) / 100))) {
    const about = { target, changed: changed.length, alive, alert: 'changes_held' };
    deps.log(about, 'so many credentials were changed in the target that none of them is ended by it');
    return { ended: 0, held: changed.length };
  }
  let ended = 0;
  for (let from = 0; from < changed.length; from += AT_ONCE) {
    const again = await inspectAlive(deps, session, changed.slice(from, from + AT_ONCE), signal);
    const findings = new Map(
      [...again].flatMap(([grant, drift]) => {
        const ending = endingDrift(drift);
        return ending.length === 0 ? [] : [[grant.grantId, { grant, findings: ending }] as const];
      }),
    );
    ended += await endThese(deps, target, findings, keep);
  }
  if (ended > 0) {
    deps.found.changed(target, ended);
    deps.wake(target);
  }
  return { ended, held: 0 };
}

type Findings = ReadonlyMap<GrantId, { readonly grant: AliveGrant; readonly findings: readonly Drift[] }>;

/** Answers how many: those that somebody else has not ended meanwhile. */
async function endThese(
  deps: ReconcileDeps,
  target: string,
  findings: Findings,
  keep: (tx: Transaction) => Promise<boolean>,
): Promise<number> {
  if (findings.size === 0) return 0;
  let ended = 0;
  await deps.db.transaction({}, async (tx) => {
    if (!(await keep(tx))) return;
    const revision = deps.revision();
    // Enforced by report, `grant.drifted` has told it. Not the active one any more: the next run knows better.
    if ((await enforcementOf(tx, revision)) !== 'revoke') return;
    for (const { grant, revocation } of await endGrants(tx, { grantIds: [...findings.keys()] }, 'drift')) {
      const found = findings.get(grant.id);
      if (found === undefined) continue;
      const about = { ...found.grant, id: revocation.id, endedBy: 'drift' } as const;
      const payload = { because: 'credential_changed', findings: found.findings, revision };
      tx.record(engineEvent('grant.ended', deps, target, about, payload));
      tx.changed(grant.taskId);
      ended += 1;
    }
    step('end-changed.before');
  });
  step('end-changed.after');
  return ended;
}
