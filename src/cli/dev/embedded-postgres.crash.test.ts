import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chown, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import pg from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { freePort } from '../../../test/support/free-port.ts';
import { type DevBroker, endChild, processesOf, spawnBroker, until } from '../../../test/support/dev-broker.ts';
import { discardEmbeddedPostgres, type EmbeddedPostgres, startEmbeddedPostgres } from './embedded-postgres.ts';
import { openPostgresHome } from './postgres-home.ts';
import { listProcesses } from './process-table.ts';
import { withClient } from './sql.ts';

const asRoot = process.getuid?.() === 0;

let base: string;
let dir: string;
const children: ChildProcess[] = [];

beforeEach(async () => {
  base = await mkdtemp(join(tmpdir(), 'mayfly-crash-'));
  dir = join(base, '.mayfly');
});
afterEach(async () => {
  await Promise.all(children.splice(0).map((child) => endChild(child)));
  await discardEmbeddedPostgres(dir);
  await rm(base, { recursive: true, force: true });
});

const start = (port = 0, log: (line: string) => void = () => undefined): Promise<EmbeddedPostgres> =>
  startEmbeddedPostgres({ dir, port, log });

function startBroker(port = 0): DevBroker {
  const broker = spawnBroker({ dir, port });
  children.push(broker.child);
  return broker;
}

describe('after a crash', () => {
  test('the server of a killed broker is stopped, and its data is taken over on the same port', async () => {
    const port = await freePort();
    const broker = startBroker(port);
    const { url, dataDir } = await broker.ready;
    const orphans = await processesOf(dataDir);
    expect(orphans.length).toBeGreaterThan(0);
    const client = new pg.Client(url);
    const errors: unknown[] = [];
    client.on('error', (error) => errors.push(error));
    await client.connect();
    await client.query('CREATE TABLE kept AS SELECT 42 AS answer');
    await endChild(broker.child);
    expect(await processesOf(dataDir)).toEqual(expect.arrayContaining(orphans));

    const lines: string[] = [];
    const server = await start(port, (line) => lines.push(line));
    await until(async () => errors.length > 0);
    expect(lines.join('\n')).toContain('an earlier broker had left behind');
    expect(server.fresh).toBe(false);
    expect(await answerIn(server.url('postgres'))).toBe(42);
    const now = await processesOf(dataDir);
    expect(now.filter((pid) => orphans.includes(pid))).toEqual([]);
    await server.stop();
  });

  test.each(['SIGTERM', 'SIGINT'] as const)('a broker that stops on %s leaves nothing running', async (signal) => {
    const broker = startBroker();
    const { dataDir } = await broker.ready;
    await endChild(broker.child, signal);
    expect(await processesOf(dataDir)).toEqual([]);
    await (await start()).stop();
  });

  test('a broker that ends without stopping takes its server along', async () => {
    const broker = startBroker();
    const { dataDir } = await broker.ready;
    broker.child.stdin?.write('crash\n');
    await once(broker.child, 'exit');
    expect(await until(async () => (await processesOf(dataDir)).length === 0)).toBe(true);
  });

  test('a killed postmaster leaves it startable, with what was committed', async () => {
    const first = await start();
    await keepAnswer(first);
    const [pid] = (await readFile(join(first.dataDir, 'postmaster.pid'), 'utf8')).split('\n');
    process.kill(Number(pid), 'SIGKILL');
    const second = await start();
    expect(await answerIn(second.url('postgres'))).toBe(42);
    await second.stop();
    await first.stop();
  });

  test('a pid file that names another program by now does not stop it, nor end that program', async () => {
    const first = await start();
    await first.stop();
    const bystander = spawn('sleep', ['600'], await accountOf(first.dataDir));
    children.push(bystander);
    await once(bystander, 'spawn');
    const pidFile = join(first.dataDir, 'postmaster.pid');
    await writeFile(pidFile, `${bystander.pid}\n${first.dataDir}\n1\n${first.port}\n\n127.0.0.1\n  1 1\nready   \n`);
    const { uid, gid } = await stat(first.dataDir);
    await chown(pidFile, uid, gid);
    const second = await start();
    expect(second.fresh).toBe(false);
    expect(bystander.exitCode ?? bystander.signalCode).toBeNull();
    await second.stop();
  });

  test('data that was half made is made anew', async () => {
    const broker = startBroker();
    broker.ready.catch(() => undefined);
    const draft = await until(findDraft);
    await endChild(broker.child);
    expect(await readdir(dirname(draft))).not.toContain('data');
    const server = await start();
    expect(server.fresh).toBe(true);
    expect((await readdir(dirname(draft))).filter((name) => name.startsWith('data.new-'))).toEqual([]);
    await server.stop();
    expect(await until(async () => (await listProcesses()).every(({ command }) => !command.includes(draft)))).toBe(
      true,
    );
  });
});

async function keepAnswer(server: EmbeddedPostgres): Promise<void> {
  await withClient(server.url('postgres'), (client) => client.query('CREATE TABLE kept AS SELECT 42 AS answer'));
}

async function answerIn(url: string): Promise<unknown> {
  return withClient(url, async (client) => (await client.query('SELECT answer FROM kept')).rows[0].answer);
}

async function accountOf(path: string): Promise<{ uid?: number; gid?: number }> {
  const { uid, gid } = await stat(path);
  return asRoot ? { uid, gid } : {};
}

/** The folder that an initdb of this test is filling now. */
async function findDraft(): Promise<string | undefined> {
  const pattern = /initdb -D (\S+\/data\.new-[0-9a-f]+) /;
  // Other suites may be making data of theirs at this moment.
  const { folder } = await openPostgresHome(dir, () => undefined);
  const found = (await listProcesses()).map(({ command }) => pattern.exec(command)?.[1]);
  return found.find((path) => path?.startsWith(`${folder}/`));
}
