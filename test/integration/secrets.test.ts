import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { PassThrough } from 'node:stream';
import { Redis } from 'ioredis';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import type { Credential, GrantBody, TaskBody } from '../../src/client/index.ts';
import { ask, type AskOptions, type Reply } from '../support/ask.ts';
import { type House, startHouse } from '../support/house.ts';
import { type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { redisAvailable, type RedisServer, startRedis } from '../support/redis-server.ts';
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts';

// A secret stands in the target and in one answer. This plays a whole life and then looks for each secret everywhere else.

const backends = ['postgres', ...(redisAvailable() ? ['redis'] : [])];
const READ = 'ledger-db/read-invoices';

let server: PostgresServer;
beforeAll(async () => {
  server = await startPostgres({ version: 18 });
});
afterAll(async () => {
  await server?.stop();
});

/** As a secret could stand somewhere: as it is, and as a dump writes bytes. */
function spellings(secret: string): string[] {
  const bytes = Buffer.from(secret);
  // The last characters of base64 depend on what follows.
  return [secret, bytes.toString('hex'), bytes.toString('base64').slice(0, -4), encodeURIComponent(secret)];
}

function isIn(haystack: string, secret: string): boolean {
  return spellings(secret).some((spelling) => haystack.includes(spelling));
}

/** Every row of every table of every schema, as text. */
async function dump(url: string): Promise<string> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    const { rows: tables } = await client.query<{ name: string }>(`
      SELECT format('%I.%I', n.nspname, c.relname) AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE c.relkind IN ('r', 'p', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema')`);
    const parts: string[] = [];
    for (const { name } of tables) {
      const { rows } = await client.query<{ row: string }>(`SELECT whole_row::text AS row FROM ${name} AS whole_row`);
      parts.push(name, ...rows.map(({ row }) => row));
    }
    return parts.join('\n');
  } finally {
    await client.end();
  }
}

