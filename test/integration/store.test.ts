import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { approvalMachine } from '../../src/domain/approval.ts';
import { grantMachine } from '../../src/domain/grant.ts';
import type { Machine } from '../../src/domain/machine.ts';
import { revocationMachine } from '../../src/domain/revocation.ts';
import { taskMachine } from '../../src/domain/task.ts';
import { compareSchema, migrate, readMigrations } from '../../src/store/migrate.ts';
import { type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { createStore, migrationsFolder, type TestStore } from '../support/store.ts';

let server: PostgresServer;
let store: TestStore;

beforeAll(async () => {
  server = await startPostgres({ version: 18 });
  store = await createStore(server);
});
afterAll(async () => {
  await server?.stop();
});

async function as<T>(url: { reveal(): string }, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: url.reveal() });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

describe('migrations', () => {
  test('run once, however many run them at once', async () => {
    const fresh = await createStore(server, { migrated: false });
    const options = {
      ownerUrl: fresh.ownerUrl,
      folder: migrationsFolder,
      runtime: fresh.runtime,
      sequencer: fresh.sequencer,
      dev: false,
    };
    const reports = await Promise.all([migrate(options), migrate(options), migrate(options)]);
    expect(reports.flatMap((report) => report.applied)).toEqual([...readMigrations(migrationsFolder).keys()]);
    expect(await migrate(options)).toEqual({ applied: [] });
  });

  test('refuse a file that was changed after it was applied, and a store newer than the release', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'mayfly-migrations-'));
    try {
      cpSync(migrationsFolder, folder, { recursive: true });
      const fresh = await createStore(server, { migrated: false });
      const options = {
        ownerUrl: fresh.ownerUrl,
        folder,
        runtime: fresh.runtime,
        sequencer: fresh.sequencer,
        dev: false,
      };
      writeFileSync(join(folder, '9999_more.sql'), '-- Up Migration\nCREATE TABLE mayfly.more ();\n');
      await migrate(options);
      writeFileSync(join(folder, '9999_more.sql'), '-- Up Migration\nCREATE TABLE mayfly.other ();\n');
      await expect(migrate(options)).rejects.toThrow('9999_more was changed after it was applied');
      rmSync(join(folder, '9999_more.sql'));
      await expect(migrate(options)).rejects.toThrow('newer than this release');
      const compared = await as(fresh.ownerUrl, (client) =>
        compareSchema(async (text) => (await client.query<{ name: string }>(text)).rows, folder),
      );
      expect(compared).toEqual({ missing: [], newer: ['9999_more'] });
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test('refuse to run as the runtime login', async () => {
    await expect(
      migrate({
        ownerUrl: store.ownerUrl,
        folder: migrationsFolder,
        runtime: `${store.database}_owner`,
        sequencer: store.sequencer,
        dev: true,
      }),
    ).rejects.toThrow('must be another');
  });
});

describe('the state machines', () => {
  test.each([taskMachine, grantMachine, revocationMachine, approvalMachine] as Machine<string>[])(
    'of the code and of the database are the same: $name',
    async (machine) => {
      const rows = await as(store.ownerUrl, (client) =>
        client.query<{ from_state: string; to_state: string }>(
          'SELECT from_state, to_state FROM mayfly.transitions WHERE machine = $1',
          [machine.name],
        ),
      );
      const inDatabase = rows.rows.map((row) => `${row.from_state} → ${row.to_state}`).sort();
      const inCode = [
        ...machine.births.map((state) => `- → ${state}`),
        ...Object.entries(machine.transitions).flatMap(([from, to]) => to.map((state) => `${from} → ${state}`)),
      ].sort();
      expect(inDatabase).toEqual(inCode);
    },
  );

  test('are held by the database: an illegal birth or step is refused', async () => {
    await as(store.ownerUrl, async (client) => {
      await client.query(
        `INSERT INTO mayfly.catalog_revisions (digest, files, applied_by) VALUES ('sha256:0', '{}', 'test')`,
      );
      const insert = (state: string, ended: boolean) =>
        client.query(
          `INSERT INTO mayfly.tasks (id, root_id, depth, max_depth, issuer, external_id, jti, request_digest, state, purpose, subject, workload_source,
            workload_subject, ceiling, opened_revision, created_at, not_after, ended_at, ended_by)
           SELECT id, id, 0, 0, 'i', id::text, id::text, '', $1, 'p', 's', 'w', 'w', '{}', 1, now(), now() + interval '1 hour',
             CASE WHEN $2 THEN now() END, CASE WHEN $2 THEN 'completed' END FROM gen_random_uuid() AS id RETURNING id`,
          [state, ended],
        );
      await expect(insert('completed', true)).rejects.toMatchObject({ code: '23514' });
      const { rows } = await insert('active', false);
      await client.query(
        `UPDATE mayfly.tasks SET state = 'completed', ended_at = now(), ended_by = 'completed' WHERE id = $1`,
        [rows[0].id],
      );
      await expect(
        client.query(`UPDATE mayfly.tasks SET state = 'active', ended_at = NULL, ended_by = NULL WHERE id = $1`, [
          rows[0].id,
        ]),
      ).rejects.toMatchObject({ code: '23514' });
    });
  });
});

describe('the three logins', () => {
  test('the runtime writes no schema, no history, and deletes nothing', async () => {
    await as(store.runtimeUrl, async (client) => {
      for (const statement of [
        'CREATE TABLE mayfly.mine ()',
        'DELETE FROM mayfly.revocations',
        'DELETE FROM mayfly.audit_events',
        `UPDATE mayfly.audit_events SET type = 'x'`,
        `UPDATE mayfly.tasks SET purpose = 'x'`,
        `UPDATE mayfly.grants SET handle = 'x'`,
        `UPDATE mayfly.catalog_revisions SET files = '{}'`,
        'UPDATE mayfly.installation SET dev = true',
        `INSERT INTO mayfly.transitions VALUES ('task', 'completed', 'active')`,
        'TRUNCATE mayfly.audit_events',
        `SELECT mayfly.grant_rights('postgres', 'postgres')`,
      ]) {
        await expect(client.query(statement), statement).rejects.toMatchObject({ code: '42501' });
      }
      await client.query('SELECT count(*) FROM mayfly.audit_events');
    });
  });

  test('the sequencer reads the evidence and nothing else', async () => {
    await as(store.sequencerUrl, async (client) => {
      await client.query('SELECT count(*) FROM mayfly.audit_events');
      for (const statement of [
        'SELECT 1 FROM mayfly.grants',
        `INSERT INTO mayfly.audit_events (id) VALUES (gen_random_uuid())`,
      ]) {
        await expect(client.query(statement), statement).rejects.toMatchObject({ code: '42501' });
      }
    });
  });
});
