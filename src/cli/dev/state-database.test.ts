import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openToOthers } from '../../../test/support/dev-broker.ts';
import { Secret } from '../../domain/secret.ts';
import { discardEmbeddedPostgres, type EmbeddedPostgres, startEmbeddedPostgres } from './embedded-postgres.ts';
import { prepareLedger } from './ledger.ts';
import { withClient } from './sql.ts';
import { prepareStateDatabase, type StateDatabase } from './state-database.ts';

let dir: string;
let server: EmbeddedPostgres;
let state: StateDatabase;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'mayfly-state-'));
  server = await startEmbeddedPostgres({ dir, port: 0 });
  state = await prepareStateDatabase(server, dir);
  await prepareLedger(server.url('postgres'));
});
afterAll(async () => {
  await server.stop();
  await discardEmbeddedPostgres(dir);
  await rm(dir, { recursive: true, force: true });
});

async function rows(url: string, sql: string): Promise<Record<string, unknown>[]> {
  return withClient(url, async (client) => (await client.query(sql)).rows);
}

async function targetUrl(database: string): Promise<string> {
  const password = new Secret((await readFile(state.target.passwordFile, 'utf8')).trim());
  return server.url(database, state.target.user, password);
}

test('its three logins come in, each as itself', async () => {
  const who = 'SELECT current_user AS who, current_database() AS at';
  expect(await rows(state.ownerUrl.reveal(), who)).toEqual([{ who: 'mayfly_owner', at: 'mayfly' }]);
  expect(await rows(state.runtimeUrl.reveal(), who)).toEqual([{ who: 'mayfly_runtime', at: 'mayfly' }]);
  expect(await rows(state.sequencerUrl.reveal(), who)).toEqual([{ who: 'mayfly_sequencer', at: 'mayfly' }]);
});

test('the owner can migrate, the others can make nothing, and nobody has an attribute', async () => {
  await rows(state.ownerUrl.reveal(), 'CREATE SCHEMA house; DROP SCHEMA house');
  for (const url of [state.runtimeUrl, state.sequencerUrl]) {
    for (const sql of ['CREATE SCHEMA mine', 'CREATE TABLE public.mine ()', 'CREATE TEMP TABLE mine ()']) {
      await expect(rows(url.reveal(), sql)).rejects.toMatchObject({ code: '42501' });
    }
  }
  const able = `SELECT rolname FROM pg_roles WHERE rolname LIKE 'mayfly%'
    AND (rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls OR NOT rolcanlogin)`;
  expect(await rows(server.url('postgres'), able)).toEqual([]);
});

test('the login for the target reaches the target, and not the state', async () => {
  expect(await rows(await targetUrl('ledger'), 'SELECT current_user AS who')).toEqual([{ who: 'mayfly_broker' }]);
  for (const database of ['mayfly', 'postgres', 'template1']) {
    await expect(rows(await targetUrl(database), 'SELECT 1')).rejects.toMatchObject({ code: '42501' });
  }
  expect(state.target.passwordFile).toBe(join(dir, 'secrets', 'ledger-db', 'password'));
});

test('passwords stand in files of mode 0600 and print nowhere', async () => {
  expect((await stat(join(dir, 'secrets', 'state-db', 'mayfly_owner'))).mode & 0o777).toBe(0o600);
  expect(await openToOthers(join(dir, 'secrets'))).toEqual([]);
  const password = (await readFile(join(dir, 'secrets', 'state-db', 'mayfly_owner'), 'utf8')).trim();
  expect(state.ownerUrl.reveal()).toContain(password);
  expect(inspect(state) + JSON.stringify(state)).not.toContain(password);
});

test('a repeated start changes nothing', async () => {
  const again = await prepareStateDatabase(server, dir);
  expect(again.ownerUrl.reveal()).toBe(state.ownerUrl.reveal());
  expect(await rows(state.runtimeUrl.reveal(), 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
});

test('a lost password file gives a new password, and the old one ends', async () => {
  await rm(join(dir, 'secrets', 'state-db', 'mayfly_runtime'));
  await rm(state.target.passwordFile);
  const before = state;
  state = await prepareStateDatabase(server, dir);
  expect(state.runtimeUrl.reveal()).not.toBe(before.runtimeUrl.reveal());
  expect(state.ownerUrl.reveal()).toBe(before.ownerUrl.reveal());
  expect(await rows(state.runtimeUrl.reveal(), 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
  expect(await rows(await targetUrl('ledger'), 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
  await expect(rows(before.runtimeUrl.reveal(), 'SELECT 1')).rejects.toMatchObject({ code: '28P01' });
});

test('a login that drifted gets back the password of its file, and loses what it was given', async () => {
  await writeFile(join(dir, 'secrets', 'state-db', 'mayfly_sequencer'), 'chosen-by-hand\n');
  await rows(server.url('postgres'), 'ALTER ROLE mayfly_sequencer SUPERUSER NOLOGIN');
  state = await prepareStateDatabase(server, dir);
  expect(state.sequencerUrl.reveal()).toContain(':chosen-by-hand@');
  expect(await rows(state.sequencerUrl.reveal(), 'SELECT rolsuper FROM pg_roles WHERE rolname = current_user')).toEqual(
    [{ rolsuper: false }],
  );
});