describe.each(backends)('with alarms on %s', (backend) => {
  let house: House;
  let redis: RedisServer | undefined;
  let proxy: TcpProxy;
  let token: string;
  let logged = '';
  /** Name → secret. Nothing of them may be found. */
  const secrets = new Map<string, string>();
  /** Written by the caller into everything that a caller can write to. It must be found. */
  const planted = randomBytes(24).toString('hex');
  const problems: string[] = [];
  let midway = '';
  let places: Record<string, string>;

  const send = async (
    method: string,
    path: string,
    body?: unknown,
    headers: AskOptions['headers'] = {},
  ): Promise<Reply> => {
    const reply = await ask(house.url, method, path, {
      token,
      ...(body === undefined ? {} : { body }),
      headers: { 'x-request-id': planted, ...headers },
    });
    if (reply.status >= 400) problems.push(reply.text);
    return reply;
  };
  const keep = (name: string, reply: Reply): { grant: GrantBody; credential: Credential } => {
    expect(reply.status).toBe(201);
    const { grant, credential } = reply.body as { grant: GrantBody; credential: Credential };
    secrets.set(`the password of the ${name}`, String(credential['password']));
    return { grant, credential };
  };
  const onlySignature = (compact: string) => compact.split('.')[2] ?? '';

  beforeAll(async () => {
    redis = backend === 'redis' ? await startRedis() : undefined;
    proxy = await startTcpProxy(server.port, { keepSent: true });
    const log = new PassThrough().setEncoding('utf8').on('data', (text: string) => void (logged += text));
    house = await startHouse({
      server,
      targetPort: proxy.port,
      inProcess: false,
      logTo: log,
      maxLive: 3,
      env: { MAYFLY_LOG_LEVEL: 'trace', ...(redis === undefined ? {} : { MAYFLY_REDIS_URL: redis.url }) },
    });
    token = await house.token();
    await live();
    places = {
      'the state database': await dump(server.superuserUrl(house.store.database)),
      'the queue and the state database, midway': midway,
      'the log': logged,
      'the metrics': (await ask(house.url, 'GET', '/metrics')).text,
      'the problems that were answered': problems.join('\n'),
      'the log of the servers': server.log(),
      ...(redis === undefined ? {} : { Redis: await dumpRedis(redis) }),
    };
  });
  afterAll(async () => {
    await house?.stop();
    await proxy?.close();
    await redis?.stop();
  });

  /** A whole life: open, issue, use, renew, ask again with a key, fail to mint in two ways, complete. */
  async function live(): Promise<void> {
    const request = await house.sign({ entitlements: [READ, 'ledger-db/read-payments'] });
    const opened = await send('POST', '/v1/tasks', { request, issue: [READ] });
    expect(opened.status).toBe(201);
    const { task, issued } = opened.body as { task: TaskBody; issued: { credential: Credential }[] };
    secrets.set('the password that came with the task', String(issued[0]?.credential['password']));
    const grants = `/v1/tasks/${task.id}/grants`;

    const first = keep('first grant', await send('POST', grants, { entitlement: READ }, { 'idempotency-key': 'key' }));
    const session = new pg.Client({ connectionString: String(first.credential['url']) });
    session.on('error', () => {});
    await session.connect();
    expect((await send('POST', `/v1/grants/${first.grant.id}/renew`, { ttl_seconds: 250 })).status).toBe(200);
    keep('repeated grant', await send('POST', grants, { entitlement: READ }, { 'idempotency-key': 'key' }));
    // Short, so that its alarm is set.
    keep('third grant', await send('POST', grants, { entitlement: READ, ttl_seconds: 30 }));
    for (const [role, part] of await verifiers()) secrets.set(`a part of the verifier of ${role}`, part);

    // Refused in the statement that makes the role, then before it is looked at.
    expect((await send('POST', grants, { entitlement: READ })).body).toMatchObject({ code: 'target_unavailable' });
    await onMint('REVOKE');
    expect((await send('POST', grants, { entitlement: READ })).body).toMatchObject({ code: 'target_refused' });
    await onMint('GRANT');

    // Refusals, by callers who put into them what they hold.
    await send('POST', grants, { entitlement: 'ledger-db/read-payments' });
    await send('POST', grants, { entitlement: READ, ttl_seconds: 5 }, { 'idempotency-key': 'key' });
    await send('POST', '/v1/tasks', { request: `${request}x` });
    await send('POST', '/v1/tasks', { request: token });
    await send('GET', `/v1/tasks/${task.id}`, undefined, { authorization: `Bearer ${token}x` });
    await send('GET', `/v1/tasks/${task.id}`, undefined, { authorization: `Bearer ${request}` });
    await send('GET', `/v1/nothing?token=${token}`);
    await send('POST', grants, `{"password": "${[...secrets.values()][0]}"`);

    // Alarms stand in the queue only as long as they are to come.
    midway = `${await dump(server.superuserUrl(house.store.database))}\n${(await redis?.dump()) ?? ''}`;
    const done = await send('POST', `/v1/tasks/${task.id}/complete?wait=30`);
    expect(done.status).toBe(200);
    await session.end().catch(() => {});
    await vi.waitFor(
      async () => {
        const rows = await house.onStore<{ state: string }>('SELECT DISTINCT state FROM mayfly.revocations');
        expect(rows).toEqual([{ state: 'clean' }]);
      },
      { timeout: 60_000, interval: 50 },
    );
    await send('GET', `/v1/tasks/${task.id}/timeline`);

    secrets.set('the workload token', onlySignature(token));
    secrets.set('the task request', onlySignature(request));
    secrets.set('the claims of the task request', request.split('.')[1] ?? '');
    secrets.set('the password of the broker on the target', house.targetPassword);
    secrets.set('the password of the broker on the store', new URL(house.store.runtimeUrl.reveal()).password);
    secrets.set('the secret of the dev issuer', readFileSync(house.issuer.secretFile, 'utf8').trim());
    // Also of the mints that failed: they went over the wire all the same.
    for (const [index, part] of partsOf(proxy.sent().toString('latin1')).entries())
      secrets.set(`part ${index} of a verifier that was sent`, part);
  }

  function partsOf(text: string): string[] {
    const found = [...text.matchAll(/SCRAM-SHA-256\$\d+:([\w+/=]+)\$([\w+/=]+):([\w+/=]+)/g)];
    return found.flatMap(([, salt = '', stored = '', serverKey = '']) => [salt, stored, serverKey]);
  }

  /** Salt, stored key and server key of every role that lives now. */
  async function verifiers(): Promise<[role: string, part: string][]> {
    const rows = await house.onTarget<{ rolname: string; rolpassword: string }>(
      `SELECT rolname, rolpassword FROM pg_authid WHERE rolname LIKE 'mfy\\_%' AND rolpassword IS NOT NULL`,
    );
    return rows.flatMap(({ rolname, rolpassword }) =>
      partsOf(rolpassword).map((part, index): [string, string] => [`${rolname} (${index})`, part]),
    );
  }

  async function onMint(what: 'GRANT' | 'REVOKE'): Promise<void> {
    await house.onTarget(`DO $$ BEGIN EXECUTE (
      SELECT format('${what} EXECUTE ON FUNCTION %s ${what === 'GRANT' ? 'TO' : 'FROM'} %I', p.oid::regprocedure, '${house.targetDatabase}_broker')
      FROM pg_proc p WHERE p.proname = 'mint' AND p.pronamespace = 'mayfly'::regnamespace); END $$`);
  }

  async function dumpRedis(from: RedisServer): Promise<string> {
    const client = new Redis(from.url);
    // Long enough to be compressed, if anything were.
    await client.xadd('planted', '*', ...Array.from({ length: 20 }, () => planted));
    client.disconnect();
    return await from.dump();
  }

  test('the life was whole: passwords, verifiers of mints that failed too, tokens and refusals', () => {
    const names = [...secrets.keys()];
    expect(names.filter((name) => name.startsWith('the password of the') || name.includes('came with'))).toHaveLength(
      6,
    );
    // Four that were minted and two that were not, three parts each; and each of those that were is known from the target too.
    expect(names.filter((name) => name.startsWith('part '))).toHaveLength(18);
    for (const [name, secret] of secrets) expect(secret.length, name).toBeGreaterThan(12);
    expect(problems.length).toBeGreaterThanOrEqual(10);
  });

  test('no secret stands anywhere but in the target and in the answer', () => {
    const found = Object.entries(places).flatMap(([place, text]) =>
      [...secrets].filter(([, secret]) => isIn(text, secret)).map(([name]) => `${name}: in ${place}`),
    );
    expect(found).toEqual([]);
  });

  test('and what does stand there is found: what the caller itself wrote, and the broker’s own words', async () => {
    for (const place of ['the state database', 'the log', 'the problems that were answered'])
      expect(isIn(places[place] ?? '', planted), place).toBe(true);
    expect(midway).toMatch(redis === undefined ? /^bullmq\.[^]*at-\d{13}/m : /bull:mayfly-ledger-db:at-\d{13}/);
    expect(isIn(places['Redis'] ?? planted, planted)).toBe(true);
    expect(places['the metrics']).toMatch(/^mayfly_mints_total\{[^}]*outcome="failed"[^}]*\} 2$/m);
    expect(places['the log']).toContain('"level":"debug"');
    expect(places['the log of the servers']).toContain('permission denied for function mint');
    await house.onStore('CREATE TABLE planted (t text, b bytea, j jsonb)');
    const secret = [...secrets.values()][0] ?? '';
    for (const column of ['t', 'b', 'j']) {
      const value = column === 'j' ? JSON.stringify({ deep: [secret] }) : column === 'b' ? Buffer.from(secret) : secret;
      await house.onStore(`INSERT INTO planted (${column}) VALUES ($1)`, [value]);
      expect(isIn(await dump(server.superuserUrl(house.store.database)), secret), column).toBe(true);
      await house.onStore('DELETE FROM planted');
    }
    expect(isIn(await dump(server.superuserUrl(house.store.database)), secret)).toBe(false);
  });

  test('the password did not even go over the wire to the target', () => {
    const sent = proxy.sent().toString('latin1');
    const found = [...secrets].filter(([name, secret]) => name.includes('password') && isIn(sent, secret));
    expect(found.map(([name]) => name)).toEqual([]);
    expect(sent).toContain('SCRAM-SHA-256');
  });
});
