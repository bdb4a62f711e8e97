import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { prepare, provider } from '../../../providers/postgres/index.ts';
import type { PostgresVersion } from '../../support/postgres-binaries.ts';
import { Secret } from '../../../src/provider.ts';
import { startPostgres } from '../../support/postgres-servers.ts';
import { type Access, type Credential, type Driver, tcpFaults } from '../provider/index.ts';
import { postgresLies } from './postgres-lies.ts';

const database = 'ledger';
const user = 'broker_ledger';
const invoices = {
  name: 'ledger-db/read-invoices',
  config: {
    template: 'mayfly_t_ledger',
    privileges: [{ schema: 'billing', tables: ['invoices'], grant: ['SELECT'] }],
    connection_limit: 5,
  },
};
const payments = {
  name: 'ledger-db/own-payments',
  config: {
    template: 'mayfly_t_rows',
    privileges: [{ schema: 'billing', tables: ['payments'], grant: ['SELECT', 'UPDATE'] }],
    row_security: [{ schema: 'billing', table: 'payments', column: 'tenant', param: 'tenant' }],
    connection_limit: 5,
  },
  params: [{ tenant: 'acme' }, { tenant: 'globex' }],
} as const;

const beyond: Readonly<Record<string, readonly string[]>> = {
  [invoices.name]: ['DELETE FROM billing.invoices', 'SELECT * FROM billing.payments'],
  [payments.name]: ['SELECT * FROM billing.invoices', 'DELETE FROM billing.payments'],
};
const always = [
  'SELECT * FROM billing.salaries',
  'CREATE TABLE public.mine (a int)',
  'CREATE ROLE friend',
  `ALTER ROLE CURRENT_USER VALID UNTIL 'infinity'`,
  'SELECT mayfly.status()',
  `COPY (SELECT 1) TO PROGRAM 'true'`,
];

/** Refusals by right or login, too many connections, and the end of a session. Anything else is trouble. */
const refusals = /^(42501|28...|53300|57P0.)$/;

export function postgresDriver(version: PostgresVersion): Driver {
  return { provider, start: () => start(version) };
}

