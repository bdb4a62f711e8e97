import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { EventBody, MintedBody, TaskBody } from '../../src/client/index.ts';
import { ask } from '../support/ask.ts';
import { type CliProcess, mayflyArguments } from '../support/cli.ts';
import { type DevHome, makeDevHome } from '../support/dev-home.ts';

const READ = 'ledger-db/read-invoices';

let home: DevHome;
beforeAll(async () => {
  home = await makeDevHome();
});
afterAll(async () => {
  await home?.close();
});

test.each([
  ['dev', ['dev']],
  ['serve --catalog', ['serve', '--catalog', 'catalog']],
])('`mayfly %s` in production ends with a word and leaves nothing', async (_what, args) => {
  const { code, stdout, stderr } = await home.run(args, { env: { NODE_ENV: 'production' } });
  expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
  expect(stderr).toContain('it refuses NODE_ENV=production');
  expect(existsSync(home.devDir)).toBe(false);
});

describe('a running dev broker', () => {
  let dev: CliProcess;
  beforeAll(async () => {
    dev = await home.startDev();
  });

  test('says what it started, where, and three commands', () => {
    const { stdout } = dev.said();
    const postgresPort = home.ports[3];
    expect(stdout).toMatch(new RegExp(`^PostgreSQL 18 +127\\.0\\.0\\.1:${postgresPort}, data in /.* \\(new\\)$`, 'm'));
    expect(stdout).toMatch(/^Demo target +database ledger, about 10,000 rows \(new\)$/m);
    expect(stdout).toMatch(new RegExp(`^Dev issuer +http://127\\.0\\.0\\.1:${home.ports[5]}, keys in /`, 'm'));
    expect(stdout).toContain(`Catalog         ${home.catalog}, revision 1; applied again when it changes`);
    expect(stdout).toContain(`Broker          ${home.url}`);
    expect(stdout.match(/^ {2}np[mx] .*$/gm)).toHaveLength(3);
    for (const file of ['dev.json', 'issuer-secret', 'secrets/ledger-db/password'])
      expect((statSync(join(home.devDir, file)).mode & 0o777).toString(8), file).toBe('600');
  });

  test('the commands that it says do what they promise', async () => {
    const psql = spawnSync('psql', ['--version']).status === 0;
    const said = [...dev.said().stdout.matchAll(/^ {2}npx (mayfly .*)$/gm)].map(([, line = '']) => line);
    const lines = said.filter((line) => psql || !line.includes('psql'));
    expect(lines.length).toBeGreaterThan(0);
    // As a person's shell would take them apart.
    const mayfly = `mayfly() { "${process.execPath}" ${mayflyArguments.map((part) => `"${part}"`).join(' ')} "$@"; }`;
    const ended = await Promise.all(lines.map((line) => home.run(['-c', `${mayfly}; ${line}`], { program: 'sh' })));
    for (const { code, stderr } of ended) expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const outputs = ended.map(({ stdout }) => stdout);
    expect(outputs.find((text) => text.includes('eyJ'))?.trim()).toMatch(/^[\w-]+\.[\w-]+\.[\w-]+$/);
    expect(outputs.filter((text) => /^ *5500$/m.test(text))).toHaveLength(psql ? 1 : 0);
  });

  test('plays the demo', async () => {
    const { code, stdout, stderr } = await home.run(['demo']);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toContain('The story is as told: nothing of the credential is left.');
    expect(stdout).toMatch(/permission denied for table payments \(42501\)/);
    expect(stdout).toMatch(/password authentication failed for user "mfy_\w+" \(28P01\)/);
  });

  test('takes the tour of the README', async () => {
    const sign = ['task', 'sign', '--purpose', 'reconcile.invoices', '--entitlement', READ];
    const [token, request] = (await Promise.all([home.run(['dev', 'token']), home.run(sign)])).map(({ stdout }) =>
      stdout.trim(),
    );
    const call = async (method: string, path: string, body?: unknown) => {
      const reply = await ask(home.url.replace('127.0.0.1', 'localhost'), method, path, {
        token: token ?? '',
        headers: { dpop: await proof(method, path, token ?? '') },
        ...(body === undefined ? {} : { body }),
      });
      return { status: reply.status, body: reply.body };
    };
    const opened = await call('POST', '/v1/tasks', { request });
    expect(opened.status).toBe(201);
    const { id } = opened.body['task'] as TaskBody;
    const issued = await call('POST', `/v1/tasks/${id}/grants`, { entitlement: READ, ttl_seconds: 120 });
    expect(issued.status).toBe(201);
    const { url } = issued.body['credential'] as { url: string };
    expect(await query(url, 'select status, count(*) from invoices group by 1')).toHaveLength(6);
    await expect(query(url, 'delete from invoices')).rejects.toMatchObject({ code: '42501' });
    expect((await call('POST', `/v1/tasks/${id}/complete?wait=30`)).status).toBe(200);
    await expect(query(url, 'select 1')).rejects.toMatchObject({ code: '28P01' });
    const { items } = (await call('GET', `/v1/tasks/${id}/timeline`)).body as { items: EventBody[] };
    expect(items.map(({ type }) => type)).toEqual(expect.arrayContaining(['task.opened', 'revocation.contained']));
  });

  test('gives an operator every role, and no token for longer than an hour', async () => {
    const [operator, long] = await Promise.all([
      home.run(['dev', 'token', '--operator', '--ttl', '60']),
      home.run(['dev', 'token', '--ttl', '3601']),
    ]);
    const payload = Buffer.from(operator.stdout.split('.')[1] ?? '', 'base64url').toString();
    const { roles, exp, iat } = JSON.parse(payload);
    expect(roles).toEqual(['viewer', 'operator', 'approver', 'auditor', 'admin']);
    expect(exp - iat).toBe(60);
    expect(long).toMatchObject({ code: 2, stderr: '--ttl takes whole seconds from 1 to 3600, not "3601".\n' });
  });

  test('is the only one of its folder', async () => {
    const { code, stderr } = await home.run(['dev', ...home.ports]);
    expect(code).toBe(1);
    expect(stderr).toContain(`A dev broker already runs on ${home.devDir}: pid ${dev.pid}`);
  });

  test('tells a second one of another folder which port is taken, before anything is made', async () => {
    const other = join(home.folder, 'other');
    const { code, stdout, stderr } = await home.run(['dev', ...home.ports], { env: { MAYFLY_DIR: other } });
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toContain(`The broker cannot listen on ${home.url.slice('http://'.length)}`);
    expect(stderr).toMatch(/choose another port with MAYFLY_PORT\.\n$/);
    expect(existsSync(other)).toBe(false);
  });

  test('is there for the commands that need its store', async () => {
    const [checked, compared, applied, target, config] = await Promise.all([
      home.run(['catalog', 'check', home.catalog]),
      home.run(['catalog', 'diff', home.catalog]),
      home.run(['catalog', 'apply', home.catalog, '--by', 'a test']),
      home.run(['target', 'check', 'ledger-db']),
      home.run(['config', '--json']),
    ]);
    for (const { code, stderr } of [checked, compared, applied, target, config])
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(checked.stdout).toMatch(/^Valid: 1 target, 3 entitlements, \d+ policies, \d+ policy tests passed\.$/m);
    expect(checked.stdout).toContain('only `mayfly dev` accepts it');
    expect(compared.stdout).toContain('Nothing changes.');
    expect(applied.stdout).toContain('Exactly this catalog is active already.');
    expect(target.stdout).toMatch(/^ok {4}ledger-db\/set-invoice-status {2}verify: gone/m);
    expect(target.stdout).not.toContain('FAIL');
    expect(JSON.parse(config.stdout)).toMatchObject({ MAYFLY_PUBLIC_URL: home.url, MAYFLY_DATABASE_URL: '' });
  });

  test('is refused its store by `serve`, which says all that is wrong at once', async () => {
    const password = readFileSync(join(home.devDir, 'secrets', 'state-db', 'mayfly_runtime'), 'utf8').trim();
    const store = `postgres://mayfly_runtime:${password}@127.0.0.1:${home.ports[3]}/mayfly`;
    const [ofDev, faulty] = await Promise.all([
      home.run(['serve'], { env: { MAYFLY_DATABASE_URL: store, MAYFLY_PORT: '1' } }),
      home.run(['serve'], { env: { MAYFLY_PORT: 'x', MAYFLY_HOST: '0.0.0.0', MAYFLY_NONSENSE: '1' } }),
    ]);
    expect(ofDev).toMatchObject({ code: 1, stderr: expect.stringContaining('This store was made by `mayfly dev`') });
    expect(ofDev.stdout + ofDev.stderr).not.toContain(password);
    expect(
      faulty.stderr
        .trim()
        .split('\n')
        .slice(1)
        .map((line) => line.trim().split(':')[0]),
    ).toEqual(['MAYFLY_NONSENSE', 'MAYFLY_PORT', 'MAYFLY_DATABASE_URL']);
  });

  test('applies a catalog that changed, and keeps it when the next one is faulty', async () => {
    const opened = await open('agent-collections', 'collect.overdue', 'ledger-db/count-customers');
    expect(await opened.issue()).toMatchObject({ status: 403, body: { code: 'not_in_task' } });

    const entitlement = `
- name: ledger-db/count-customers
  target: ledger-db
  sensitivity: internal
  actions: [read]
  max_ttl_seconds: 77
  provider:
    template: mayfly_t_count_customers
    privileges: [{ schema: billing, tables: [customers], grant: [SELECT] }]
    connection_limit: 1
`;
    writeFileSync(
      join(home.catalog, 'policies', 'counting.cedar'),
      '@id("counting") permit (principal is Mayfly::Task, action, resource == Mayfly::Entitlement::"ledger-db/count-customers");\n',
    );
    home.edit('entitlements/ledger-db.yaml', (text) => text + entitlement);
    await dev.says(/revision 2 is active/);
    const issued = await opened.issue();
    expect(issued.status).toBe(201);
    const { url } = issued.body['credential'] as { url: string };
    expect(await query(url, 'SELECT 1 FROM billing.customers LIMIT 1')).toHaveLength(1);

    // As an editor does it: written beside, then renamed.
    const file = join(home.catalog, 'entitlements', 'ledger-db.yaml');
    const good = readFileSync(file, 'utf8');
    const line = good.split('\n').findIndex((text) => text.includes('max_ttl_seconds: 77')) + 1;
    writeFileSync(`${file}~`, good.replace('max_ttl_seconds: 77', 'max_ttl_seconds: long'));
    renameSync(`${file}~`, file);
    await dev.says(new RegExp(`not applied[^]*entitlements/ledger-db\\.yaml:${line} \\S*max_ttl_seconds`));
    expect((await opened.issue()).status).toBe(201);

    writeFileSync(file, good.replace('max_ttl_seconds: 77', 'max_ttl_seconds: 33'));
    await dev.says(/revision 3 is active/);
    const { body } = await opened.issue();
    const { deadline, created_at: created } = body['grant'] as MintedBody;
    expect(Date.parse(deadline) - Date.parse(created)).toBeLessThanOrEqual(33_000);
    expect(await home.query('mayfly', 'SELECT revision::int FROM mayfly.catalog_active')).toEqual([{ revision: 3 }]);
    await opened.complete();
  });

  test('ends on SIGTERM with nothing left running', async () => {
    dev.child.kill('SIGTERM');
    expect(await dev.ended).toMatchObject({
      code: 0,
      signal: null,
      stderr: expect.stringContaining('SIGTERM: stopping.'),
    });
    await expect(home.query('mayfly', 'SELECT 1')).rejects.toMatchObject({ code: 'ECONNREFUSED' });
    const { code, stderr } = await home.run(['dev', 'token']);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^The dev issuer at http:\/\/127\.0\.0\.1:\d+ does not answer\. Is the broker running/);
  });

  async function proof(method: string, path: string, token: string): Promise<string> {
    return (await home.run(['dev', 'proof', method, path, '--token', token])).stdout.trim();
  }

  /** Opens a task of its own. */
  async function open(workload: string, purpose: string, entitlement: string) {
    const [token = '', request = ''] = (
      await Promise.all([
        home.run(['dev', 'token', '--workload', workload]),
        home.run(['task', 'sign', '--workload', workload, '--purpose', purpose, '--entitlement', entitlement]),
      ])
    ).map(({ stdout }) => stdout.trim());
    const send = async (method: string, path: string, body?: unknown) =>
      await ask(home.url, method, path, { token, headers: { dpop: await proof(method, path, token) }, body });
    const opened = await send('POST', '/v1/tasks', { request });
    expect(opened.status).toBe(201);
    const path = `/v1/tasks/${(opened.body['task'] as TaskBody).id}`;
    return {
      issue: () => send('POST', `${path}/grants`, { entitlement }),
      complete: () => send('POST', `${path}/complete?wait=30`),
    };
  }
});

async function query(connectionString: string, text: string): Promise<unknown[]> {
  const client = new pg.Client({ connectionString });
  client.on('error', () => {});
  await client.connect();
  try {
    return (await client.query(text)).rows;
  } finally {
    await client.end();
  }
}
