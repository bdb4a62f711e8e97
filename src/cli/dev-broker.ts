import { join, resolve } from 'node:path';
import { readCatalogFiles } from '../catalog/files.ts';
import { type Config, ConfigError, isLoopback, readConfig } from '../config.ts';
import { createLogger } from '../http/log.ts';
import { migrate } from '../store/migrate.ts';
import { type Broker, startBroker } from '../wiring.ts';
import { devAgentKey } from './agent-key.ts';
import { openPrivateFolder } from './dev/dev-folder.ts';
import { startEmbeddedPostgres } from './dev/embedded-postgres.ts';
import { followCatalog } from './dev/follow-catalog.ts';
import { freePort } from './dev/free-port.ts';
import { createDevIssuer } from './dev/issuer.ts';
import { prepareLedger } from './dev/ledger.ts';
import { acquireDevLock, readDevLock } from './dev/lock.ts';
import { prepareStateDatabase } from './dev/state-database.ts';
import { DEFAULT_ISSUER_PORT, DEFAULT_POSTGRES_PORT, type DevOptions } from './dev.ts';
import { devFolder, writeDevState } from './dev-state.ts';
import { CliError, explain } from './fail.ts';
import { note, say, styled } from './output.ts';
import { migrationsFolder, packageRoot } from './package-root.ts';
import { untilSignal } from './signals.ts';
import { prepareDemoTarget } from './target.ts';

/** A person's shell, not a pod: logs only what needs a look, unless asked for more. */
const DEFAULT_LOG_LEVEL = 'warn';

export interface DevBroker {
  readonly broker: Broker;
  stop(): Promise<void>;
}

/** `mayfly dev`: starts everything, says what, and stays until a signal. */
export async function startDev(options: DevOptions): Promise<void> {
  const stopped = untilSignal();
  const dev = await openDev(options);
  const signal = await stopped;
  note(`${signal}: stopping.`);
  await dev.stop();
}

/**
 * Starts what dev mode needs, in order, and stops it in reverse, also when a later part does not start. Killed at any point it
 * can be started again.
 */
