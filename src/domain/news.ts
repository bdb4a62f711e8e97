import type { AuditEventType } from './audit-event.ts';

/**
 * Of which evidence a webhook can be told. `ordinary`: what the life of every task and grant leaves; the trigger of migration 0020
 * looks none of it up, so that a mint pays nothing here. `apart`: ordinary but for what it says of a grant that was taken away. `test`:
 * told to the webhook that it is about.
 */
const kinds: Readonly<Record<AuditEventType, 'news' | 'ordinary' | 'apart' | 'test'>> = {
  'task.opened': 'ordinary',
  'task.replayed': 'ordinary',
  'task.offered': 'ordinary',
  'task.claimed': 'ordinary',
  'task.moved': 'ordinary',
  'task.completed': 'ordinary',
  'task.cancelled': 'ordinary',
  'task.expired': 'ordinary',
  'task.revoked': 'news',
  'decision.made': 'ordinary',
  'grant.intended': 'ordinary',
  'grant.activated': 'ordinary',
  'grant.mint_failed': 'news',
  'grant.renewed': 'ordinary',
  // Only of what ended by drift, a signal, an operator or as an orphan.
  'grant.ended': 'apart',
  'revocation.attempted': 'ordinary',
  // Told as `revocation.contained_late`, once it had been overdue.
  'revocation.contained': 'ordinary',
  'revocation.clean': 'ordinary',
  'revocation.overdue': 'news',
  'revocation.claim_lost': 'news',
  'revocation.retried': 'news',
  'revocation.written_off': 'news',
  'target.breaker': 'news',
  'target.paused': 'news',
  'target.resumed': 'news',
  'target.reconcile_asked': 'news',
  'target.checked': 'news',
  'revocation.returned': 'news',
  'grant.orphaned': 'news',
  'grant.lost': 'news',
  'grant.drifted': 'news',
  'grant.used': 'ordinary',
  'use.evaluated': 'ordinary',
  'target.reconciled': 'news',
  'target.held_elsewhere': 'news',
  'target.adopted': 'news',
  'target.fenced_unrecorded': 'news',
  // What was cut besides: each of them ends with the cause `cut_off`.
  'target.cut_off': 'news',
  'store.failed_over': 'news',
  'kill.raised': 'news',
  'kill.lifted': 'news',
  'kill.confirmed': 'news',
  'approval.requested': 'news',
  'approval.approved': 'news',
  'approval.denied': 'news',
  'approval.withdrawn': 'news',
  'approval.lapsed': 'news',
  'task.suspended': 'news',
  'task.resumed': 'news',
  'signal.received': 'news',
  'signal.lapsed': 'news',
  'operator.signed_in': 'news',
  'operator.signed_out': 'news',
  'catalog.applied': 'news',
  'catalog.guard_overridden': 'news',
  'operation.awaited': 'news',
  'revocation.reopened': 'news',
  'webhook.tested': 'test',
};

/** What the store's trigger leaves out. */
export const ordinaryEvents: readonly string[] = Object.entries(kinds)
  .filter(([, kind]) => kind === 'ordinary' || kind === 'apart')
  .map(([type]) => type);

/** Types of news, as webhooks are told them. */
const newsTypes: ReadonlySet<string> = new Set([
  ...Object.entries(kinds)
    .filter(([, kind]) => kind === 'news' || kind === 'apart')
    .map(([type]) => type),
  'revocation.contained_late',
]);

/** `kill.*` → `kill`; undefined for anything but a family. */
export function familyOf(pattern: string): string | undefined {
  return pattern.endsWith('.*') ? pattern.slice(0, -2) : undefined;
}

/** Whether there is news that the pattern names: a type, or `<family>.*`. */
export function isNews(pattern: string): boolean {
  const family = familyOf(pattern);
  return family === undefined ? newsTypes.has(pattern) : [...newsTypes].some((type) => type.startsWith(`${family}.`));
}
