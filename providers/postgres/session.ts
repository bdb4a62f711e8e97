import type { ConnectContext, Found, Granted, Session } from '../../src/provider.ts';
import { check } from './check.ts';
import { ends } from './ends.ts';
import { fence } from './fence.ts';
import { guarantee } from './guarantee.ts';
import { handleOf } from './handle.ts';
import { hold } from './hold.ts';
import { inspect } from './inspect.ts';
import { mint, renew } from './mint.ts';
import { reap } from './reap.ts';
import type { PostgresEntitlement, PostgresTarget } from './schema.ts';
import { observeEverywhere } from './standby-observe.ts';
import { verifyEverywhere } from './standby-verify.ts';
import { Target } from './target.ts';

/** Work on one PostgreSQL target. Opening it touches no network. */
export function connect(config: PostgresTarget, context: ConnectContext): Session<PostgresEntitlement> {
  const target = new Target(config, context);
  return {
    guarantee: (entitlement, signal) => guarantee(target, entitlement, signal),
    reserve: handleOf,
    mint: (ref, request, signal) => mint(target, ref, request, signal),
    renew: (ref, until, signal) => renew(target, ref, until, signal),
    fence: (refs, signal) => fence(target, refs, signal),
    verify: (refs, signal) => verifyEverywhere(target, refs, signal),
    reap: (refs, signal) => reap(target, refs, signal),
    // In the managed modes passwords cannot be seen and a pooled role bears another name: it would tell of drift that is none.
    ...(config.mode === 'definer'
      ? {
          inspect: (grants: readonly Granted<PostgresEntitlement>[], signal: AbortSignal) =>
            inspect(target, grants, signal),
        }
      : {}),
    observe: (refs, signal) => observeEverywhere(target, refs, signal),
    ends: (refs, signal) => ends(target, refs, signal),
    list: (signal, after) => list(target, signal, after),
    hold: (signal, beat) => hold(target, signal, beat),
    check: (entitlement, signal) => check(target, entitlement, signal),
    close: () => target.close(),
  };
}

/** A target with 50,000 roles is read in a hundred pages. */
const listedAtOnce = 500;

interface ListRow {
  readonly handle: string;
  readonly grant_id: string;
  readonly installation: string;
  readonly role_oid: number;
  readonly role_name: string;
  readonly template: string | null;
  readonly fenced: boolean;
  readonly can_login: boolean;
  readonly marked: boolean;
}

async function list(target: Target, signal: AbortSignal, after: string | undefined): Promise<readonly Found[]> {
  return target.revoking.useTwice(signal, async ({ connection, status }) => {
    const rows = await connection.query<ListRow & Record<string, unknown>>(
      'listing',
      'SELECT * FROM mayfly.list($1, $2, $3)',
      [target.context.installation, after ?? '', after === undefined ? null : listedAtOnce],
      signal,
    );
    return rows.map((row) => ({
      handle: row.handle,
      grantId: row.marked ? row.grant_id : null,
      installation: row.installation,
      facts: {
        oid: row.role_oid,
        system_identifier: status.system_identifier,
        template: row.template,
        database: target.config.database,
        role_name: row.role_name,
        fenced: row.fenced,
        can_login: row.can_login,
      },
    }));
  });
}