export async function openDev(options: DevOptions): Promise<DevBroker> {
  const config = readDevConfig();
  const postgresPort = portOf(options.postgresPort, DEFAULT_POSTGRES_PORT);
  const issuerPort = portOf(options.issuerPort, DEFAULT_ISSUER_PORT);
  const catalogDir = resolve(options.catalog ?? join(packageRoot(), 'catalog'));
  const tell = options.quiet === true ? () => {} : say;
  const files = await readCatalogFiles(catalogDir);

  const opened: (() => Promise<unknown>)[] = [];
  const stop = async () => {
    // One that does not stop keeps none of the others from it.
    for (const close of opened.splice(0).reverse())
      await close().catch((error: unknown) => note(`Something did not stop as it should. ${explain(error)}`));
  };
  try {
    // Asked before anything is made, the folder too. Where its own broker runs, the lock tells that better.
    if (!(await runsAlready())) {
      await freePort(config.port, 'The broker', { host: config.host, setting: 'MAYFLY_PORT' });
      await freePort(issuerPort, 'The dev issuer', { setting: '--issuer-port' });
    }
    const dir = await openPrivateFolder(devFolder());
    const lock = await acquireDevLock(dir);
    opened.push(() => lock.release());
    const postgres = await startEmbeddedPostgres({ dir, port: postgresPort, log: note });
    opened.push(() => postgres.stop());
    tell(`PostgreSQL 18   127.0.0.1:${postgres.port}, data in ${postgres.dataDir}${postgres.fresh ? ' (new)' : ''}`);
    const state = await prepareStateDatabase(postgres, dir);
    const ledger = await prepareLedger(postgres.url('postgres'));
    tell(`Demo target     database ledger, about 10,000 rows${ledger.created ? ' (new)' : ''}`);
    await migrate({
      ownerUrl: state.ownerUrl,
      folder: migrationsFolder(),
      runtime: 'mayfly_runtime',
      sequencer: 'mayfly_sequencer',
      dev: true,
    });

    await devAgentKey();
    const issuer = await createDevIssuer({ dir, port: issuerPort, log: note });
    await issuer.start();
    opened.push(() => issuer.stop());
    tell(`Dev issuer      http://127.0.0.1:${issuerPort}, keys in ${dir}`);

    const secretsDir = join(dir, 'secrets');
    const broker = await startBroker({
      config: {
        ...config,
        database_url: state.runtimeUrl,
        sequencer_database_url: state.sequencerUrl,
        secrets_dir: secretsDir,
      },
      dev: true,
      migrationsFolder: migrationsFolder(),
      env: process.env,
      log: createLogger(config.log_level),
    });
    opened.push(() => broker.stop());
    const apply = async (changed: Readonly<Record<string, string>>) => {
      const adminUrl = (database: string) => postgres.url(database);
      const demo = { port: postgres.port, adminUrl, secretsDir };
      if ((await prepareDemoTarget(changed, broker.installation, demo)) === 0)
        note(`No target of the catalog is the demo database: ledger on 127.0.0.1:${postgres.port}.`);
      if (!(changed['trust.yaml'] ?? '').includes(`127.0.0.1:${issuerPort}/`))
        note(`trust.yaml names nothing of the dev issuer: http://127.0.0.1:${issuerPort}/.`);
      return await broker.apply(changed, 'mayfly dev');
    };
    const applied = await apply(files);
    const follower = followCatalog(catalogDir, async () => {
      try {
        const number = await apply(await readCatalogFiles(catalogDir));
        if (number !== undefined) tell(`Catalog         revision ${number} is active`);
      } catch (error) {
        note(`The catalog was changed, but not applied. ${explain(error)}`);
      }
    });
    opened.push(() => follower.close());
    writeDevState({
      url: config.public_url,
      issuer_url: `http://127.0.0.1:${issuerPort}`,
      postgres_port: postgres.port,
    });
    tell(
      `Catalog         ${catalogDir}${applied === undefined ? ', unchanged' : `, revision ${applied}`}; applied again when it changes`,
    );
    tell(`Broker          ${styled('bold', broker.url)}`);
    tellWhatNext(tell);
    return { broker, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function runsAlready(): Promise<boolean> {
  // A folder that can not be read is refused when it is opened, with what to do about it.
  return (await readDevLock(devFolder()).catch(() => undefined)) !== undefined;
}

function tellWhatNext(tell: (line?: string) => void): void {
  tell();
  tell('Try next, in another terminal in this folder:');
  for (const line of [
    'npm run demo',
    'npx mayfly run --purpose reconcile.invoices --grant ledger-db/read-invoices -- psql -c "select count(*) from invoices"',
    `npx mayfly task sign --purpose reconcile.invoices --entitlement ledger-db/read-invoices`,
  ]) {
    tell(`  ${styled('cyan', line)}`);
  }
}

/** Dev mode trusts keys that lie about in a folder: what looks like production is refused. @throws CliError, ConfigError */
function readDevConfig(): Config {
  const { env } = process;
  if (env['NODE_ENV'] === 'production')
    throw new CliError(
      'Dev mode trusts keys that lie about in a folder: it refuses NODE_ENV=production. Use `mayfly serve`.',
    );
  const faults = Object.keys(env)
    .filter((name) => /^MAYFLY_(OWNER_|SEQUENCER_)?DATABASE_URL(_FILE)?$/.test(name))
    .map((name) => `${name}: dev mode uses its own embedded store only; use \`mayfly serve\` for yours`);
  const host = env['MAYFLY_HOST'];
  if (host !== undefined && !isLoopback(host))
    faults.push(`MAYFLY_HOST: dev mode listens on loopback only, not on ${host}`);
  if (faults.length > 0) throw new ConfigError(faults);
  return readConfig({ MAYFLY_LOG_LEVEL: DEFAULT_LOG_LEVEL, ...env });
}

function portOf(text: string | undefined, fallback: number): number {
  if (text === undefined) return fallback;
  const port = Number(text);
  if (!/^\d{1,5}$/.test(text) || port < 1 || port > 65_535)
    throw new CliError(`${JSON.stringify(text)} is not a port from 1 to 65535.`, 2);
  return port;
}
