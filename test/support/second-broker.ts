import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { readConfig } from '../../src/config.ts';
import { Secret } from '../../src/domain/secret.ts';
import { createLogger } from '../../src/http/log.ts';
import { startBroker } from '../../src/wiring.ts';
import { freePort } from './free-port.ts';
import type { House } from './house.ts';
import type { PostgresServer } from './postgres-servers.ts';
import { QUICK } from './reconcile.ts';
import { migrationsFolder } from './store.ts';

/** A broker on a copy of the house's store, with the house's catalog, issuers and target: staging, restored from production. */
export interface SecondBroker {
  readonly url: string;
  readonly databaseUrl: string;
  readonly secretsDir: string;
  onStore<R extends pg.QueryResultRow>(text: string, values?: unknown[]): Promise<R[]>;
  stop(): Promise<void>;
}

/** @param database The name of the copy in that server, where it is not the store's own. */
export async function startOnCopy(
  house: House,
  server: PostgresServer,
  database = house.store.database,
): Promise<SecondBroker> {
  const secretsDir = mkdtempSync(join(tmpdir(), 'mayfly-copy-'));
  mkdirSync(join(secretsDir, 'ledger-db'));
  writeFileSync(join(secretsDir, 'ledger-db', 'password'), house.targetPassword, { mode: 0o600 });
  const at = (secret: Secret<string>): string => {
    const url = new URL(secret.reveal());
    url.port = String(server.port);
    url.pathname = `/${database}`;
    return url.href;
  };
  const databaseUrl = at(house.store.runtimeUrl);
  const port = await freePort();
  const config = readConfig({
    ...{ MAYFLY_PORT: String(port), MAYFLY_PUBLIC_URL: house.url, MAYFLY_SECRETS_DIR: secretsDir, ...QUICK },
  });
  const broker = await startBroker({
    config: { ...config, database_url: new Secret(databaseUrl) },
    ...{ dev: true, migrationsFolder, env: {}, log: createLogger('silent') },
  });
  return {
    url: broker.url,
    databaseUrl,
    secretsDir,
    onStore: async <R extends pg.QueryResultRow>(text: string, values: unknown[] = []) => {
      const client = new pg.Client({ connectionString: at(house.store.ownerUrl) });
      await client.connect();
      try {
        return (await client.query<R>(text, values)).rows;
      } finally {
        await client.end();
      }
    },
    stop: async () => {
      await broker.stop();
      rmSync(secretsDir, { recursive: true, force: true });
    },
  };
}
