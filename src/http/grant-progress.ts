import type { ReadGrant } from '../store/grants.ts';

/** What a waiter is told of when it changes: states, tries and the deadline. */
export function versionOf({ grant, revocation }: ReadGrant): string {
  return `${grant.id} ${grant.state} ${grant.deadline.getTime()} ${revocation?.state ?? 'none'} ${revocation?.attempts ?? 0}`;
}

/** Nothing will change any more. */
export function isOver({ grant, revocation }: ReadGrant): boolean {
  return grant.state === 'denied' || revocation?.state === 'clean' || revocation?.state === 'written_off';
}
