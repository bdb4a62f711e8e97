import type { Guarantee } from '../../src/provider.ts';
import type { PostgresEntitlement } from './schema.ts';
import { nameOf } from './standby-match.ts';
import type { Target } from './target.ts';

const refusesLogins = 'At the deadline the server itself refuses new logins;';

/** Seconds without a run after which the dead-man's switch is not spoken of: it is meant to run once a minute. */
export const expireOverdue = 180;

/** Only what is known: that it is scheduled shows by its runs alone. */
function atItsEnd(expireAge: number | null, standbys: number): string {
  // Its runs on a standby leave no trace there.
  const afar = standbys > 0 ? ' (on a standby only if it is scheduled for that too)' : '';
  return expireAge !== null && expireAge <= expireOverdue
    ? `${refusesLogins} sessions already open are ended by the broker and, should all of it be down, by the schedule of the target within about a minute${afar}.`
    : `${refusesLogins} sessions already open are ended by the broker, not by the server.`;
}

/** What there is less to promise where nobody is superuser. */
const managed = {
  definer: '',
  createrole:
    ' The functions belong to a role that is no superuser: it cannot see passwords, so that a password changed by the agent ' +
    'itself goes unnoticed (it ends with the rest), and it could give itself the rights of its templates.',
  pool:
    ' The role is lent to one grant after another: audit by its name needs the time as well. It is emptied in between and rests ' +
    'until logins under way are over. The functions belong to a role that is no superuser: it cannot see passwords, so that a ' +
    'password changed by the agent itself goes unnoticed (it ends with the rest), and it could give itself the rights of its templates.',
} as const;
const nearlySuperuser =
  ' Before PostgreSQL 16 the CREATEROLE of that role is nearly superuser: whoever could act as it could take over the server.';

/** What is promised on this target as it is now: its version decides, and what the template is allowed. @throws ProviderError */
export async function guarantee(
  target: Target,
  entitlement: PostgresEntitlement,
  signal: AbortSignal,
): Promise<Guarantee> {
  const { maxSeconds, serverVersion, unlisted, expireAge } = await target.allowance(entitlement.template, signal);
  const { mode } = target.config;
  const common = {
    native_expiry: true,
    ends_sessions: true,
    enumerable: true,
    one_connection: true,
    min_ttl_seconds: 1,
    max_ttl_seconds: maxSeconds,
  };
  if (unlisted.length > 0) {
    return {
      ...common,
      revocation: 'propagating',
      propagation_seconds: 5,
      ends_sessions: false,
      says:
        `Standbys stream from this target that its definition does not list (${unlisted.map(nameOf).join(', ')}): an early end ` +
        'refuses new logins there once they have replayed it, but a session that is open on one of them is not ended at all. ' +
        `On the primary new logins are refused at once and open sessions are terminated. ${atItsEnd(expireAge, target.standbys.length)}`,
    };
  }
  const there = target.standbys.length === 0 ? '' : ' on the primary and on each listed standby';
  if (serverVersion >= 160_000) {
    return {
      ...common,
      revocation: 'immediate',
      says: `An early end refuses new logins at once and terminates every open session${there} before it is called ended. ${atItsEnd(expireAge, target.standbys.length)}${managed[mode]}`,
    };
  }
  return {
    ...common,
    revocation: 'propagating',
    propagation_seconds: 5,
    says:
      'An early end refuses new logins at once and terminates the open sessions ' +
      `within seconds${there}. Before PostgreSQL 16 a session can take on the template itself by SET ROLE, so that termination alone ends it, and this is not promised as immediate. ${atItsEnd(expireAge, target.standbys.length)}` +
      `${managed[mode]}${mode === 'definer' ? '' : nearlySuperuser}`,
  };
}
