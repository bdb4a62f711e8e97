import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { provider } from '../../providers/postgres/index.ts';
import { prepare } from '../../providers/postgres/prepare.ts';
import type { PostgresEntitlement, PostgresTarget } from '../../providers/postgres/schema.ts';
import { type Minted, type MintRequest, type Ref, Secret, type Session } from '../../src/provider.ts';
import type { PostgresServer } from '../support/postgres-servers.ts';

export const entitlementName = 'ledger-db/read-invoices';

export interface Ledger {
  readonly server: PostgresServer;
  readonly installation: string;
  /** Of the broker's login. */
  readonly password: Secret<string>;
  readonly config: PostgresTarget;
  readonly entitlement: PostgresEntitlement;
  readonly session: Session<PostgresEntitlement>;
  /** One statement as the superuser. */
  admin(sql: string, values?: readonly unknown[]): Promise<readonly Record<string, unknown>[]>;
  /** A session of its own to the same target, e.g. another broker. */
  connect(changes?: Partial<PostgresTarget>, installation?: string): Session<PostgresEntitlement>;
  /** A raw login of the broker, as somebody who stole it would have it. */
  stolenLogin(): Promise<pg.Client>;
  ref(grantId?: string): Ref;
  request(ref: Ref, changes?: Partial<MintRequest<PostgresEntitlement>>): MintRequest<PostgresEntitlement>;
  mint(changes?: Partial<MintRequest<PostgresEntitlement>>): Promise<Live>;
  login(minted: Minted, options?: string): Promise<pg.Client>;
  close(): Promise<void>;
}

export interface Live {
  readonly ref: Ref;
  readonly minted: Minted;
}

export function soon(milliseconds = 30_000): AbortSignal {
  return AbortSignal.timeout(milliseconds);
}

/** As on a managed service: nobody is superuser, and `dba` is who prepares the target. */
export interface Managed {
  readonly mode: 'createrole' | 'pool';
  readonly maxRoles?: number;
  readonly poolSize?: number;
}

async function makeAdministrator(server: PostgresServer, superuser: pg.Client, database: string): Promise<string> {
  await superuser.query(`DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'dba') THEN
      CREATE ROLE dba LOGIN CREATEROLE CREATEDB PASSWORD '${server.password}';
      GRANT pg_signal_backend, pg_monitor TO dba WITH ADMIN OPTION;
    END IF; END $$`);
  await superuser.query(`ALTER DATABASE ${database} OWNER TO dba`);
  await superuser.query(`ALTER SCHEMA billing OWNER TO dba`);
  await superuser.query(`ALTER TABLE billing.invoices OWNER TO dba`);
  const url = new URL(server.superuserUrl(database));
  url.username = 'dba';
  return url.toString();
}

/** A database `name` with invoices that an entitlement may read and salaries that it may not, prepared as a target. */
export async function makeLedger(
  server: PostgresServer,
  name: string,
  changes: {
    readonly maxTtlSeconds?: number;
    readonly maxLive?: number;
    readonly maxConnections?: number;
    readonly managed?: Managed;
  } = {},
): Promise<Ledger> {
  const url = await server.createDatabase(name);
  const installation = randomUUID();
  const brokerPassword = new Secret(randomUUID());
  const clients = new Set<pg.Client>();
  const sessions = new Set<Session<PostgresEntitlement>>();
  const open = async (options: pg.ClientConfig): Promise<pg.Client> => {
    const client = new pg.Client({ ...options, ssl: false, application_name: 'agent' });
    client.on('error', () => {});
    await client.connect();
    clients.add(client);
    return client;
  };
  let administrator = await open({ connectionString: url });
  let alive = true;
  const admin: Ledger['admin'] = async (sql, values = []) => {
    // A test may have restarted the server.
    if (!alive) {
      administrator = await open({ connectionString: url });
      alive = true;
      administrator.once('end', () => {
        alive = false;
      });
    }
    return (await administrator.query(sql, [...values])).rows;
  };
  administrator.once('end', () => {
    alive = false;
  });
  await administrator.query(`
    -- As check asks for; since 15 it is so from the beginning.
    REVOKE CREATE ON SCHEMA public FROM PUBLIC;
    CREATE SCHEMA billing;
    CREATE TABLE billing.invoices AS SELECT n AS id, n * 10 AS amount FROM generate_series(1, 5000) n;
    CREATE TABLE billing.salaries AS SELECT 1 AS id, 100 AS amount;`);

  const config = provider.targetSchema.parse({
    host: '127.0.0.1',
    port: server.port,
    database: name,
    user: `broker_${name}`,
    password: 'env:BROKER_PASSWORD',
    sslmode: 'disable',
    ...(changes.maxConnections === undefined ? {} : { max_connections: changes.maxConnections }),
    ...(changes.managed === undefined ? {} : { mode: changes.managed.mode, owner: `owner_${name}` }),
    ...(changes.managed?.maxRoles === undefined ? {} : { max_roles: changes.managed.maxRoles }),
  });
  const entitlement = provider.entitlementSchema.parse({
    template: `mayfly_t_${name}`,
    privileges: [{ schema: 'billing', tables: ['invoices'], grant: ['SELECT'] }],
    connection_limit: 5,
    ...(changes.maxLive === undefined ? {} : { max_live: changes.maxLive }),
    ...(changes.managed?.poolSize === undefined ? {} : { pool_size: changes.managed.poolSize }),
  });
  await prepare(
    changes.managed === undefined ? url : await makeAdministrator(server, administrator, name),
    config,
    [{ name: entitlementName, maxTtlSeconds: changes.maxTtlSeconds ?? 900, config: entitlement }],
    installation,
    { password: brokerPassword },
  );

  const connect: Ledger['connect'] = (other = {}, id = installation) => {
    const made = provider.connect(
      { ...config, ...other },
      {
        target: name,
        installation: id,
        secret: () => brokerPassword,
        log: () => {},
      },
    );
    sessions.add(made);
    return made;
  };
  const session = connect();
  const ref: Ledger['ref'] = (grantId = randomUUID()) => ({
    grantId,
    handle: session.reserve(grantId),
    facts: null,
    deadline: new Date(Date.now() + 300_000),
  });
  const request: Ledger['request'] = (of, more = {}) => ({
    grantId: of.grantId,
    entitlement: entitlementName,
    config: entitlement,
    params: {},
    deadline: of.deadline,
    notAfter: new Date(Date.now() + 3_600_000),
    mintBy: new Date(Date.now() + 30_000),
    ...more,
  });
  return {
    server,
    installation,
    password: brokerPassword,
    config,
    entitlement,
    session,
    admin,
    connect,
    ref,
    request,
    stolenLogin: () =>
      open({
        host: '127.0.0.1',
        port: server.port,
        database: name,
        user: config.user,
        password: brokerPassword.reveal(),
      }),
    async mint(more = {}) {
      const fresh = ref();
      const minted = await session.mint(fresh, request(fresh, more), soon());
      return { ref: { ...fresh, facts: minted.facts }, minted };
    },
    login(minted, options = '') {
      const { host, port, database, username, password } = minted.secret.reveal();
      return open({
        host: String(host),
        port: Number(port),
        database: String(database),
        user: String(username),
        password: String(password),
        options,
      });
    },
    async close() {
      await Promise.all([...sessions].map((each) => each.close()));
      await Promise.all([...clients].map((client) => client.end().catch(() => {})));
    },
  };
}

/** The SQLSTATE that a promise fails with, or `none`. */
export async function sqlState(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return 'none';
  } catch (error) {
    return error instanceof Error && 'code' in error ? String(error.code) : String(error);
  }
}
