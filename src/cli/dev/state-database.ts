import { join } from 'node:path';
import type pg from 'pg';
import { Secret } from '../../domain/secret.ts';
import { keepSecretFile, openPrivateFolder, randomSecret } from './dev-folder.ts';
import type { EmbeddedPostgres } from './embedded-postgres.ts';
import { matchesVerifier, scramVerifier } from './scram.ts';
import { databaseExists, withClient } from './sql.ts';

export interface StateDatabase {
  /** Migrations only. */
  readonly ownerUrl: Secret<string>;
  readonly runtimeUrl: Secret<string>;
  readonly sequencerUrl: Secret<string>;
  /** The broker's login on the demo target: no attributes, and no way into the state database. */
  readonly target: { readonly user: string; readonly passwordFile: string };
}

const TARGET_LOGIN = 'mayfly_broker';

/**
 * Makes the database `mayfly`, its three logins, and the separate login for the demo target. Safe to repeat: whatever
 * is missing is made, and a login whose password is not the one in its file gets that one.
 * @param dir the dev folder (`.mayfly`).
 */
export async function prepareStateDatabase(server: Pick<EmbeddedPostgres, 'url'>, dir: string): Promise<StateDatabase> {
  const secrets = await openPrivateFolder(join(dir, 'secrets'));
  // One file a login, of the login's name.
  const stateFolder = await openPrivateFolder(join(secrets, 'state-db'));
  // A folder of its own: a target's secrets are looked for there and nowhere else.
  const targetFolder = await openPrivateFolder(join(secrets, 'ledger-db'));
  const passwordFile = join(targetFolder, 'password');

  return withClient(server.url('postgres'), async (client) => {
    const keepLogin = async (login: string): Promise<Secret<string>> => {
      const password = await keepSecretFile(join(stateFolder, login), randomSecret);
      await ensureLogin(client, login, password);
      return new Secret(server.url('mayfly', login, password));
    };
    const ownerUrl = await keepLogin('mayfly_owner');
    const runtimeUrl = await keepLogin('mayfly_runtime');
    const sequencerUrl = await keepLogin('mayfly_sequencer');
    await ensureLogin(client, TARGET_LOGIN, await keepSecretFile(passwordFile, randomSecret));
    await ensureDatabase(client);
    return { ownerUrl, runtimeUrl, sequencerUrl, target: { user: TARGET_LOGIN, passwordFile } };
  });
}

/** @param name a plain word: it is spliced into DDL, which takes no parameters. */
async function ensureLogin(client: pg.Client, name: string, password: Secret<string>): Promise<void> {
  const { rows } = await client.query<{ rolpassword: string | null }>(
    'SELECT rolpassword FROM pg_authid WHERE rolname = $1',
    [name],
  );
  const [found] = rows;
  if (found === undefined) await client.query(`CREATE ROLE ${name}`);
  await client.query(`ALTER ROLE ${name} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS`);
  if (await matchesVerifier(password, found?.rolpassword ?? null)) return;
  await client.query(`ALTER ROLE ${name} PASSWORD ${client.escapeLiteral(await scramVerifier(password))}`);
}

async function ensureDatabase(client: pg.Client): Promise<void> {
  if (!(await databaseExists(client, 'mayfly'))) {
    await client.query(`CREATE DATABASE mayfly OWNER mayfly_owner TEMPLATE template0 ENCODING 'UTF8'`);
  }
  await client.query('REVOKE ALL ON DATABASE mayfly FROM PUBLIC');
  await client.query('GRANT CONNECT ON DATABASE mayfly TO mayfly_runtime, mayfly_sequencer');
}
