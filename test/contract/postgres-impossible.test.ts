import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { availableVersions, type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { type Ledger, type Live, makeLedger, soon, sqlState } from './postgres-fixture.ts';

/** What would outlive a role if a template could make it. As the catalog prepares templates, none can. */
describe.each(availableVersions())('what no template may make on PostgreSQL %i', (version) => {
  let server: PostgresServer;
  let ledger: Ledger;
  let live: Live;
  let agent: pg.Client;
  beforeAll(async () => {
    server = await startPostgres({ version, settings: { wal_level: 'logical' } });
    ledger = await makeLedger(server, 'ledger');
    await ledger.admin(`CREATE FUNCTION billing.plain() RETURNS int LANGUAGE sql AS 'SELECT 1'`);
    live = await ledger.mint();
    agent = await ledger.login(live.minted);
  });
  afterAll(async () => {
    await ledger?.close();
    await server?.stop();
  });

  test.each([
    ['tables', 'CREATE TABLE billing.x (a int)'],
    ['tables in public', 'CREATE TABLE public.x (a int)'],
    ['views', 'CREATE VIEW billing.x AS SELECT 1'],
    ['materialized views', 'CREATE MATERIALIZED VIEW billing.x AS SELECT 1'],
    ['sequences', 'CREATE SEQUENCE billing.x'],
    ['functions', `CREATE FUNCTION billing.x() RETURNS int LANGUAGE sql AS 'SELECT 1'`],
    ['procedures', `CREATE PROCEDURE billing.x() LANGUAGE sql AS 'SELECT 1'`],
    ['types', 'CREATE TYPE billing.x AS (a int)'],
    ['domains', 'CREATE DOMAIN billing.x AS int'],
    ['operators', 'CREATE OPERATOR billing.=== (leftarg = int, rightarg = int, function = int4eq)'],
    ['operator classes', 'CREATE OPERATOR CLASS billing.x FOR TYPE int USING btree AS FUNCTION 1 btint4cmp(int, int)'],
    ['casts', 'CREATE CAST (int AS point) WITHOUT FUNCTION'],
    ['collations', 'CREATE COLLATION billing.x FROM "C"'],
    ['schemas', 'CREATE SCHEMA x'],
    ['databases', 'CREATE DATABASE x'],
    ['extensions', 'CREATE EXTENSION postgres_fdw'],
    ['languages', 'CREATE LANGUAGE x HANDLER plpgsql_call_handler'],
    ['publications', 'CREATE PUBLICATION x'],
    ['publications of tables', 'CREATE PUBLICATION x FOR TABLE billing.invoices'],
    ['subscriptions', `CREATE SUBSCRIPTION x CONNECTION 'host=127.0.0.1' PUBLICATION x WITH (connect = false)`],
    ['foreign data wrappers', 'CREATE FOREIGN DATA WRAPPER x'],
    ['foreign servers', 'CREATE SERVER x FOREIGN DATA WRAPPER wrapper'],
    ['user mappings', 'CREATE USER MAPPING FOR CURRENT_USER SERVER far'],
    ['event triggers', 'CREATE EVENT TRIGGER x ON ddl_command_start EXECUTE FUNCTION billing.plain()'],
    ['physical replication slots', `SELECT pg_create_physical_replication_slot('x')`],
    ['logical replication slots', `SELECT pg_create_logical_replication_slot('x', 'pgoutput')`],
    ['replication origins', `SELECT pg_replication_origin_create('x')`],
    ['indexes', 'CREATE INDEX ON billing.invoices (id)'],
    ['extended statistics', 'CREATE STATISTICS billing.x ON id, amount FROM billing.invoices'],
    [
      'triggers',
      'CREATE TRIGGER x BEFORE INSERT ON billing.invoices FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()',
    ],
    ['rules', 'CREATE RULE x AS ON INSERT TO billing.invoices DO NOTHING'],
    ['policies', 'CREATE POLICY x ON billing.invoices USING (true)'],
    ['comments on what is not its own', `COMMENT ON TABLE billing.invoices IS 'x'`],
    ['roles', 'CREATE ROLE x'],
    ['memberships in its template', 'GRANT mayfly_t_ledger TO broker_ledger'],
    // Before 15 a login may let others into itself: `unlink` takes that back, with their sessions.
    ...(version < 15
      ? []
      : [['memberships in itself', `DO 'BEGIN EXECUTE format(''GRANT %I TO broker_ledger'', current_user); END'`]]),
    ['default privileges of others', 'ALTER DEFAULT PRIVILEGES FOR ROLE postgres GRANT SELECT ON TABLES TO PUBLIC'],
    ['settings of the server', `ALTER SYSTEM SET work_mem = '1MB'`],
    ['settings of the database', `ALTER DATABASE ledger SET work_mem = '1MB'`],
    ['files on the server', `SELECT lo_export(1, '/tmp/x')`],
    ['prepared transactions, which check refuses', `BEGIN; SELECT 1; PREPARE TRANSACTION 'x'`],
  ])('%s', async (_what, sql) => {
    if (sql.includes('SERVER')) {
      await ledger.admin('CREATE FOREIGN DATA WRAPPER wrapper; CREATE SERVER far FOREIGN DATA WRAPPER wrapper');
    }
    // 0LP01: no ADMIN option (before 16). 55000: the server allows none to anybody.
    const expected = sql.includes('PREPARE')
      ? /^55000$/
      : sql.includes(' TO broker_ledger')
        ? /^(42501|0LP01)$/
        : /^42501$/;
    expect(await sqlState(agent.query(sql))).toMatch(expected);
    await agent.query('ROLLBACK');
    if (sql.includes('SERVER')) {
      await ledger.admin('DROP FOREIGN DATA WRAPPER wrapper CASCADE');
    }
  });

  test('grants made onward: they give nothing', async () => {
    await agent.query('GRANT SELECT ON billing.invoices TO PUBLIC');
    await agent.query('GRANT USAGE ON SCHEMA billing TO PUBLIC');
    expect(
      await ledger.admin(
        `SELECT relacl::text LIKE '%{=%' OR relacl::text LIKE '%,=%' AS given FROM pg_class WHERE relname = 'invoices'`,
      ),
    ).toEqual([{ given: false }]);
  });

  test('jobs of pg_cron, unless it may use that schema: check says so', async () => {
    // As the catalogs look where that extension is; the extension itself is not here.
    await ledger.admin(`SET allow_system_table_mods = on; CREATE SCHEMA cron;
      INSERT INTO pg_extension VALUES (99999, 'pg_cron', 10, 'cron'::regnamespace, false, '1', NULL, NULL)`);
    const step = async (): Promise<unknown> =>
      (await ledger.session.check({ name: 'x', config: ledger.entitlement }, soon())).find(
        (each) => each.step === 'pg_cron',
      );
    expect(await step()).toMatchObject({ ok: true });
    await ledger.admin('GRANT USAGE ON SCHEMA cron TO PUBLIC');
    expect(await step()).toMatchObject({
      ok: false,
      says: expect.stringMatching(/mayfly_t_ledger may use the schema cron/),
    });
    await ledger.admin(`DELETE FROM pg_extension WHERE oid = 99999; DROP SCHEMA cron; RESET allow_system_table_mods`);
    expect(await step()).toBeUndefined();
  });

  test('what it may make without any right is gone with it', async () => {
    await agent.query(`SELECT lo_create(0); ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC; CREATE TEMP TABLE t (a int);
      ALTER ROLE CURRENT_USER SET work_mem = '1MB'; SELECT pg_advisory_lock(7)`);
    await agent.query('BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; COMMIT; LISTEN x');
    expect(await ledger.session.fence([live.ref], soon())).toMatchObject([{ ok: true }]);
    expect(await ledger.session.reap([live.ref], soon())).toMatchObject([{ ok: true }]);
    expect(await ledger.session.verify([live.ref], soon())).toMatchObject([{ clean: true }]);
    expect(await ledger.admin('SELECT FROM pg_largeobject_metadata')).toEqual([]);
    expect(await ledger.admin('SELECT FROM pg_default_acl')).toEqual([]);
    expect(
      await ledger.admin('SELECT FROM pg_db_role_setting s WHERE s.setrole = $1', [live.ref.facts?.['oid']]),
    ).toEqual([]);
    expect(await ledger.admin(`SELECT FROM pg_locks WHERE locktype = 'advisory'`)).toEqual([]);
  });
});
