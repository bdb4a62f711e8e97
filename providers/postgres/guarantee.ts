import type { Guarantee } from '../../src/provider.ts';
import type { PostgresEntitlement } from './schema.ts';
import type { Target } from './target.ts';

const refusesLogins = 'At the deadline the server itself refuses new logins;';

/** Seconds without a run after which the dead-man's switch is not spoken of: it is meant to run once a minute. */
export const expireOverdue = 180;

/** Only what is known: that it is scheduled shows by its runs alone. */
function atItsEnd(expireAge: number | null): string {
  return expireAge !== null && expireAge <= expireOverdue
    ? `${refusesLogins} sessions already open are ended by the broker and, should all of it be down, by the schedule of the target within about a minute.`
    : `${refusesLogins} sessions already open are ended by the broker, not by the server.`;
}

/** What is promised on this target as it is now: its version decides, and what the template is allowed. @throws ProviderError */
export async function guarantee(
  target: Target,
  entitlement: PostgresEntitlement,
  signal: AbortSignal,
): Promise<Guarantee> {
  const { maxSeconds, serverVersion, expireAge } = await target.allowance(entitlement.template, signal);
  const common = {
    native_expiry: true,
    ends_sessions: true,
    enumerable: true,
    min_ttl_seconds: 1,
    max_ttl_seconds: maxSeconds,
  };
  if (serverVersion >= 160_000) {
    return {
      ...common,
      revocation: 'immediate',
      says: `An early end refuses new logins at once and terminates every open session before it is called ended. ${atItsEnd(expireAge)}`,
    };
  }
  return {
    ...common,
    revocation: 'propagating',
    propagation_seconds: 5,
    says:
      'An early end refuses new logins at once and terminates the open sessions within seconds. Before PostgreSQL 16 a session ' +
      `can take on the template itself by SET ROLE, so that termination alone ends it, and this is not promised as immediate. ${atItsEnd(expireAge)}`,
  };
}
