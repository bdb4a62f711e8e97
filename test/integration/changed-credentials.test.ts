import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import type { Drift } from '../../src/provider.ts';
import { type House, startHouse } from '../support/house.ts';
import { availableVersions, type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { eventsOf, grantState, mintKnown, reconcile, roleOf } from '../support/reconcile.ts';

let storeServer: PostgresServer;
beforeAll(async () => {
  storeServer = await startPostgres({ version: 18 });
});
afterAll(async () => {
  await storeServer?.stop();
});

const isWanted = (version: number) => version === 15 || version === 18;

describe.each(availableVersions().filter(isWanted))('a credential changed in PostgreSQL %i', (version) => {
  let targetServer: PostgresServer;
  let house: House;
  beforeAll(async () => {
    targetServer = version === 18 ? storeServer : await startPostgres({ version });
    // Runs are asked for: nothing is found by the way.
    house = await startHouse({ server: storeServer, targetServer, env: { MAYFLY_RECONCILE_SECONDS: '86400' } });
    await reconcile(house);
  });
  afterAll(async () => {
    await house?.stop();
    if (targetServer !== storeServer) await targetServer?.stop();
  });

  async function asAgent(login: pg.ClientConfig | undefined, text: string): Promise<void> {
    const client = new pg.Client(login);
    await client.connect();
    try {
      await client.query(text);
    } finally {
      await client.end();
    }
  }
  const change = (id: string | undefined, how: string) => house.onTarget(`ALTER ROLE ${roleOf(id ?? '')} ${how}`);

  async function findingsOf(id: string): Promise<readonly Drift['what'][]> {
    const [row] = await house.onStore<{ payload: { because: string; findings: Drift[] } }>(
      `SELECT payload FROM mayfly.audit_events WHERE type = 'grant.ended' AND cause = 'drift' AND grant_id = $1`,
      [id],
    );
    expect(row?.payload.because).toBe('credential_changed');
    return row?.payload.findings.map(({ what }) => what) ?? [];
  }

  const gone = (id: string) =>
    vi.waitFor(
      async () => expect(await grantState(house, id)).toMatchObject({ ended_by: 'drift', revocation: 'clean' }),
      { timeout: 60_000, interval: 100 },
    );
  const alive = async (ids: readonly string[]) =>
    Promise.all(ids.map(async (id) => (await grantState(house, id))?.state));

  test('ends the grant, with what was found; the others are untouched', async () => {
    const { ids, logins, taskId } = await mintKnown(house, 7);
    const [member = '', later = '', password = '', setting = '', attribute = '', ...others] = ids;
    await house.onTarget(`CREATE ROLE careless NOLOGIN; GRANT careless TO ${roleOf(member)}`);
    await change(later, `VALID UNTIL '2099-01-01'`);
    await asAgent(logins[2], `ALTER ROLE CURRENT_USER PASSWORD 'what the agent would rather have'`);
    await asAgent(logins[3], `ALTER ROLE CURRENT_USER SET work_mem = '64MB'`);
    await change(attribute, 'CREATEDB');
    expect(await reconcile(house)).toMatchObject({ outcome: 'done', changed: 5, held: 0, uninspected: 0 });
    const changed = [member, later, password, setting, attribute];
    for (const id of changed) await gone(id);
    expect(await Promise.all(changed.map(findingsOf))).toEqual([
      ['memberships'],
      ['expiry'],
      ['password'],
      ['settings_own'],
      ['attributes'],
    ]);
    expect(await alive(others)).toEqual(['active', 'active']);
    for (const login of logins.slice(5)) await asAgent(login, 'SELECT count(*) FROM billing.invoices');
    await expect(asAgent(logins[4], 'SELECT 1')).rejects.toMatchObject({ code: '28P01' });
    expect(await eventsOf(house, member)).toContain('grant.drifted');
    await house.onTarget('DROP ROLE careless');
    await house.client().cancel(taskId, { wait: 30 });
  });

  test('ends none where so many are changed at once that it is hardly true, and says so until they are fewer', async () => {
    const { ids, taskId } = await mintKnown(house, 9);
    const changed = ids.slice(0, 6);
    for (const id of changed) await change(id, 'CREATEDB');
    expect(await reconcile(house)).toMatchObject({ outcome: 'done', changed: 0, held: 6 });
    expect(await alive(ids)).toEqual(ids.map(() => 'active'));
    const scraped = () => fetch(`${house.url}/metrics`).then((response) => response.text());
    await vi.waitFor(
      async () => expect(await scraped()).toContain('mayfly_target_changes_held{target="ledger-db"} 6'),
      {
        timeout: 30_000,
      },
    );
    await change(changed[0], 'NOCREATEDB');
    expect(await reconcile(house)).toMatchObject({ changed: 5, held: 0 });
    for (const id of changed.slice(1)) await gone(id);
    expect(await alive([ids[0] ?? '', ...ids.slice(6)])).toEqual(['active', 'active', 'active', 'active']);
    await house.client().cancel(taskId, { wait: 30 });
  });

  test('ends nothing while the target does not say what its credentials can do, nor under `--enforce report`', async () => {
    const { ids, taskId } = await mintKnown(house, 2);
    const [changed = '', other = ''] = ids;
    await change(changed, 'CREATEDB');
    const inspecting = `FUNCTION mayfly.inspect(uuid, text[], oid[])`;
    await house.onTarget(`REVOKE EXECUTE ON ${inspecting} FROM ${house.targetDatabase}_broker`);
    expect(await reconcile(house)).toMatchObject({ outcome: 'done', changed: 0, uninspected: 2 });
    expect(await eventsOf(house, changed)).not.toContain('grant.drifted');
    await house.onTarget(`GRANT EXECUTE ON ${inspecting} TO ${house.targetDatabase}_broker`);

    const enforce = (how: string) =>
      house.onStore(
        'UPDATE mayfly.catalog_revisions SET enforce = $1 WHERE number = (SELECT revision FROM mayfly.catalog_active)',
        [how],
      );
    await enforce('report');
    expect(await reconcile(house)).toMatchObject({ drifted: 1, changed: 0, uninspected: 0 });
    expect(await alive(ids)).toEqual(['active', 'active']);
    expect(await eventsOf(house, changed)).toContain('grant.drifted');
    await enforce('revoke');
    expect(await reconcile(house)).toMatchObject({ drifted: 0, changed: 1 });
    await gone(changed);
    expect(await alive([other])).toEqual(['active']);
    await house.client().cancel(taskId, { wait: 30 });
  });
});
