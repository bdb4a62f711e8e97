import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { runMigrations } from 'bullmq';
import { runner } from 'node-pg-migrate';
import pg from 'pg';
import type { Secret } from '../domain/secret.ts';

export interface MigrateOptions {
  /** The owner's URL: the only login that may change the schema. */
  readonly ownerUrl: Secret<string>;
  readonly folder: string;
  /** Logins that get their rights anew: names, not URLs. */
  readonly runtime: string;
  readonly sequencer: string;
  /** True only for a store that `mayfly dev` makes. Counts at the first migration only. */
  readonly dev: boolean;
}

export interface MigrateReport {
  readonly applied: readonly string[];
}

const RUNNERS = 0x4d460000;

/**
 * Brings the schema up to this release: migrations in order, any number of runners at once (the others wait), then the queue's own
 * schema, then the rights of the two other logins. Applied files must not have changed since.
 */
export async function migrate(options: MigrateOptions): Promise<MigrateReport> {
  const client = new pg.Client({ connectionString: options.ownerUrl.reveal(), connectionTimeoutMillis: 10_000 });
  await client.connect();
  try {
    // Two runners that grant rights at once would meet "tuple concurrently updated".
    await client.query('SELECT pg_advisory_lock($1)', [RUNNERS]);
    const who = await client.query<{ user: string }>('SELECT current_user AS user');
    const owner = who.rows[0]?.user;
    if (owner === options.runtime || owner === options.sequencer) {
      throw new Error(
        `The owner's login ${owner} must be another than the runtime's and the sequencer's: they could rewrite the evidence.`,
      );
    }
    const applied = await runner({
      dbClient: client,
      dir: options.folder,
      direction: 'up',
      migrationsTable: 'migrations',
      migrationsSchema: 'mayfly',
      createMigrationsSchema: true,
      schema: 'public',
      singleTransaction: false,
      advisoryLockMode: 'wait',
      log: () => {},
    });
    await checkFiles(client, options.folder);
    await client.query('INSERT INTO mayfly.installation (dev) VALUES ($1) ON CONFLICT DO NOTHING', [options.dev]);
    await runMigrations(client);
    await client.query('SELECT mayfly.grant_rights($1, $2)', [options.runtime, options.sequencer]);
    await grantQueueRights(client, options.runtime);
    return { applied: applied.map((migration) => migration.name) };
  } finally {
    await client.end();
  }
}

/** The migrations that this release brings, in order, with the digest of each file. */
export function readMigrations(folder: string): Map<string, string> {
  const files = readdirSync(folder)
    .filter((file) => file.endsWith('.sql'))
    .sort();
  return new Map(
    files.map((file) => [
      file.replace(/\.sql$/, ''),
      createHash('sha256')
        .update(readFileSync(join(folder, file)))
        .digest('hex'),
    ]),
  );
}

/**
 * The names of the migrations that a store has and this release does not know, or the reverse.
 * @throws Error when the schema was never made.
 */
export async function compareSchema(
  query: (text: string) => Promise<{ name: string }[]>,
  folder: string,
): Promise<{ missing: string[]; newer: string[] }> {
  const known = readMigrations(folder);
  const applied = new Set((await query('SELECT name FROM mayfly.migrations')).map((row) => row.name));
  return {
    missing: [...known.keys()].filter((name) => !applied.has(name)),
    newer: [...applied].filter((name) => !known.has(name)),
  };
}

async function checkFiles(client: pg.Client, folder: string): Promise<void> {
  const known = readMigrations(folder);
  const applied = await client.query<{ name: string; sha256: string | null }>(
    'SELECT m.name, d.sha256 FROM mayfly.migrations m LEFT JOIN mayfly.migration_digests d USING (name) ORDER BY m.id',
  );
  for (const { name, sha256 } of applied.rows) {
    const digest = known.get(name);
    if (digest === undefined)
      throw new Error(
        `The store has migration ${name}, which this release does not know: it is newer than this release.`,
      );
    if (sha256 !== null && sha256 !== digest) throw new Error(`Migration ${name} was changed after it was applied.`);
    await client.query('INSERT INTO mayfly.migration_digests VALUES ($1, $2) ON CONFLICT DO NOTHING', [name, digest]);
  }
}

/** BullMQ's own tables hold alarms, no truth: the runtime may do with them what the library does. */
async function grantQueueRights(client: pg.Client, runtime: string): Promise<void> {
  const login = client.escapeIdentifier(runtime);
  await client.query(`GRANT USAGE ON SCHEMA bullmq TO ${login};
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA bullmq TO ${login};
    GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA bullmq TO ${login};
    GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA bullmq TO ${login}`);
}
