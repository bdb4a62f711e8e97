import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { provider } from '../../providers/postgres/index.ts';
import type { CheckStep } from '../../src/provider.ts';
import { availableVersions, type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { entitlementName, type Ledger, makeLedger, soon, sqlState } from './postgres-fixture.ts';

describe.each(availableVersions())('check of what everybody may do on PostgreSQL %i', (version) => {
  let server: PostgresServer;
  let ledger: Ledger;
  let usual: readonly CheckStep[];
  beforeAll(async () => {
    server = await startPostgres({ version });
    ledger = await makeLedger(server, 'ledger');
    // What every new database lets everybody do.
    await ledger.admin(`
      REVOKE EXECUTE ON FUNCTION lo_creat(integer), lo_create(oid), lo_from_bytea(oid, bytea) FROM PUBLIC`);
    usual = await check();
  });
  afterAll(async () => {
    await ledger?.close();
    await server?.stop();
  });

  async function check(config = ledger.entitlement): Promise<readonly CheckStep[]> {
    const session = ledger.connect();
    try {
      return await session.check({ name: entitlementName, config }, soon());
    } finally {
      await session.close();
    }
  }
  /** `FAIL step: says` and `warn step: says` of those that are not simply good. */
  function told(steps: readonly CheckStep[]): readonly string[] {
    return steps.flatMap(({ step, ok, warns, says }) =>
      ok && warns === undefined ? [] : [`${ok ? 'warn' : 'FAIL'} ${step}: ${says}`],
    );
  }
  async function more(): Promise<readonly string[]> {
    const before = told(usual);
    return told(await check()).filter((line) => !before.includes(line));
  }

  test('a database in which PUBLIC may do nothing passes', () => {
    expect(told(usual)).toEqual([
      expect.stringMatching(/^warn public_temp/),
      // Those that every cluster has.
      expect.stringMatching(/^warn databases: .*: postgres, template1 /),
    ]);
  });

  const cases: readonly (readonly [string, string, string, readonly RegExp[]])[] = [
    [
      'another right on a relation that is declared',
      'GRANT UPDATE ON billing.invoices TO PUBLIC',
      'REVOKE UPDATE ON billing.invoices FROM PUBLIC',
      [/^FAIL public_relations: .* 1 .*UPDATE on billing\.invoices/],
    ],
    [
      'one column for everybody',
      'GRANT SELECT (amount) ON billing.salaries TO PUBLIC',
      'REVOKE SELECT (amount) ON billing.salaries FROM PUBLIC',
      [/^FAIL public_relations: .*SELECT \(amount\) on billing\.salaries/, /^FAIL nothing_more: /],
    ],
    [
      'functions, which everybody may call unless that is taken away',
      Array.from({ length: 7 }, (_, n) => `CREATE FUNCTION billing.f${n}() RETURNS int LANGUAGE sql RETURN 1;`).join(
        '',
      ),
      Array.from({ length: 7 }, (_, n) => `DROP FUNCTION billing.f${n}();`).join(''),
      [/^warn public_functions: .*7: billing\.f0\(\), .*billing\.f4\(\) and 2 more/],
    ],
    [
      'a function that runs as its owner',
      `CREATE ROLE app; CREATE FUNCTION billing.refund() RETURNS int LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN 1; END';
       ALTER FUNCTION billing.refund() OWNER TO app`,
      'DROP FUNCTION billing.refund(); DROP ROLE app',
      [/^warn public_definer_functions: .*1: billing\.refund\(\)/],
    ],
    [
      'a function that runs as a superuser, pinned',
      `CREATE FUNCTION billing.audit() RETURNS int LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'BEGIN RETURN 1; END'`,
      'DROP FUNCTION billing.audit()',
      [/^warn public_definer_functions: .*1: billing\.audit\(\)/],
    ],
    [
      'a function that runs as a superuser and looks for names where the caller says',
      `CREATE FUNCTION billing.audit() RETURNS int LANGUAGE plpgsql SECURITY DEFINER SET search_path = billing AS 'BEGIN RETURN 1; END'`,
      'DROP FUNCTION billing.audit()',
      [/^FAIL superuser_functions: .*1: billing\.audit\(\)/],
    ],
    [
      'something of the system that was opened',
      'GRANT EXECUTE ON FUNCTION pg_read_file(text) TO PUBLIC; GRANT SELECT ON pg_authid TO PUBLIC',
      'REVOKE EXECUTE ON FUNCTION pg_read_file(text) FROM PUBLIC; REVOKE SELECT ON pg_authid FROM PUBLIC',
      [/^FAIL system_rights: .*pg_authid, pg_read_file\(text\)/, /^FAIL refused: reading pg_authid: allowed/],
    ],
    [
      'large objects that can be made',
      'GRANT EXECUTE ON FUNCTION lo_create(oid) TO PUBLIC',
      'REVOKE EXECUTE ON FUNCTION lo_create(oid) FROM PUBLIC',
      [/^warn public_large_objects: .*lo_create\(oid\)/],
    ],
    [
      'a large object for everybody',
      'SELECT lo_create(4711); GRANT SELECT ON LARGE OBJECT 4711 TO PUBLIC',
      'SELECT lo_unlink(4711)',
      [/^warn public_large_objects: PUBLIC may use 1 /],
    ],
    [
      'an untrusted language',
      'CREATE LANGUAGE planythingu HANDLER plpgsql_call_handler',
      'DROP LANGUAGE planythingu',
      [/^warn untrusted_languages: .*planythingu/],
    ],
    [
      'a foreign server',
      `CREATE FOREIGN DATA WRAPPER w; CREATE SERVER other FOREIGN DATA WRAPPER w; GRANT USAGE ON FOREIGN SERVER other TO PUBLIC`,
      'DROP FOREIGN DATA WRAPPER w CASCADE',
      [/^warn foreign_servers: .*other$/],
    ],
    [
      'a wrapper for foreign servers',
      `CREATE FOREIGN DATA WRAPPER w; GRANT USAGE ON FOREIGN DATA WRAPPER w TO PUBLIC`,
      'DROP FOREIGN DATA WRAPPER w CASCADE',
      [/^warn foreign_servers: .*w$/],
    ],
    [
      'a foreign server that takes everybody as one user',
      `CREATE FOREIGN DATA WRAPPER w; CREATE SERVER other FOREIGN DATA WRAPPER w; GRANT USAGE ON FOREIGN SERVER other TO PUBLIC;
       CREATE USER MAPPING FOR PUBLIC SERVER other`,
      'DROP FOREIGN DATA WRAPPER w CASCADE',
      [/^FAIL foreign_logins: .*other/],
    ],
    [
      'dblink',
      'CREATE EXTENSION dblink SCHEMA billing',
      'DROP EXTENSION dblink',
      [/^warn untrusted_languages: .*billing\.dblink/, /^warn dblink: /],
    ],
    [
      'tables to be made that everybody will read',
      'ALTER DEFAULT PRIVILEGES IN SCHEMA billing GRANT SELECT ON TABLES TO PUBLIC',
      'ALTER DEFAULT PRIVILEGES IN SCHEMA billing REVOKE SELECT ON TABLES FROM PUBLIC',
      [/^warn public_default_privileges: .*SELECT on new tables of postgres in billing/],
    ],
    [
      'tables to be made that the template will read',
      'ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO mayfly_t_ledger',
      'ALTER DEFAULT PRIVILEGES REVOKE SELECT ON TABLES FROM mayfly_t_ledger',
      [/^FAIL template_default_privileges: .*SELECT on new tables of postgres/],
    ],
    [
      'a template that reads everything',
      'GRANT pg_read_all_data TO mayfly_t_ledger',
      'REVOKE pg_read_all_data FROM mayfly_t_ledger',
      [
        /^FAIL template: .*pg_read_all_data/,
        /^FAIL refused: reading mayfly\.handle: allowed/,
        /^FAIL refused: reading pg_authid: allowed/,
        /^FAIL nothing_more: .*billing\.salaries/,
      ],
    ],
  ];
  test.each(cases)('finds %s', async (_what, spoil, repair, findings) => {
    await ledger.admin(spoil);
    const found = await more();
    await ledger.admin(repair);
    expect(found).toEqual(findings.map((finding): unknown => expect.stringMatching(finding)));
    expect(await more()).toEqual([]);
  });

  test('what is declared is not too much, and what an agent cannot get at neither', async () => {
    await ledger.admin(`
      CREATE FUNCTION billing.total() RETURNS int LANGUAGE sql RETURN 1;
      GRANT EXECUTE ON FUNCTION billing.total() TO mayfly_t_ledger;
      CREATE SCHEMA closed; CREATE TABLE closed.t (a int); GRANT ALL ON closed.t TO PUBLIC;
      CREATE FUNCTION closed.f() RETURNS int LANGUAGE sql RETURN 1`);
    const config = provider.entitlementSchema.parse({
      ...ledger.entitlement,
      privileges: [...ledger.entitlement.privileges, { schema: 'billing', functions: ['total()'], grant: ['EXECUTE'] }],
    });
    expect(told(await check(config))).toEqual(told(usual));
    await ledger.admin('DROP SCHEMA closed CASCADE; DROP FUNCTION billing.total()');
  });

  test('finds lo_compat_privileges', async () => {
    await ledger.admin(`ALTER DATABASE ledger SET lo_compat_privileges = on`);
    const found = await more();
    await ledger.admin(`ALTER DATABASE ledger RESET lo_compat_privileges`);
    expect(found).toEqual([expect.stringMatching(/^FAIL lo_compat_privileges: /)]);
    expect(await more()).toEqual([]);
  });

  test('a superuser’s function that looks for names where the caller says is indeed taken over', async () => {
    await ledger.admin(`
      CREATE TABLE billing.rules (what text); 
      CREATE FUNCTION billing.audit() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = billing AS
        'DECLARE r record; BEGIN FOR r IN SELECT what FROM rules LOOP EXECUTE r.what; END LOOP; END'`);
    const { ref, minted } = await ledger.mint();
    const agent = await ledger.login(minted);
    await agent.query(`CREATE TEMPORARY TABLE rules (what text)`);
    await agent.query(`GRANT SELECT ON rules TO PUBLIC`);
    await agent.query(`INSERT INTO rules VALUES ('GRANT SELECT ON billing.salaries TO ${ref.handle}')`);
    expect(await sqlState(agent.query('SELECT * FROM billing.salaries'))).toBe('42501');
    await agent.query('SELECT billing.audit()');
    expect(await sqlState(agent.query('SELECT * FROM billing.salaries'))).toBe('none');
    await ledger.session.fence([ref], soon());
    await ledger.session.reap([ref], soon());
    await ledger.admin('DROP FUNCTION billing.audit(); DROP TABLE billing.rules');
  });
});
