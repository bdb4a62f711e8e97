import pg from 'pg';
import { expect } from 'vitest';
import type { ListedStandby, PostgresEntitlement } from '../../providers/postgres/schema.ts';
import type { CheckStep, Session } from '../../src/provider.ts';
import type { PostgresServer } from '../support/postgres-servers.ts';
import { startStandby } from '../support/postgres-standby.ts';
import { entitlementName, type Ledger, type Live, soon } from './postgres-fixture.ts';

/** A standby of the ledger's server that waits for its queries for ever, as one for long reports does. */
export interface Replica {
  readonly server: PostgresServer;
  readonly listed: ListedStandby;
  /** One statement as the superuser, there. */
  admin(sql: string, values?: readonly unknown[]): Promise<readonly Record<string, unknown>[]>;
  /** A session of a minted role there. Waits until its role has arrived. */
  login(live: Live, options?: string): Promise<pg.Client>;
  /** The same, without waiting. */
  tryLogin(live: Live, options?: string): Promise<pg.Client>;
  /** Sessions of that role there. */
  sessions(live: Live): Promise<number>;
  close(): Promise<void>;
}

export async function makeReplica(ledger: Ledger, name: string): Promise<Replica> {
  const server = await startStandby(ledger.server, { name, settings: { max_standby_streaming_delay: -1 } });
  const clients = new Set<pg.Client>();
  const open = async (config: pg.ClientConfig): Promise<pg.Client> => {
    const client = new pg.Client({ ...config, host: '127.0.0.1', port: server.port, database: ledger.config.database });
    client.on('error', () => {});
    await client.connect();
    clients.add(client);
    return client;
  };
  const superuser = { user: 'postgres', password: server.password, application_name: 'dba' };
  // A connection each: a test may take the server away.
  const admin: Replica['admin'] = async (sql, values = []) => {
    const client = await open(superuser);
    try {
      return (await client.query(sql, [...values])).rows;
    } finally {
      clients.delete(client);
      await client.end();
    }
  };
  const tryLogin: Replica['tryLogin'] = async ({ minted }, options = '') => {
    const { username, password } = minted.secret.reveal();
    return open({ user: String(username), password: String(password), options, application_name: 'agent' });
  };
  return {
    server,
    listed: { name, host: '127.0.0.1', port: server.port },
    admin,
    tryLogin,
    async login(live, options) {
      await expect
        .poll(() => admin('SELECT FROM pg_roles WHERE rolname = $1', [live.ref.handle]), { timeout: 60_000 })
        .toHaveLength(1);
      return tryLogin(live, options);
    },
    async sessions({ ref }) {
      const [row] = await admin('SELECT count(*)::int AS n FROM pg_stat_activity WHERE usesysid = $1', [
        ref.facts?.['oid'],
      ]);
      return Number(row?.['n']);
    },
    async close() {
      await Promise.all([...clients].map((client) => client.end().catch(() => {})));
      await server.stop();
    },
  };
}

/** A broker that knows of those standbys. */
export function knowing(ledger: Ledger, standbys: readonly ListedStandby[]): Session<PostgresEntitlement> {
  return ledger.connect({ standbys: [...standbys] });
}

export function check(ledger: Ledger, session: Session<PostgresEntitlement>): Promise<readonly CheckStep[]> {
  return session.check({ name: entitlementName, config: ledger.entitlement }, soon());
}

export function failed(steps: readonly CheckStep[]): readonly string[] {
  return steps.filter(({ ok }) => !ok).map(({ step, says }) => `${step}: ${says}`);
}
