import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { chmod, chown, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import pg from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { endChild, openToOthers, processesOf, spawnBroker } from '../../../test/support/dev-broker.ts';
import { Secret } from '../../domain/secret.ts';
import { discardEmbeddedPostgres, type EmbeddedPostgres, startEmbeddedPostgres } from './embedded-postgres.ts';
import { listProcesses } from './process-table.ts';
import { withClient } from './sql.ts';

const run = promisify(execFile);
const asRoot = process.getuid?.() === 0;
const NOBODY = 65534;

let base: string;
let dir: string;

beforeEach(async () => {
  base = await mkdtemp(join(tmpdir(), 'mayfly-embedded-'));
  dir = join(base, '.mayfly');
});
afterEach(async () => {
  await discardEmbeddedPostgres(dir);
  await rm(base, { recursive: true, force: true });
});

const start = (port = 0, log: (line: string) => void = () => undefined): Promise<EmbeddedPostgres> =>
  startEmbeddedPostgres({ dir, port, log });

describe('the embedded PostgreSQL', () => {
  test('is PostgreSQL 18 with checksums, on loopback alone, with SCRAM for everything and no Unix socket', async () => {
    const server = await start();
    expect(server.fresh).toBe(true);
    const settings = await withClient(server.url('postgres'), async (client) => {
      const { rows } = await client.query<{ name: string; setting: string }>('SELECT name, setting FROM pg_settings');
      return Object.fromEntries(rows.map(({ name, setting }) => [name, setting]));
    });
    expect(settings).toMatchObject({
      data_checksums: 'on',
      listen_addresses: '127.0.0.1',
      unix_socket_directories: '',
      password_encryption: 'scram-sha-256',
      max_connections: '200',
      log_statement: 'none',
      max_prepared_transactions: '0',
      server_encoding: 'UTF8',
      port: String(server.port),
    });
    expect(settings['server_version_num']).toMatch(/^18\d{4}$/);
    expect(await rulesOf(server)).toEqual([{ type: 'host', address: '127.0.0.1', auth_method: 'scram-sha-256' }]);
    await server.stop();
  });

  test('lets nobody in without the password, and PUBLIC into no database', async () => {
    const server = await start();
    for (const url of [
      server.url('postgres', 'postgres', new Secret('postgres')),
      server.url('postgres', 'nobody', server.superuser.password),
    ]) {
      await expect(withClient(url, async () => undefined)).rejects.toMatchObject({ code: '28P01' });
    }
    await expect(withClient(server.url('postgres', 'postgres'), async () => undefined)).rejects.toThrow('password');
    await withClient(server.url('postgres'), (client) => client.query(`CREATE ROLE somebody LOGIN PASSWORD 'guess'`));
    for (const database of ['postgres', 'template1']) {
      const url = server.url(database, 'somebody', new Secret('guess'));
      await expect(withClient(url, async () => undefined)).rejects.toMatchObject({ code: '42501' });
    }
    await server.stop();
  });

  test('keeps its data and its password from start to start', async () => {
    const first = await start();
    await keepAnswer(first);
    await first.stop();
    const second = await start();
    expect(second.fresh).toBe(false);
    expect(second.superuser.password.reveal()).toBe(first.superuser.password.reveal());
    expect(await answerIn(second.url('postgres'))).toBe(42);
    await second.stop();
  });

  test('stops within bounds with a session open, twice without harm, and leaves no process', async () => {
    const server = await start();
    const client = new pg.Client(server.url('postgres'));
    const broken = once(client, 'error');
    await client.connect();
    const asleep = client.query('SELECT pg_sleep(600)').catch((error: unknown) => error);
    await Promise.all([server.stop(), server.stop()]);
    await server.stop();
    expect(await asleep).toMatchObject({ code: '57P01' });
    await broken;
    expect(await processesOf(server.dataDir)).toEqual([]);
  });

  test('says which port is taken and what to do, before it makes anything', async () => {
    const other = createServer();
    other.listen(0, '127.0.0.1');
    await once(other, 'listening');
    const address = other.address();
    const port = typeof address === 'object' && address !== null ? address.port : 0;
    await expect(start(port)).rejects.toMatchObject({
      code: 'port_taken',
      message: expect.stringMatching(new RegExp(`127.0.0.1:${port}.*lsof .*:${port} .*choose another`)),
    });
    expect(await readdir(join(dir, 'postgres'))).not.toContain('superuser-password');
    other.close();
    await once(other, 'close');
    await (await start(port)).stop();
  });

  test('keeps passwords out of every file but one, and every file from everybody else', async () => {
    const server = await start();
    const password = server.superuser.password.reveal();
    await withClient(server.url('postgres'), (client) => client.query('SELECT nonsense')).catch(() => undefined);
    await server.stop();
    const file = join(dir, 'postgres', 'superuser-password');
    expect((await readFile(file, 'utf8')).trim()).toBe(password);
    const holding = await run('grep', ['-rlF', password, dir, dirname(server.dataDir)]);
    expect([...new Set(holding.stdout.trim().split('\n'))]).toEqual([file]);
    expect(await openToOthers(dir)).toEqual([]);
    expect(await openToOthers(server.dataDir)).toEqual([]);
  });

  test('hides its passwords from another user, and from the account that it runs as', async ({ skip }) => {
    if (!asRoot) skip('only root can look through the eyes of others');
    const server = await start();
    const serverUid = (await stat(server.dataDir)).uid;
    expect(serverUid).not.toBe(0);
    const secret = join(dir, 'postgres', 'superuser-password');
    for (const uid of [NOBODY, serverUid]) await expect(readAs(uid, secret)).rejects.toThrow('EACCES');
    const stranger = serverUid === NOBODY ? 12345 : NOBODY;
    await expect(readAs(stranger, join(server.dataDir, 'PG_VERSION'))).rejects.toThrow('EACCES');
    await server.stop();
  });

  test('sets a new password when the file is lost, and keeps the data', async () => {
    const first = await start();
    await keepAnswer(first);
    await first.stop();
    await rm(join(dir, 'postgres', 'superuser-password'));
    const second = await start();
    expect(second.superuser.password.reveal()).not.toBe(first.superuser.password.reveal());
    expect(await answerIn(second.url('postgres'))).toBe(42);
    await second.stop();
  });

  test('says what to do when the password in the file is not its own', async () => {
    await (await start()).stop();
    const file = join(dir, 'postgres', 'superuser-password');
    await writeFile(file, 'something else\n');
    await expect(start()).rejects.toThrow(`Remove ${file}`);
    await rm(file);
    await (await start()).stop();
  });

  test('tells why it does not start, in its own words', async () => {
    const server = await start();
    await server.stop();
    await rm(join(server.dataDir, 'pg_xact'), { recursive: true });
    await expect(start()).rejects.toMatchObject({
      code: 'server_failed',
      message: expect.stringContaining('pg_xact'),
    });
    expect(await processesOf(server.dataDir)).toEqual([]);
  });
});

describe('run as root', () => {
  test.skipIf(!asRoot)('it runs as an account without privileges and says where the data is', async () => {
    const lines: string[] = [];
    const server = await start(0, (line) => lines.push(line));
    expect(server.dataDir).toMatch(/^\/var\/lib\/mayfly-dev\/[0-9a-f]{16}\/data$/);
    expect(lines.join('\n')).toContain(dirname(server.dataDir));
    const owners = (await listProcesses()).filter(({ command }) => command.includes(server.dataDir));
    expect(owners.length).toBeGreaterThan(0);
    expect(owners.every(({ uid }) => uid > 0)).toBe(true);
    await server.stop();
  });

  test.skipIf(!asRoot)('data of a dev folder that was removed is not adopted', async () => {
    const first = await start();
    await keepAnswer(first);
    await first.stop();
    await rm(dir, { recursive: true });
    const second = await start();
    expect(second.fresh).toBe(true);
    await expect(answerIn(second.url('postgres'))).rejects.toMatchObject({ code: '42P01' });
    await second.stop();
  });
});

describe('run as an ordinary user', () => {
  test('it keeps everything in the dev folder, and starts again after a kill', async ({ skip }) => {
    if (!asRoot) skip('the other tests ran as one');
    if (!(await canRead(NOBODY, fileURLToPath(import.meta.url)))) skip('nobody else may read this folder');
    await chmod(base, 0o755);
    const home = join(base, 'theirs');
    await mkdir(home);
    await chown(home, NOBODY, NOBODY);
    const theirs = join(home, '.mayfly');
    const first = spawnBroker({ dir: theirs, port: 0 }, NOBODY);
    const { dataDir, fresh, url } = await first.ready;
    expect(fresh).toBe(true);
    expect(dataDir).toBe(join(theirs, 'postgres', 'data'));
    await withClient(url, (client) => client.query('CREATE TABLE kept AS SELECT 42 AS answer'));
    expect((await stat(dataDir)).uid).toBe(NOBODY);
    expect(await openToOthers(theirs)).toEqual([]);
    await endChild(first.child);
    expect(await processesOf(dataDir)).not.toEqual([]);

    const second = spawnBroker({ dir: theirs, port: 0 }, NOBODY);
    const again = await second.ready;
    expect(again.fresh).toBe(false);
    expect(await answerIn(again.url)).toBe(42);
    await endChild(second.child, 'SIGTERM');
    expect(await processesOf(dataDir)).toEqual([]);
  });
});

async function rulesOf(server: EmbeddedPostgres): Promise<unknown[]> {
  const sql = 'SELECT type, address, auth_method FROM pg_hba_file_rules';
  return withClient(server.url('postgres'), async (client) => (await client.query(sql)).rows);
}

async function keepAnswer(server: EmbeddedPostgres): Promise<void> {
  await withClient(server.url('postgres'), (client) => client.query('CREATE TABLE kept AS SELECT 42 AS answer'));
}

async function answerIn(url: string): Promise<unknown> {
  return withClient(url, async (client) => (await client.query('SELECT answer FROM kept')).rows[0].answer);
}

async function readAs(uid: number, path: string): Promise<void> {
  const code = `require('node:fs').readFileSync(${JSON.stringify(path)})`;
  await run(process.execPath, ['-e', code], { uid, gid: uid, cwd: '/', env: {} });
}

const canRead = (uid: number, path: string): Promise<boolean> =>
  readAs(uid, path).then(
    () => true,
    () => false,
  );