async function start(version: PostgresVersion): ReturnType<Driver['start']> {
  const installation = randomUUID();
  const password = randomUUID();
  const [server, second] = await Promise.all([startPostgres({ version }), startPostgres({ version })]);
  const proxy = await tcpFaults(server.port);
  const connection = {
    host: '127.0.0.1',
    port: proxy.port,
    agent_endpoint: { host: '127.0.0.1', port: server.port },
    database,
    user,
    password: 'env:LEDGER_PASSWORD',
    sslmode: 'disable',
  };
  for (const each of [server, second]) {
    const url = await each.createDatabase(database);
    await onServer(url, [
      `REVOKE CREATE ON SCHEMA public FROM PUBLIC;
       CREATE SCHEMA billing;
       CREATE TABLE billing.invoices AS SELECT n AS id, n * 10 AS amount FROM generate_series(1, 100) n;
       CREATE TABLE billing.salaries AS SELECT 1 AS id, 100 AS amount;
       CREATE TABLE billing.payments AS
         SELECT n AS id, CASE WHEN n % 2 = 0 THEN 'acme' ELSE 'globex' END AS tenant FROM generate_series(1, 100) n;`,
    ]);
    const all = [invoices, payments].map(({ name, config }) => {
      return { name, maxTtlSeconds: 900, config: provider.entitlementSchema.parse(config) };
    });
    const target = provider.targetSchema.parse({ ...connection, port: each.port });
    await prepare(url, target, all, installation, { password: new Secret(password) });
  }
  const url = server.superuserUrl(database);
  const admin = (sql: string, values: readonly unknown[] = []) => onServer(url, [sql], values);
  const opened = new Set<pg.Client>();
  /** What must be open again after a restart, which ends every session. */
  const reopened: (() => Promise<void>)[] = [];

  return {
    connection,
    installation,
    secrets: { 'env:LEDGER_PASSWORD': password },
    entitlements: [invoices, payments],
    use: async (credential, entitlement, params) =>
      await access(credential, async (agent) => {
        if (entitlement === invoices.name) return await agent.query('SELECT count(*) FROM billing.invoices');
        const { rowCount } = await agent.query('SELECT FROM billing.payments WHERE tenant = $1', [params?.['tenant']]);
        if (rowCount === 0) throw Object.assign(new Error('no row of that tenant'), { code: '42501' });
        return rowCount;
      }),
    secretsOf: ({ password: secret }) => [String(secret)],
    look: async (handle, facts) => {
      const found = await admin(
        `SELECT 'the role ' || rolname AS what FROM pg_roles WHERE rolname = $1 OR oid = $2
         UNION ALL SELECT 'a session of ' || coalesce(usename, usesysid::text) FROM pg_stat_activity
         WHERE usename = $1 OR usesysid = $2`,
        [handle, facts?.['oid'] ?? null],
      );
      return found.map(({ what }) => String(what));
    },
    stop: async () => {
      await Promise.all([...opened].map((agent) => agent.end().catch(() => {})));
      await proxy.close();
      await Promise.all([server.stop(), second.stop()]);
    },
    exceed: async (credential, entitlement) => {
      const attempts = [];
      for (const what of [...(beyond[entitlement] ?? []), ...always])
        attempts.push({ what, came: await access(credential, (agent) => agent.query(what)) });
      return attempts;
    },
    open: async (credential) => {
      const agent = await login(credential);
      opened.add(agent);
      return {
        works: async () => await tried(agent.query('SELECT 1')),
        close: async () => {
          opened.delete(agent);
          await agent.end().catch(() => {});
        },
      };
    },
    foreign: async () => {
      // Named as ours are, without our mark, and with a session open.
      const handle = `mfy_${randomUUID().replaceAll('-', '')}`;
      const secret = randomUUID();
      await admin(`CREATE ROLE ${handle} LOGIN PASSWORD '${secret}'`);
      const reopen = async (): Promise<pg.Client> => {
        const again = await login({ ...agentEndpoint(server.port), username: handle, password: secret });
        opened.add(again);
        return again;
      };
      let agent = await reopen();
      reopened.push(async () => {
        agent = await reopen();
      });
      return {
        handle,
        harmed: async () => {
          const works = (await tried(agent.query('SELECT 1'))) === 'works';
          const [role] = await admin('SELECT FROM pg_roles WHERE rolname = $1 AND rolcanlogin', [handle]);
          return [...(works ? [] : ['its session was ended']), ...(role === undefined ? ['its login was cut'] : [])];
        },
      };
    },
    faults: {
      ...proxy,
      apart: async () => {
        const way = await tcpFaults(server.port);
        return Object.assign(way, { connection: { ...connection, port: way.port } });
      },
      lies: postgresLies,
    },
    without: { behind: 'it makes nothing elsewhere' },
    rights: {
      lose: async () => void (await admin(`REVOKE USAGE ON SCHEMA mayfly FROM ${user}`)),
      restore: async () => void (await admin(`GRANT USAGE ON SCHEMA mayfly TO ${user}`)),
    },
    restart: async () => {
      await server.restart();
      for (const reopen of reopened) await reopen();
    },
    replace: async () => {
      proxy.lead(second.port);
      return async () => proxy.lead(server.port);
    },
  };
}

function agentEndpoint(port: number): Credential {
  return { host: '127.0.0.1', port, database };
}

async function login({ host, port, database: name, username, password }: Credential): Promise<pg.Client> {
  const agent = new pg.Client({
    ...{ host: String(host), port: Number(port), database: String(name) },
    ...{ user: String(username), password: String(password) },
  });
  agent.on('error', () => {});
  await agent.connect();
  return agent;
}

async function access(credential: Credential, work: (agent: pg.Client) => Promise<unknown>): Promise<Access> {
  return await tried(
    login(credential).then(async (agent) => {
      try {
        await work(agent);
      } finally {
        await agent.end();
      }
    }),
  );
}

async function tried(work: Promise<unknown>): Promise<Access> {
  try {
    await work;
    return 'works';
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : '';
    if (refusals.test(code) || /not queryable|terminated unexpectedly/.test(String(error))) return 'refused';
    throw error;
  }
}

/** As the superuser, past every proxy, on a connection of its own: the server may have been restarted meanwhile. */
async function onServer(url: string, statements: readonly string[], values: readonly unknown[] = []) {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    const rows: Record<string, unknown>[] = [];
    for (const sql of statements) {
      const result = await client.query(sql, values.length === 0 ? undefined : [...values]);
      if (!Array.isArray(result)) rows.push(...result.rows);
    }
    return rows;
  } finally {
    await client.end();
  }
}
