import { randomBytes } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import { Secret } from '../../src/domain/secret.ts';
import { migrate } from '../../src/store/migrate.ts';
import type { PostgresServer } from './postgres-servers.ts';

export const migrationsFolder = fileURLToPath(new URL('../../migrations', import.meta.url));

export interface TestStore {
  readonly database: string;
  readonly ownerUrl: Secret<string>;
  readonly runtimeUrl: Secret<string>;
  readonly sequencerUrl: Secret<string>;
  readonly runtime: string;
  readonly sequencer: string;
}

let made = 0;

/** A migrated store of its own in that server, with three logins as in production. */
export async function createStore(
  server: PostgresServer,
  options: { dev?: boolean; migrated?: boolean } = {},
): Promise<TestStore> {
  const name = `store_${process.pid}_${++made}`;
  const password = randomBytes(12).toString('hex');
  const [owner, runtime, sequencer] = [`${name}_owner`, `${name}_runtime`, `${name}_sequencer`];
  const client = new pg.Client({ connectionString: server.superuserUrl() });
  await client.connect();
  for (const login of [owner, runtime, sequencer])
    await client.query(`CREATE ROLE ${login} LOGIN PASSWORD '${password}'`);
  await client.query(`CREATE DATABASE ${name} OWNER ${owner}`);
  await client.end();
  const url = (login: string) => new Secret(`postgres://${login}:${password}@${server.host}:${server.port}/${name}`);
  const store = {
    database: name,
    ownerUrl: url(owner),
    runtimeUrl: url(runtime),
    sequencerUrl: url(sequencer),
    runtime,
    sequencer,
  };
  if (options.migrated !== false) {
    await migrate({ ownerUrl: store.ownerUrl, folder: migrationsFolder, runtime, sequencer, dev: options.dev ?? true });
  }
  return store;
}
