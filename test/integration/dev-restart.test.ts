import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { AgentKey, type GrantBody, MayflyClient } from '../../src/client/index.ts';
import { createDevIssuer, type DevIssuer } from '../../src/cli/dev/issuer.ts';
import type { CliProcess } from '../support/cli.ts';
import { type DevHome, makeDevHome } from '../support/dev-home.ts';

// One folder, ended in every way that there is, one after the other. Each start finds what the one before left.

const READ = 'ledger-db/read-invoices';

const key = await AgentKey.make();
let home: DevHome;
let dev: CliProcess;
let installation: unknown;

beforeAll(async () => {
  home = await makeDevHome();
  dev = await home.startDev();
  installation = await readInstallation();
});
afterAll(async () => {
  await home?.close();
});

const readInstallation = () => home.query('mayfly', 'SELECT id, dev FROM mayfly.installation');

/** Signs with the keys of the folder, without asking whether the issuer's listener runs. */
async function issuer(): Promise<DevIssuer> {
  return await createDevIssuer({ dir: home.devDir, port: Number(home.ports[5]) });
}

async function client(): Promise<MayflyClient> {
  const signed = await (await issuer()).signWorkloadToken({ subject: 'agent-recon', audience: home.url });
  return new MayflyClient({ url: home.url, token: () => signed.token, key });
}

async function openTask(): Promise<string> {
  const { token } = await (await issuer()).signTaskRequest({
    audience: home.url,
    workload_subject: 'agent-recon',
    key_thumbprint: key.thumbprint,
    subject: 'user:dana',
    purpose: 'reconcile.invoices',
    entitlements: [READ],
    ttl_seconds: 600,
  });
  return (await (await client()).openTask(token)).task.id;
}

async function roles(): Promise<string[]> {
  const rows = await home.query<{ rolname: string }>(
    'ledger',
    `SELECT rolname FROM pg_roles WHERE rolname LIKE 'mfy\\_%'`,
  );
  return rows.map(({ rolname }) => rolname);
}

const revocations = () => home.query<{ state: string }>('mayfly', 'SELECT state FROM mayfly.revocations ORDER BY id');

test('kill -9, with revocations outstanding: the next start reuses the data and carries them out', async () => {
  const agent = await client();
  const grants: GrantBody[] = [];
  // One whose deadline is far away, one that is due while nobody runs.
  for (const ttl of [300, 6]) {
    const { grant } = await agent.issue(await openTask(), { entitlement: READ, ttl_seconds: ttl });
    grants.push(grant);
  }
  dev.child.kill('SIGKILL');
  await dev.ended;
  // The server that the killed broker leaves behind still answers: what is owed stands in it.
  expect(await revocations()).toEqual([{ state: 'scheduled' }, { state: 'scheduled' }]);
  expect(await roles()).toHaveLength(2);
  const due = `SELECT FROM mayfly.grants WHERE deadline < clock_timestamp()`;
  await vi.waitFor(async () => expect(await home.query('mayfly', due)).toHaveLength(1), { interval: 50 });

  dev = await home.startDev();
  const { stdout, stderr } = dev.said();
  expect(stdout).not.toContain('(new)');
  expect(stdout).toContain('catalog, unchanged;');
  expect(stderr).toContain('Stopped a PostgreSQL that an earlier broker had left behind');
  expect(await readInstallation()).toEqual(installation);
  await vi.waitFor(async () => expect(await roles()).toHaveLength(1), { timeout: 60_000, interval: 50 });
  const [later, lapsed] = grants;
  expect((await (await client()).grant(lapsed?.id ?? '')).ended_by).toBe('expired');

  // The other one lives on, and ends as ever.
  const again = await client();
  expect((await again.grant(later?.id ?? '')).state).toBe('active');
  expect((await again.complete(later?.task_id ?? '', { wait: 30 })).task.state).toBe('completed');
});

test('kill -9 while a task is being ended: what was decided is done by the next start', async () => {
  const agent = await client();
  const id = await openTask();
  for (let n = 0; n < 4; n++) await agent.issue(id, { entitlement: READ });
  const done = agent.complete(id);
  await done;
  dev.child.kill('SIGKILL');
  await dev.ended;
  dev = await home.startDev();
  // The roles go first, and the record follows.
  const states = async () => [...new Set((await revocations()).map(({ state }) => state))];
  await vi.waitFor(async () => expect(await states()).toEqual(['clean']), { timeout: 60_000, interval: 50 });
  expect(await roles()).toEqual([]);
  expect(await readInstallation()).toEqual(installation);
});

test.each(['SIGINT', 'SIGTERM'] as const)('%s stops everything, also when it comes twice at once', async (signal) => {
  // From the terminal, to the whole group, and from npm, which passes it on.
  dev.child.kill(signal);
  dev.child.kill(signal);
  const { code, stderr } = await dev.ended;
  expect({ code, last: stderr.trim().split('\n').at(-1) }).toEqual({ code: 0, last: `${signal}: stopping.` });
  await expect(readInstallation()).rejects.toMatchObject({ code: 'ECONNREFUSED' });
  if (signal === 'SIGTERM') return;
  dev = await home.startDev();
  expect(dev.said().stderr).not.toContain('left behind');
  expect(await readInstallation()).toEqual(installation);
});

test('`mayfly demo` starts its own broker where none runs, and takes it along when it ends', async () => {
  const { code, stdout, stderr } = await home.run(['demo', ...home.ports]);
  expect(code).toBe(0);
  expect(stderr).toContain('No dev broker runs in this folder: starting one for the length of the demo.');
  expect(stdout).toContain('The story is as told');
  await expect(readInstallation()).rejects.toMatchObject({ code: 'ECONNREFUSED' });
});

test('a demo that is left by Ctrl-C takes its broker along', async () => {
  const demo = home.start(['demo', ...home.ports]);
  await demo.says(/starting one for the length of the demo/);
  demo.child.kill('SIGINT');
  expect(await demo.ended).toMatchObject({ code: 130, stderr: expect.stringContaining('SIGINT: the demo was left') });
  await expect(readInstallation()).rejects.toMatchObject({ code: 'ECONNREFUSED' });
  // No draft of a file, and one lock that nobody holds.
  expect(readdirSync(home.devDir).filter((name) => name.endsWith('.tmp'))).toEqual([]);
  expect(readdirSync(join(home.devDir, 'lock')).length).toBeLessThanOrEqual(2);
});
