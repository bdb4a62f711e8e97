import { spawnSync } from 'node:child_process';
import { chmodSync, chownSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { type PostgresServer, type PostgresSettings, startPostgres } from './postgres-servers.ts';

export interface StandbyOptions {
  /** The `application_name` that it streams with. */
  readonly name: string;
  readonly settings?: PostgresSettings;
}

/** A hot standby that streams from that server. */
export function startStandby(primary: PostgresServer, options: StandbyOptions): Promise<PostgresServer> {
  const { name, settings = {} } = options;
  const from = `host=${primary.host} port=${primary.port} user=postgres password=${primary.password}`;
  return startPostgres({
    version: primary.version,
    settings: {
      primary_conninfo: `${from} application_name=${name}`,
      wal_retrieve_retry_interval: '100ms',
      ...settings,
    },
    copy: { password: primary.password, fill: (data) => baseBackup(primary, data, 'standby.signal') },
  });
}

/** A base backup of that server as it is now, kept until it is restored. */
export async function restoreLater(server: PostgresServer, folder: string): Promise<() => Promise<PostgresServer>> {
  const kept = join(folder, `backup-${server.port}`);
  await baseBackup(server, kept, null);
  return () =>
    startPostgres({
      version: server.version,
      copy: {
        password: server.password,
        fill: async (data) => {
          copyFolder(kept, data);
          rmSync(kept, { recursive: true });
        },
      },
    });
}

/** As pg_basebackup does, which not every build of PostgreSQL has. The folder then starts as a server of the same cluster. */
async function baseBackup(server: PostgresServer, data: string, signalFile: string | null): Promise<void> {
  const client = new pg.Client({ connectionString: server.superuserUrl() });
  await client.connect();
  try {
    const { rows } = await client.query<{ data_directory: string; version: number }>(
      `SELECT current_setting('data_directory') AS data_directory, current_setting('server_version_num')::int AS version`,
    );
    const { data_directory: from = '', version = 0 } = rows[0] ?? {};
    // Before 15 a backup could be exclusive, and must be said not to be.
    const [start, stop] =
      version < 150_000
        ? [`pg_start_backup('test', true, false)`, 'pg_stop_backup(false)']
        : [`pg_backup_start('test', true)`, 'pg_backup_stop(false)'];
    // Each backup fills up a segment of WAL and lets go of those before it, whatever a standby on a busy machine has still to receive.
    await client.query(`ALTER SYSTEM SET wal_keep_size = '512MB'`);
    await client.query('SELECT pg_reload_conf()');
    await client.query(`SELECT ${start}`);
    copyFolder(from, data);
    const stopped = await client.query<{ labelfile: string }>(`SELECT labelfile FROM ${stop}`);
    for (const name of ['postmaster.pid', 'postmaster.opts']) {
      rmSync(join(data, name), { recursive: true, force: true });
    }
    // What was written meanwhile: from here on the copy is consistent.
    copyFolder(join(from, 'pg_wal'), join(data, 'pg_wal'));
    const { uid, gid } = statSync(data);
    const write = (name: string, text: string): void => {
      writeFileSync(join(data, name), text);
      chownSync(join(data, name), uid, gid);
      chmodSync(join(data, name), 0o600);
    };
    write('backup_label', stopped.rows[0]?.labelfile ?? '');
    if (signalFile !== null) {
      write(signalFile, '');
    }
  } finally {
    await client.end();
  }
}

/** With owners and modes; files that vanish meanwhile are no loss. */
function copyFolder(from: string, to: string): void {
  spawnSync('cp', ['-a', '-T', from, to]);
  if (!readdirSync(to).some((name) => name === 'PG_VERSION' || /^[0-9A-F]{24}$/.test(name))) {
    throw new Error(`${from} was not copied`);
  }
}
