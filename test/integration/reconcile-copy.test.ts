import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { startCli } from '../support/cli.ts';
import { type House, startHouse } from '../support/house.ts';
import { type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { restoreLater } from '../support/postgres-standby.ts';
import { grantState, mintKnown, QUICK, reconcile, rolesOf } from '../support/reconcile.ts';
import { type SecondBroker, startOnCopy } from '../support/second-broker.ts';

describe('staging, restored from production’s backup', () => {
  let storeServer: PostgresServer;
  let targetServer: PostgresServer;
  let copyServer: PostgresServer;
  let folder: string;
  let house: House;
  let before: Awaited<ReturnType<typeof mintKnown>>;
  let after: Awaited<ReturnType<typeof mintKnown>>;
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'mayfly-copy-'));
    [storeServer, targetServer] = await Promise.all([startPostgres({ version: 18 }), startPostgres({ version: 18 })]);
    house = await startHouse({ server: storeServer, targetServer, env: QUICK });
    before = await mintKnown(house, 3);
    const restore = await restoreLater(storeServer, folder);
    // Unknown to the copy: orphans, if it were at home.
    after = await mintKnown(house, 3);
    copyServer = await restore();
    // A copy that starts within a beat of its backup acts until the next.
    const [{ beat } = { beat: 0 }] = await house.onStore<{ beat: number }>(
      'SELECT max(beat)::int AS beat FROM mayfly.tenures',
    );
    await vi.waitUntil(
      async () => (await house.onTarget('SELECT FROM mayfly.installation WHERE beat > $1', [beat])).length > 0,
      { timeout: 60_000, interval: 100 },
    );
    const admin = new pg.Client({ connectionString: copyServer.superuserUrl() });
    await admin.connect();
    // As a dump and its restore leave it: the same contents in another database.
    await admin.query(`CREATE DATABASE dumped TEMPLATE ${house.store.database}`);
    await admin.end();
  });
  afterAll(async () => {
    await house?.stop();
    await Promise.all([storeServer?.stop(), targetServer?.stop(), copyServer?.stop()]);
    rmSync(folder, { recursive: true, force: true });
  });

  async function saysStranger(copy: SecondBroker): Promise<void> {
    await vi.waitFor(
      async () => {
        const [row] = await copy.onStore(
          `SELECT result->>'outcome' AS outcome, result->>'says' AS says FROM mayfly.reconciliations`,
        );
        expect(row).toEqual({ outcome: 'stranger', says: expect.stringContaining('mayfly target adopt ledger-db') });
        const metrics = await (await fetch(`${copy.url}/metrics`)).text();
        expect(metrics.split('\n')).toContain('mayfly_target_stranger{target="ledger-db"} 1');
      },
      { timeout: 60_000, interval: 100 },
    );
    expect(
      (await copy.onStore(`SELECT resource FROM mayfly.audit_events WHERE type = 'target.held_elsewhere'`)).length,
    ).toBeGreaterThan(0);
  }

  test.each(['a dump', 'a physical copy'])(
    'from %s, kills nothing, mints nothing and says so; production goes on',
    async (kind) => {
      const copy = await startOnCopy(house, copyServer, kind === 'a dump' ? 'dumped' : undefined);
      try {
        await saysStranger(copy);
        const all = [...before.ids, ...after.ids];
        // In the copy all that it knows is due, and it tries.
        await copy.onStore(
          `WITH ended AS (UPDATE mayfly.grants SET state = 'revoking', ended_at = now(), ended_by = 'operator' WHERE state = 'active')
         UPDATE mayfly.revocations SET state = 'due', due_at = now(), try_at = now() WHERE state = 'scheduled'`,
        );
        await vi.waitFor(
          async () => {
            const tried = await copy.onStore('SELECT state, last_error FROM mayfly.revocations WHERE attempts > 1');
            expect(tried).toEqual(
              before.ids.map(() => ({ state: expect.stringMatching(/due|running/), last_error: 'misconfigured' })),
            );
          },
          { timeout: 60_000, interval: 100 },
        );
        const asked = house.client(undefined, copy.url);
        const { task } = await asked.openTask(await house.sign());
        await expect(asked.issue(task.id, { entitlement: 'ledger-db/read-invoices' })).rejects.toMatchObject({
          status: 503,
        });
        expect(await copy.onStore('SELECT FROM mayfly.grants WHERE task_id = $1', [task.id.slice(5)])).toEqual([]);
        expect(await copy.onStore('SELECT FROM mayfly.orphan_sightings')).toEqual([]);
        expect(await rolesOf(house, all)).toHaveLength(6);
        for (const login of [...before.logins, ...after.logins]) {
          const agent = new pg.Client(login);
          await agent.connect();
          await agent.query('SELECT 1 FROM billing.invoices');
          await agent.end();
        }
        const more = await mintKnown(house, 1);
        expect(await reconcile(house)).toMatchObject({ outcome: 'done', orphans: 0, lost: 0 });
        await house.client().cancel(more.taskId, { wait: 20 });
        expect(await grantState(house, more.ids[0] ?? '')).toMatchObject({ state: 'revoked' });
      } finally {
        await copy.stop();
      }
    },
  );

  test('becomes the holder by `mayfly target adopt`, and then production is the stranger', async () => {
    const copy = await startOnCopy(house, copyServer, 'dumped');
    try {
      await saysStranger(copy);
      const adminUrl = join(folder, 'admin-url');
      writeFileSync(adminUrl, targetServer.superuserUrl());
      const env = { MAYFLY_DATABASE_URL: copy.databaseUrl, MAYFLY_SECRETS_DIR: copy.secretsDir };
      const elsewhere = join(folder, 'another-url');
      writeFileSync(elsewhere, copyServer.superuserUrl());
      const refused = await startCli(['target', 'adopt', 'ledger-db', '--admin-url-file', elsewhere], { env }).ended;
      expect(refused.code).not.toBe(0);
      expect(await copy.onStore(`SELECT FROM mayfly.audit_events WHERE type = 'target.adopted'`)).toEqual([]);
      const adopted = await startCli(['target', 'adopt', 'ledger-db', '--admin-url-file', adminUrl], { env }).ended;
      expect(adopted.stderr).toContain('is held by this store now');
      expect(await copy.onStore(`SELECT FROM mayfly.audit_events WHERE type = 'target.adopted'`)).toHaveLength(1);
      const client = house.client(undefined, copy.url);
      const { task } = await client.openTask(await house.sign());
      await vi.waitFor(() => client.issue(task.id, { entitlement: 'ledger-db/read-invoices' }), {
        timeout: 60_000,
        interval: 200,
      });
      // What only the former holder knew of is an orphan now.
      await vi.waitFor(async () => expect(await rolesOf(house, after.ids)).toEqual([]), {
        timeout: 60_000,
        interval: 200,
      });
      const reconciled = await startCli(['target', 'reconcile', 'ledger-db'], { env }).ended;
      expect(reconciled).toMatchObject({ code: 0, stdout: expect.stringMatching(/listed +\d/) });
      expect(await reconcile(house)).toMatchObject({ outcome: 'stranger' });
      const formerly = house.client();
      const asked = await formerly.openTask(await house.sign());
      await expect(formerly.issue(asked.task.id, { entitlement: 'ledger-db/read-invoices' })).rejects.toMatchObject({
        status: 503,
      });
    } finally {
      await copy.stop();
    }
  });
});
