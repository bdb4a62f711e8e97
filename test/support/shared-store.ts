import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { Secret } from '../../src/domain/secret.ts';
import { type PostgresServer, startPostgres } from './postgres-servers.ts';
import { createStore } from './store.ts';

/** Names a server with a migrated store to clone, for processes that share it: see {@link shareStore}. */
const VARIABLE = 'MAYFLY_TEST_SHARED_STORE';

interface Shared {
  readonly superuserUrl: string;
  readonly runtimeUrl: string;
  readonly template: string;
}

export interface TestDatabase {
  readonly superuserUrl: Secret<string>;
  readonly runtimeUrl: Secret<string>;
  close(): Promise<void>;
}

/** A server with a migrated store, and what a process needs in its environment to clone that instead of starting its own. */
export async function shareStore(): Promise<{ readonly server: PostgresServer; readonly env: Record<string, string> }> {
  const server = await startPostgres({ version: 18 });
  const store = await createStore(server);
  const shared: Shared = {
    superuserUrl: server.superuserUrl(),
    runtimeUrl: store.runtimeUrl.reveal(),
    template: store.database,
  };
  return { server, env: { [VARIABLE]: JSON.stringify(shared) } };
}

/** A migrated store of its own: a clone on the shared server, or on a server of its own where none is shared. */
export async function openTestDatabase(): Promise<TestDatabase> {
  const named = process.env[VARIABLE];
  const own = named === undefined ? await shareStore() : undefined;
  const shared: Shared = JSON.parse(named ?? own?.env[VARIABLE] ?? '');
  if (own !== undefined)
    return {
      superuserUrl: new Secret(own.server.superuserUrl(shared.template)),
      runtimeUrl: new Secret(shared.runtimeUrl),
      close: () => own.server.stop(),
    };
  const database = `clone_${randomBytes(8).toString('hex')}`;
  await administer(shared, `CREATE DATABASE ${database} TEMPLATE ${shared.template}`);
  return {
    superuserUrl: new Secret(within(shared.superuserUrl, database)),
    runtimeUrl: new Secret(within(shared.runtimeUrl, database)),
    close: () => administer(shared, `DROP DATABASE ${database} WITH (FORCE)`),
  };
}

async function administer(shared: Shared, sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: shared.superuserUrl });
  await client.connect();
  try {
    await client.query(sql);
  } finally {
    await client.end();
  }
}

function within(url: string, database: string): string {
  const named = new URL(url);
  named.pathname = `/${database}`;
  return named.href;
}
