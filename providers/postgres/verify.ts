import { ProviderError, type Ref, type Verdict } from '../../src/provider.ts';
import { pause } from './abort.ts';
import type { BrokerConnection } from './connection.ts';
import { oidOf, strayed } from './handle.ts';
import { inside, type Inside } from './running.ts';
import type { Target } from './target.ts';

interface RoleSeen {
  readonly oid: number;
  readonly name: string;
  readonly ours: boolean;
  readonly can_login: boolean;
  readonly has_password: boolean;
  readonly memberships: number;
}
interface LookRow {
  readonly registered: number | null;
  readonly fenced_at: Date | null;
  readonly roles: readonly RoleSeen[];
  readonly backends: string;
}

/** Milliseconds after which a login that still does not show its user is one that sleeps. */
const asleepFor = 150;

/**
 * Looks at the catalogs, by OID and by name, in the cluster that the facts name. A canary login would prove nothing:
 * a wrong password and an absent role give the same refusal.
 */
export async function verify(target: Target, refs: readonly Ref[], signal: AbortSignal): Promise<readonly Verdict[]> {
  return target.revoking.useTwice(signal, (used) => verifyOn(used, refs, signal));
}

/** The same on one server: the primary, or a standby that has replayed what the primary showed. @throws ProviderError */
export async function verifyOn(
  used: BrokerConnection,
  refs: readonly Ref[],
  signal: AbortSignal,
): Promise<readonly Verdict[]> {
  const asleep = await stillAsleep(used, signal);
  const rows = await used.connection.query<LookRow & Record<string, unknown>>(
    'verifying',
    'SELECT registered, fenced_at, roles, backends FROM mayfly.look($1::text[], $2::oid[]) ORDER BY ord',
    [refs.map(({ handle }) => handle), refs.map(({ facts }) => oidOf(facts))],
    signal,
  );
  const running = await inside(
    used.connection,
    refs.map(({ handle }) => handle),
    signal,
  );
  return refs.map((ref, index): Verdict => {
    const error = strayed(ref, used.status);
    const row = rows[index];
    if (error !== null || row === undefined) {
      return { ok: false, error: error ?? new ProviderError('retryable', 'verifying: no answer') };
    }
    return judge(ref, row, asleep, running.get(ref.handle), used.status.system_identifier);
  });
}

function judge(ref: Ref, row: LookRow, asleep: number, running: Inside | undefined, systemIdentifier: string): Verdict {
  const foreign = row.roles.find(({ ours }) => !ours);
  if (foreign !== undefined) {
    return {
      ok: false,
      error: new ProviderError(
        'misconfigured',
        `role ${foreign.oid} bears the name or OID of the grant without our mark`,
      ),
    };
  }
  const absent = row.roles.length === 0;
  const powerless = row.roles.every((role) => !role.can_login && !role.has_password && role.memberships === 0);
  // Without a tombstone a mint on its way could still make the role, unless it is known that it was made and is gone.
  const nothingInFlight = row.fenced_at !== null || (absent && oidOf(ref.facts) !== null);
  const codeIsOver = running === undefined || (!running.unasked && running.ours + running.strangers === 0);
  const contained = powerless && nothingInFlight && Number(row.backends) === 0 && asleep === 0 && codeIsOver;
  return {
    ok: true,
    contained,
    clean: contained && absent,
    open: !powerless || Number(row.backends) > 0,
    evidence: {
      system_identifier: systemIdentifier,
      oid: oidOf(ref.facts) ?? row.registered,
      role: absent ? 'absent' : row.roles.map(({ name }) => name).join(', '),
      can_login: row.roles.some((role) => role.can_login),
      memberships: row.roles.reduce((sum, role) => sum + role.memberships, 0),
      sessions: Number(row.backends),
      logins_asleep: asleep,
      tombstone: row.fenced_at !== null,
      ...(running?.code === true
        ? {
            older_work_of_grants: running.ours,
            strangers_inside: running.strangers,
            older_work_of_strangers: running.others,
          }
        : {}),
    },
  };
}

/** How many of the logins that are under way now do not come to show their user: one of them may be of these refs. */
async function stillAsleep({ connection }: BrokerConnection, signal: AbortSignal): Promise<number> {
  const ask = async (): Promise<readonly number[]> => {
    const [row] = await connection.query<{ pids: number[] }>(
      'verifying',
      'SELECT mayfly.asleep_now() AS pids',
      [],
      signal,
    );
    return row?.pids ?? [];
  };
  let asleep = await ask();
  for (let waited = 0; asleep.length > 0 && waited < asleepFor; waited += 25) {
    await pause(25, signal);
    const now = new Set(await ask());
    asleep = asleep.filter((pid) => now.has(pid));
  }
  return asleep.length;
}
