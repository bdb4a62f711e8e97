import type { GrantWithRevocation } from '../store/grants.ts';

/** What a waiter is told of when it changes: states, tries and the deadline. */
export function versionOf({ grant, revocation }: GrantWithRevocation): string {
  return `${grant.id} ${grant.state} ${grant.deadline.getTime()} ${revocation.state} ${revocation.attempts}`;
}

/** Nothing will change any more. */
export function isOver({ grant, revocation }: GrantWithRevocation): boolean {
  return grant.state === 'denied' || revocation.state === 'clean' || revocation.state === 'written_off';
}
