import { readFile } from 'node:fs/promises';
import type pg from 'pg';
import { databaseExists, inTransaction, onDatabase, roleExists, withClient } from './sql.ts';

/** As the last lines of `ledger.sql` write it. */
const MARK = 'mayfly demo ledger, version 1';

/**
 * Makes the demo target: database `ledger`, schema `billing`, owned by `ledger_owner` (NOLOGIN). What is whole stays;
 * what a killed start left half made, or an older version made, is made anew.
 * @param adminUrl of a superuser, on any database of the server.
 * @returns whether the data was made by this call.
 */
export async function prepareLedger(adminUrl: string): Promise<{ readonly created: boolean }> {
  await withClient(adminUrl, prepareDatabase);
  return withClient(onDatabase(adminUrl, 'ledger'), async (client) => {
    await client.query('REVOKE CREATE ON SCHEMA public FROM PUBLIC');
    const { rows } = await client.query<{ mark: string | null }>(
      `SELECT obj_description(to_regnamespace('billing'), 'pg_namespace') AS mark`,
    );
    if (rows[0]?.mark === MARK) return { created: false };
    const sql = await readFile(new URL('./ledger.sql', import.meta.url), 'utf8');
    await inTransaction(client, () => client.query(sql));
    return { created: true };
  });
}

async function prepareDatabase(client: pg.Client): Promise<void> {
  if (!(await roleExists(client, 'ledger_owner'))) await client.query('CREATE ROLE ledger_owner NOLOGIN');
  if (!(await databaseExists(client, 'ledger'))) {
    await client.query(`CREATE DATABASE ledger OWNER ledger_owner TEMPLATE template0 ENCODING 'UTF8'`);
  }
  // Any login may come in, since minted roles must; none gets a place to leave objects in.
  await client.query('REVOKE ALL ON DATABASE ledger FROM PUBLIC');
  await client.query('GRANT CONNECT ON DATABASE ledger TO PUBLIC');
  await client.query('ALTER DATABASE ledger SET search_path = billing, public');
}
