import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { type House, startHouse } from '../support/house.ts';
import { type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { restoreLater, startStandby } from '../support/postgres-standby.ts';
import { eventsOf, grantState, mintKnown, QUICK, reconcile, roleOf } from '../support/reconcile.ts';
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts';

describe('a credential that comes back', () => {
  let storeServer: PostgresServer;
  let targetServer: PostgresServer;
  let proxy: TcpProxy;
  let folder: string;
  let house: House;
  let heir: PostgresServer | undefined;
  const said: string[] = [];
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'mayfly-restored-'));
    [storeServer, targetServer] = await Promise.all([startPostgres({ version: 18 }), startPostgres({ version: 18 })]);
    proxy = await startTcpProxy(targetServer.port);
  });
  afterEach(async () => {
    await house?.stop();
    await heir?.stop();
    said.length = 0;
  });
  afterAll(async () => {
    await proxy?.close();
    await Promise.all([storeServer?.stop(), targetServer?.stop()]);
    rmSync(folder, { recursive: true, force: true });
  });

  async function start(): Promise<void> {
    proxy.retarget(targetServer.port);
    const logTo = new Writable({
      write: (chunk, _encoding, done) => {
        said.push(...String(chunk).split('\n').filter(Boolean));
        done();
      },
    });
    house = await startHouse({
      ...{ server: storeServer, targetServer, targetPort: proxy.port, logTo },
      env: { ...QUICK, MAYFLY_LOG_LEVEL: 'warn' },
    });
  }

  async function roles(server: PostgresServer, ids: readonly string[]): Promise<string[]> {
    const client = new pg.Client({ connectionString: server.superuserUrl() });
    await client.connect();
    try {
      const names = await client.query<{ rolname: string }>(
        'SELECT rolname FROM pg_roles WHERE rolname = ANY($1) AND rolcanlogin',
        [ids.map(roleOf)],
      );
      return names.rows.map(({ rolname }) => rolname);
    } finally {
      await client.end();
    }
  }

  /** Ends both; then the target is as it was before, behind the same address. */
  async function goBack(cancelled: Awaited<ReturnType<typeof mintKnown>>, make: () => Promise<PostgresServer>) {
    await house.client().cancel(cancelled.taskId, { wait: 20 });
    await vi.waitFor(
      async () => expect(await grantState(house, cancelled.ids[0] ?? '')).toMatchObject({ revocation: 'clean' }),
      {
        timeout: 60_000,
        interval: 50,
      },
    );
    heir = await make();
    expect(await roles(heir, cancelled.ids)).toHaveLength(cancelled.ids.length);
    proxy.retarget(heir.port);
    proxy.cut();
  }

  async function isRevokedAgain(ids: readonly string[]): Promise<void> {
    for (const id of ids) {
      await vi.waitFor(async () => expect(await eventsOf(house, id)).toContain('revocation.returned'), {
        timeout: 60_000,
      });
      await vi.waitFor(
        async () => expect(await grantState(house, id)).toMatchObject({ state: 'revoked', revocation: 'clean' }),
        {
          timeout: 60_000,
          interval: 50,
        },
      );
      const events = await eventsOf(house, id);
      expect(events.slice(events.indexOf('revocation.returned'))).toEqual([
        'revocation.returned',
        'revocation.contained',
        'revocation.clean',
      ]);
    }
    expect(heir && (await roles(heir, ids))).toEqual([]);
    const metrics = await (await fetch(`${house.url}/metrics`)).text();
    expect(metrics).toContain(`mayfly_reconcile_findings_total{target="ledger-db",kind="returned"} ${ids.length}`);
    expect(said.filter((line) => line.includes('"alert":"returned"'))).toHaveLength(ids.length);
  }

  test('with a restored backup is found and revoked again, loudly; what lives stays', async () => {
    await start();
    const ended = await mintKnown(house, 2);
    const kept = await mintKnown(house, 1);
    const restore = await restoreLater(targetServer, folder);
    await goBack(ended, restore);
    await isRevokedAgain(ended.ids);
    expect(await reconcile(house)).toMatchObject({ outcome: 'done', orphans: 0, returned: 0 });
    expect(heir && (await roles(heir, kept.ids))).toHaveLength(1);
    expect(await grantState(house, kept.ids[0] ?? '')).toMatchObject({ state: 'active' });
  });

  test('with the promotion of a replica that never saw its end is found and revoked again', async () => {
    await start();
    const ended = await mintKnown(house, 1);
    const standby = await startStandby(targetServer, { name: 'behind' });
    await vi.waitFor(async () => expect(await roles(standby, ended.ids)).toHaveLength(1), { timeout: 60_000 });
    // From here on nothing reaches it.
    await standby.restart('fast', { primary_conninfo: '' });
    await goBack(ended, async () => {
      const client = new pg.Client({ connectionString: standby.superuserUrl() });
      await client.connect();
      await client.query('SELECT pg_promote()');
      await client.end();
      return standby;
    });
    await isRevokedAgain(ended.ids);
  });
});
