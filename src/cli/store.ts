import { join } from 'node:path';
import { loadProviders } from '../catalog/provider-registry.ts';
import { type Config, ConfigError, readConfig } from '../config.ts';
import type { Secret } from '../domain/secret.ts';
import type { Provider } from '../provider.ts';
import { Database } from '../store/database.ts';
import { devFolder, devStoreUrl } from './dev-state.ts';
import { note } from './output.ts';

export interface OpenStore {
  readonly db: Database;
  readonly url: Secret<string>;
  readonly config: Config;
  readonly providers: ReadonlyMap<string, Provider>;
  /** Where the targets' secrets stand. */
  readonly secretsDir: string;
}

/** The store that MAYFLY_DATABASE_URL names, else the one of the dev broker in this folder. */
export async function openStore(): Promise<OpenStore> {
  const config = readConfig(process.env);
  const devUrl = config.database_url === undefined ? devStoreUrl() : undefined;
  const url = config.database_url ?? devUrl;
  if (url === undefined)
    throw new ConfigError(['MAYFLY_DATABASE_URL: missing, and no dev broker was started in this folder']);
  const db = new Database({
    url,
    connections: 4,
    onError: (error) => note(`The store: ${error instanceof Error ? error.message : 'in trouble'}`),
  });
  return {
    db,
    url,
    config,
    providers: await loadProviders(config.providers),
    secretsDir: devUrl === undefined ? config.secrets_dir : join(devFolder(), 'secrets'),
  };
}
