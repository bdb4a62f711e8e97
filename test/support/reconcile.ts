import { randomUUID } from 'node:crypto';
import type pg from 'pg';
import { vi } from 'vitest';
import { provider } from '../../providers/postgres/index.ts';
import type { GrantBody } from '../../src/client/index.ts';
import { Secret } from '../../src/domain/secret.ts';
import type { ReconcileResult } from '../../src/store/reconciliations.ts';
import type { House } from './house.ts';

/** Runs every second, a grace of three, mints of at most two. */
export const QUICK = {
  MAYFLY_RECONCILE_SECONDS: '1',
  MAYFLY_ORPHAN_GRACE_SECONDS: '3',
  MAYFLY_MINT_SECONDS: '2',
};

/** A provider session of this installation on the house's target, as a broker of it has one. */
export async function sessionOf(house: House, installation = house.broker.installation) {
  const { connection } = targetOf(house);
  return provider.connect(connection, {
    ...{ target: 'ledger-db', installation, secret: () => new Secret(house.targetPassword), log: () => {} },
  });
}

function targetOf(house: House) {
  const connection = provider.targetSchema.parse({
    ...{ host: '127.0.0.1', port: house.targetServer.port, database: house.targetDatabase },
    ...{ user: `${house.targetDatabase}_broker`, password: 'file:password', sslmode: 'disable' },
  });
  return { connection, template: `mayfly_t_read_invoices${house.targetDatabase.replace('ledger', '')}` };
}

/** Makes a role of this installation that the store knows nothing of, as a broker whose store lost its last moments. */
export async function mintUnknown(house: House): Promise<string> {
  const session = await sessionOf(house);
  try {
    const grantId = randomUUID();
    const config = provider.entitlementSchema.parse({
      ...{ template: targetOf(house).template, connection_limit: 4 },
      privileges: [{ schema: 'billing', tables: ['invoices'], grant: ['SELECT'] }],
    });
    const deadline = new Date(Date.now() + 300_000);
    const ref = { grantId, handle: session.reserve(grantId), facts: null, deadline };
    const request = {
      grantId,
      entitlement: 'ledger-db/read-invoices',
      config,
      params: {},
      deadline,
      notAfter: deadline,
    };
    await session.mint(ref, { ...request, mintBy: new Date(Date.now() + 10_000) }, AbortSignal.timeout(10_000));
    return grantId;
  } finally {
    await session.close();
  }
}

export function roleOf(grantId: string): string {
  return `mfy_${grantId.replaceAll('-', '')}`;
}

export async function rolesOf(house: House, grantIds: readonly string[]): Promise<string[]> {
  const rows = await house.onTarget<{ rolname: string }>(
    'SELECT rolname FROM pg_roles WHERE rolname = ANY($1) ORDER BY 1',
    [grantIds.map(roleOf)],
  );
  return rows.map(({ rolname }) => rolname);
}

export interface GrantState {
  readonly state: string;
  readonly revocation: string;
  readonly ended_by: string | null;
}

export async function grantState(house: House, grantId: string): Promise<GrantState | undefined> {
  const [row] = await house.onStore<GrantState & Record<string, unknown>>(
    `SELECT g.state, r.state AS revocation, g.ended_by FROM mayfly.grants g JOIN mayfly.revocations r ON r.grant_id = g.id WHERE g.id = $1`,
    [grantId],
  );
  return row;
}

export async function eventsOf(house: House, grantId: string): Promise<string[]> {
  const rows = await house.onStore<{ type: string }>(
    'SELECT type FROM mayfly.audit_events WHERE grant_id = $1 ORDER BY ts, id',
    [grantId],
  );
  return rows.map(({ type }) => type);
}

/** Asks for a run that begins from now on and waits for what it found. */
export async function reconcile(house: House): Promise<ReconcileResult> {
  const [asked] = await house.onStore<{ asked_at: Date }>(
    `INSERT INTO mayfly.reconciliations AS r (target, next_at, asked_at) VALUES ('ledger-db', clock_timestamp(), clock_timestamp())
     ON CONFLICT (target) DO UPDATE SET next_at = least(r.next_at, excluded.next_at), asked_at = excluded.asked_at RETURNING asked_at`,
  );
  return vi.waitFor(
    async () => {
      const [row] = await house.onStore<{ result: ReconcileResult }>(
        'SELECT result FROM mayfly.reconciliations WHERE started_at >= $1 AND finished_at >= started_at',
        [asked?.asked_at],
      );
      if (row === undefined) throw new Error('no run is over yet');
      return row.result;
    },
    { timeout: 60_000, interval: 50 },
  );
}

export async function mintKnown(
  house: House,
  count: number,
): Promise<{ taskId: string; grants: GrantBody[]; ids: string[]; logins: pg.ClientConfig[] }> {
  const client = house.client();
  const { task } = await client.openTask(await house.sign());
  const issued = await Promise.all(
    Array.from({ length: count }, () => client.issue(task.id, { entitlement: 'ledger-db/read-invoices' })),
  );
  const grants = issued.map(({ grant }) => grant);
  const logins = issued.map(({ credential }) => ({ connectionString: String(credential['url']) }));
  return { taskId: task.id, grants, ids: grants.map(({ id }) => id.slice(4)), logins };
}

/** Many of them, by the effects of a mint: no session is opened for each. */
export async function seedUnknown(house: House, count: number): Promise<void> {
  const { template } = targetOf(house);
  for (let made = 0; made < count; made += 1000) {
    await house.onTarget(`DO $$ DECLARE g uuid; h text; BEGIN FOR n IN 1..${Math.min(1000, count - made)} LOOP
      g := gen_random_uuid(); h := 'mfy_' || replace(g::text, '-', '');
      EXECUTE format('CREATE ROLE %I LOGIN', h);
      EXECUTE format('COMMENT ON ROLE %I IS %L', h, mayfly.mark('${house.broker.installation}', g));
      INSERT INTO mayfly.handle (handle, grant_id, installation, template, role_oid, minted_at, valid_until, not_after, keep_until)
      VALUES (h, g, '${house.broker.installation}', '${template}', h::regrole, now(), now() + interval '1 hour', now() + interval '1 hour', now() + interval '1 hour');
    END LOOP; END $$`);
  }
}
