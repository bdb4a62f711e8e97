import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import { discardEmbeddedPostgres } from '../../src/cli/dev/embedded-postgres.ts';
import { type CliOptions, type CliProcess, type Ended, startCli } from './cli.ts';
import { freePort } from './free-port.ts';

/** A folder in which `mayfly dev` can run beside any other: ports, dev folder and catalog of its own. */
export interface DevHome {
  readonly folder: string;
  readonly catalog: string;
  readonly devDir: string;
  readonly url: string;
  /** `mayfly …`, with what names this place in its environment. */
  start(args: readonly string[], options?: CliOptions): CliProcess;
  run(args: readonly string[], options?: CliOptions): Promise<Ended>;
  /** `mayfly dev`, ready. */
  startDev(options?: CliOptions): Promise<CliProcess>;
  /** What every command that starts a broker needs here. */
  readonly ports: readonly string[];
  /** A query in the embedded server, which runs. */
  query<R extends pg.QueryResultRow>(database: string, text: string, values?: unknown[]): Promise<R[]>;
  edit(file: string, change: (text: string) => string): void;
  close(): Promise<void>;
}

export async function makeDevHome(): Promise<DevHome> {
  const folder = mkdtempSync(join(tmpdir(), 'mayfly-dev-home-'));
  const catalog = join(folder, 'catalog');
  const devDir = join(folder, '.mayfly');
  const [port, issuerPort, postgresPort] = [await freePort(), await freePort(), await freePort()];
  cpSync(fileURLToPath(new URL('../../catalog', import.meta.url)), catalog, { recursive: true });
  const edit = (file: string, change: (text: string) => string) => {
    const path = join(catalog, file);
    const before = readFileSync(path, 'utf8');
    const after = change(before);
    if (after === before) throw new Error(`nothing changed in ${file}`);
    writeFileSync(path, after);
  };
  edit('trust.yaml', (text) => text.replaceAll('127.0.0.1:7421', `127.0.0.1:${issuerPort}`));
  edit('targets/ledger-db.yaml', (text) => text.replace('port: 7432', `port: ${postgresPort}`));
  const started: CliProcess[] = [];
  const ports = ['--catalog', catalog, '--postgres-port', String(postgresPort), '--issuer-port', String(issuerPort)];
  const start = (args: readonly string[], options: CliOptions = {}): CliProcess => {
    const env = { MAYFLY_DIR: devDir, MAYFLY_PORT: String(port), ...options.env };
    const cli = startCli(args, { ...options, env });
    started.push(cli);
    return cli;
  };
  return {
    folder,
    catalog,
    devDir,
    url: `http://127.0.0.1:${port}`,
    start,
    run: (args, options) => start(args, options).ended,
    startDev: async (options) => {
      const cli = start(['dev', ...ports], options);
      await cli.says(/Try next[^]*task sign/);
      return cli;
    },
    ports,
    query: async (database, text, values = []) => {
      const password = readFileSync(join(devDir, 'postgres', 'superuser-password'), 'utf8').trim();
      const client = new pg.Client({ host: '127.0.0.1', port: postgresPort, user: 'postgres', password, database });
      await client.connect();
      try {
        return (await client.query(text, values)).rows;
      } finally {
        await client.end();
      }
    },
    edit,
    close: async () => {
      for (const { child } of started) child.kill('SIGKILL');
      if (existsSync(devDir)) await discardEmbeddedPostgres(devDir);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
