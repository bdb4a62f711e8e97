import { step } from '../domain/step.ts';
import type { Facts } from '../domain/grant.ts';
import type { Session } from '../provider.ts';
import type { Claimed } from '../store/claims.ts';
import type { Transaction } from '../store/database.ts';
import { reopen } from '../store/reconcile-page.ts';
import { askEach } from './answers.ts';
import type { RevocationDeps } from './deps.ts';
import { engineEvent } from './evidence.ts';
import { isOpen, toRef } from './looking.ts';

type TellingDeps = Pick<RevocationDeps, 'policyDigest' | 'worker' | 'log' | 'observer'>;

export interface Back {
  readonly grantId: string;
  /** What the target has of it now, where it said so. */
  readonly facts: Facts | null;
  /** Under which it was seen, where it was under one: nothing is changed when another has it by now. */
  readonly claimNumber?: bigint;
}

/**
 * Credentials that were contained or clean, and can be used again: a backup or a standby of the target that was put in its place. Each
 * is owed its end once more, loudly. Answers how many. So is what was written off and can be used: nobody counts that as back.
 */
export async function takeBack(
  deps: TellingDeps,
  target: string,
  tx: Transaction,
  back: readonly Back[],
): Promise<number> {
  if (back.length === 0) return 0;
  const returned = await reopen(tx, back);
  const again = returned.filter(({ writtenOffAt }) => writtenOffAt === null);
  for (const one of returned) {
    tx.changed(one.taskId);
    if (one.writtenOffAt !== null) {
      tx.record(
        engineEvent('revocation.reopened', deps, target, one, { written_off_at: one.writtenOffAt.toISOString() }),
      );
      const about = { target, grant_id: one.grantId, alert: 'reopened' };
      deps.log(about, 'a credential that was written off can be used; it is revoked again');
      continue;
    }
    const cleanAt = one.cleanAt?.toISOString() ?? null;
    tx.record(engineEvent('revocation.returned', deps, target, one, { clean_at: cleanAt }));
    const about = { target, grant_id: one.grantId, clean_at: cleanAt, alert: 'returned' };
    deps.log(about, 'a credential that was ended can be used again; it is revoked again');
  }
  if (again.length > 0) deps.observer.returned(target, again.length);
  return again.length;
}

/**
 * Of what an earlier claim has contained, some may live again: they are taken back, to be claimed anew as what they are. Answers
 * the others. Who says nothing of itself is among those: it is fenced once more, which does no harm.
 */
export async function withoutReturned(
  deps: RevocationDeps,
  target: string,
  session: Session,
  items: readonly Claimed[],
  signal: AbortSignal,
): Promise<readonly Claimed[]> {
  const earlier = items.filter(({ contained }) => contained);
  if (earlier.length === 0) return items;
  const verdicts = await askEach(earlier.map(toRef), signal, (refs, limited) => session.verify(refs, limited)).catch(
    (error: unknown) =>
      deps.log({ target, error }, 'what is contained can not be looked at now; it is fenced once more'),
  );
  const back = earlier.filter((_, index) => isOpen(verdicts?.[index]));
  if (back.length === 0) return items;
  const claims = back.map(({ grantId, claimNumber }) => ({ grantId, claimNumber, facts: null }));
  await deps.db.transaction({}, async (tx) => {
    await takeBack(deps, target, tx, claims);
    step('take-back.before');
  });
  step('take-back.after');
  return items.filter((item) => !back.includes(item));
}
