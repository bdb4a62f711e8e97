import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { connect } from 'node:net';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { postgresVersions } from './postgres-binaries.ts';
import { availableVersions, type PostgresServer, startPostgres } from './postgres-servers.ts';

describe.each(availableVersions(postgresVersions))('a test server of PostgreSQL %i', (version) => {
  let server: PostgresServer;
  beforeAll(async () => {
    server = await startPostgres({ version, settings: { work_mem: '5MB' } });
  });
  afterAll(() => server.stop());

  async function ask(url: string, sql: string): Promise<unknown> {
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    try {
      const { rows } = await client.query({ text: sql, rowMode: 'array' });
      return rows[0]?.[0];
    } finally {
      await client.end();
    }
  }

  test('is of that version and has the settings asked for', async () => {
    expect(String(await ask(server.superuserUrl(), 'SHOW server_version'))).toMatch(new RegExp(`^${version}\\.`));
    expect(await ask(server.superuserUrl(), 'SHOW work_mem')).toBe('5MB');
  });

  test('clones databases', async () => {
    const first = await server.createDatabase('first');
    await ask(first, 'CREATE TABLE t AS SELECT 42 AS a');
    const second = await server.createDatabase('second', 'first');
    expect(await ask(second, 'SELECT a FROM t')).toBe(42);
    await server.dropDatabase('second');
    await expect(ask(second, 'SELECT 1')).rejects.toThrow(/does not exist/);
  });

  test('keeps its data over a crash, on the same port', async () => {
    const url = await server.createDatabase('kept');
    await server.restart('immediate', { work_mem: '6MB' });
    expect(await ask(url, 'SHOW work_mem')).toBe('6MB');
  });

  test('dies with the process that started it and leaves no data', async () => {
    const script = `
      import { startPostgres } from './test/support/postgres-servers.ts';
      import pg from 'pg';
      const server = await startPostgres({ version: ${version} });
      const client = new pg.Client({ connectionString: server.superuserUrl() });
      await client.connect();
      const { rows } = await client.query('SHOW data_directory');
      process.stdout.write(JSON.stringify({ port: server.port, data: rows[0].data_directory }));
      process.kill(process.pid, 'SIGKILL');
    `;
    const said = await new Promise<string>((resolve) => {
      execFile(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script], (_error, stdout, stderr) =>
        resolve(stdout === '' ? stderr : stdout),
      );
    });
    const { port, data }: { port: number; data: string } = JSON.parse(said);
    await expect.poll(() => existsSync(data), { timeout: 60_000 }).toBe(false);
    const refused = new Promise((resolve) => connect(port, '127.0.0.1').on('error', resolve).on('connect', resolve));
    expect(await refused).toMatchObject({ code: 'ECONNREFUSED' });
  });
});
