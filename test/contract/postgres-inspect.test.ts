import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { prepare, provider } from '../../providers/postgres/index.ts';
import { endingDrift } from '../../src/domain/drift.ts';
import type { Drift, Granted, Inspection } from '../../src/provider.ts';
import type { PostgresEntitlement } from '../../providers/postgres/schema.ts';
import { availableVersions, type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { entitlementName, type Ledger, type Live, makeLedger, soon, sqlState } from './postgres-fixture.ts';

function driftOf(inspection: Inspection | undefined): readonly Drift[] {
  if (inspection?.ok !== true) throw new Error('the inspection failed', { cause: inspection });
  return inspection.drift;
}

describe.each(availableVersions())('what a role can really do on PostgreSQL %i, beside what was granted', (version) => {
  let server: PostgresServer;
  let ledger: Ledger;
  let entitlement: PostgresEntitlement;
  beforeAll(async () => {
    server = await startPostgres({ version });
    ledger = await makeLedger(server, 'ledger');
    await ledger.admin(`
      CREATE TABLE billing.customers (id int, name text, iban text);
      CREATE SEQUENCE billing.numbers;
      CREATE FUNCTION billing.total(integer, text[]) RETURNS integer LANGUAGE sql RETURN 1;
      CREATE FUNCTION billing.other() RETURNS integer LANGUAGE sql RETURN 1;
      CREATE ROLE careless NOLOGIN;`);
    entitlement = provider.entitlementSchema.parse({
      template: 'mayfly_t_ledger',
      connection_limit: 5,
      privileges: [
        { schema: 'billing', tables: ['invoices'], grant: ['SELECT'] },
        { schema: 'billing', columns: { customers: ['id', 'name'] }, grant: ['SELECT', 'UPDATE'] },
        { schema: 'billing', sequences: ['numbers'], grant: ['USAGE'] },
        { schema: 'billing', functions: ['total(int, text[])'], grant: ['EXECUTE'] },
      ],
    });
    await prepare(
      server.superuserUrl('ledger'),
      ledger.config,
      [{ name: entitlementName, maxTtlSeconds: 900, config: entitlement }],
      ledger.installation,
      { password: ledger.password },
    );
  });
  afterAll(async () => {
    await ledger?.close();
    await server?.stop();
  });

  const granted = ({ ref }: Live, config = entitlement): Granted<PostgresEntitlement> => ({ ...ref, config });
  async function inspected(live: Live, config = entitlement): Promise<readonly Drift[]> {
    const [inspection] = (await ledger.session.inspect?.([granted(live, config)], soon())) ?? [];
    return driftOf(inspection);
  }
  async function ended(live: Live): Promise<void> {
    expect(await ledger.session.fence([live.ref], soon())).toMatchObject([{ ok: true }]);
  }

  test('a role as it was minted, and used as it may be, has no drift', async () => {
    const live = await ledger.mint();
    const agent = await ledger.login(live.minted);
    await agent.query('SELECT count(*) FROM billing.invoices');
    await agent.query('CREATE TEMPORARY TABLE mine (a int)');
    expect(await inspected(live)).toEqual([]);
    const later = new Date(Date.now() + 500_000);
    await ledger.session.renew?.(live.ref, later, soon());
    expect(await inspected(live)).toEqual([]);
    await ended(live);
  });

  test('each of a batch is told apart, in order, and one of another cluster fails alone', async () => {
    const [first, second, third] = [await ledger.mint(), await ledger.mint(), await ledger.mint()];
    await ledger.admin(`ALTER ROLE ${second.ref.handle} CREATEDB`);
    const strayed = { ...granted(third), facts: { ...third.ref.facts, system_identifier: '1' } };
    const seen = await ledger.session.inspect?.([granted(first), granted(second), strayed], soon());
    expect(seen).toMatchObject([
      { ok: true, drift: [] },
      { ok: true, drift: [{ what: 'attributes' }] },
      { ok: false, error: { errorClass: 'misconfigured' } },
    ]);
    expect(await ledger.session.inspect?.([], soon())).toEqual([]);
    await Promise.all([ended(first), ended(second), ended(third)]);
  });

  /** What an agent does to its own role, with nothing but its login. */
  const byAgent: readonly (readonly [Drift['what'], string, (agent: pg.Client) => Promise<unknown>, RegExp])[] = [
    [
      'password',
      'changes its password',
      (agent) => agent.query(`ALTER ROLE current_user PASSWORD 'mine for ever'`),
      /another/,
    ],
    [
      'password',
      'takes its password away',
      (agent) => agent.query('ALTER ROLE current_user PASSWORD NULL'),
      /no password/,
    ],
    [
      'settings_own',
      'sets things for its later sessions',
      (agent) => agent.query(`ALTER ROLE current_user SET application_name = 'S3CRET'`),
      /application_name$/,
    ],
    [
      'settings_own',
      'sets a search path in one database',
      (agent) => agent.query('ALTER ROLE current_user IN DATABASE ledger SET search_path = evil'),
      /search_path$/,
    ],
    [
      'default_privileges',
      'gives away what it will make',
      (agent) => agent.query('ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC'),
      /stands in default privileges/,
    ],
    ['owned', 'makes a large object', (agent) => agent.query('SELECT lo_create(0)'), /owns large object/],
  ];
  test.each(byAgent)('%s: an agent %s', async (what, _says, act, says) => {
    const live = await ledger.mint();
    const agent = await ledger.login(live.minted);
    await act(agent);
    const drift = await inspected(live);
    expect(drift).toEqual([{ what, says: expect.stringMatching(says) }]);
    expect(JSON.stringify(drift)).not.toMatch(/S3CRET|SCRAM|mine for ever/);
    await ended(live);
    await ledger.session.reap([live.ref], soon());
  });

  /** What a careless administrator does. `%` is the role. */
  const byAdministrator: readonly (readonly [Drift['what'], string, RegExp])[] = [
    ['login', 'ALTER ROLE % NOLOGIN', /no longer log in/],
    ['attributes', 'ALTER ROLE % SUPERUSER BYPASSRLS', /SUPERUSER, BYPASSRLS/],
    ['attributes', 'ALTER ROLE % NOINHERIT', /NOINHERIT/],
    ['expiry', `ALTER ROLE % VALID UNTIL 'infinity'`, /for ever/],
    ['expiry', `ALTER ROLE % VALID UNTIL '2100-01-01'`, /longer/],
    ['expiry', `ALTER ROLE % VALID UNTIL '2020-01-01'`, /less/],
    ['connection_limit', 'ALTER ROLE % CONNECTION LIMIT -1', /-1.*not 5/],
    ['memberships', 'GRANT pg_read_all_data TO %', /is a member of pg_read_all_data/],
    ['memberships', 'REVOKE mayfly_t_ledger FROM %', /is not a member of mayfly_t_ledger/],
    ['memberships', 'GRANT mayfly_t_ledger TO % WITH ADMIN OPTION', /with ADMIN/],
    ['members', 'GRANT % TO careless', /careless/],
    ['settings', 'ALTER ROLE % SET log_statement = none', /log_statement was set by an administrator/],
    ['settings_own', 'ALTER ROLE % SET statement_timeout = 0', /statement_timeout/],
    ['rights', 'GRANT SELECT ON billing.salaries TO %', /table billing\.salaries/],
    ['rights', 'GRANT UPDATE (iban) ON billing.customers TO %', /column iban/],
    ['rights', 'GRANT CREATE ON DATABASE postgres TO %', /database postgres/],
    [
      'default_privileges',
      'ALTER DEFAULT PRIVILEGES IN SCHEMA billing GRANT SELECT ON TABLES TO %',
      /default privileges/,
    ],
    ['policies', 'CREATE POLICY for_one ON billing.invoices TO % USING (true)', /policy for_one/],
    ['owned', 'ALTER TABLE billing.salaries OWNER TO %', /owns table billing\.salaries/],
    ['owned', 'ALTER DATABASE spare OWNER TO %', /owns database spare/],
    ['unmarked', `COMMENT ON ROLE % IS 'of the reporting team'`, /mark/],
  ];
  test.each(byAdministrator)('%s: an administrator does %s', async (what, sql, says) => {
    if (sql.includes('spare')) await server.createDatabase('spare');
    const live = await ledger.mint();
    await ledger.admin(sql.replace('%', live.ref.handle));
    expect(await inspected(live)).toEqual([{ what, says: expect.stringMatching(says) }]);
    await ledger.admin('ALTER TABLE billing.salaries OWNER TO postgres');
    if (sql.includes('spare')) await ledger.admin('ALTER DATABASE spare OWNER TO postgres');
    await ledger.admin(`DROP OWNED BY ${live.ref.handle}; DROP ROLE ${live.ref.handle}`);
    await ended(live);
  });

  test.runIf(version >= 16)('memberships: since 16 also one that lets the role become its template', async () => {
    const live = await ledger.mint();
    await ledger.admin(`GRANT mayfly_t_ledger TO ${live.ref.handle} WITH SET TRUE`);
    expect(await inspected(live)).toEqual([
      { what: 'memberships', says: expect.stringMatching(/is a member of mayfly_t_ledger with SET TRUE/) },
    ]);
    await ended(live);
  });

  test('owned, rights: also in another database, which is named', async () => {
    const live = await ledger.mint();
    const url = await server.createDatabase('elsewhere');
    const elsewhere = new pg.Client({ connectionString: url });
    await elsewhere.connect();
    await elsewhere.query(`CREATE TABLE t (a int); GRANT SELECT ON t TO ${live.ref.handle};
      CREATE TABLE u (a int); ALTER TABLE u OWNER TO ${live.ref.handle}`);
    expect(await inspected(live)).toEqual([
      { what: 'rights', says: expect.stringContaining('something in the database elsewhere') },
      { what: 'owned', says: expect.stringContaining('something in the database elsewhere') },
    ]);
    await elsewhere.query(`DROP OWNED BY ${live.ref.handle}`);
    await elsewhere.end();
    await server.dropDatabase('elsewhere');
    await ended(live);
  });

  test('renamed: the role is found by its OID', async () => {
    const live = await ledger.mint();
    await ledger.admin(`ALTER ROLE ${live.ref.handle} RENAME TO hidden`);
    // A SCRAM verifier does not depend on the name: the password is the same one.
    expect(await inspected(live)).toEqual([{ what: 'renamed', says: expect.stringContaining('hidden') }]);
    await ended(live);
    await ledger.session.reap([live.ref], soon());
  });

  test('absent, ended: a role that somebody dropped is told from one whose end is done', async () => {
    const live = await ledger.mint();
    await ledger.admin(`DROP ROLE ${live.ref.handle}`);
    expect(await inspected(live)).toMatchObject([{ what: 'absent' }]);
    await ended(live);
    expect(await inspected(live)).toMatchObject([{ what: 'ended' }]);
  });

  test('unregistered: a registry that was restored is no reason to see nothing', async () => {
    const live = await ledger.mint();
    await ledger.admin('DELETE FROM mayfly.handle WHERE handle = $1', [live.ref.handle]);
    await ledger.admin(`GRANT pg_read_all_data TO ${live.ref.handle}`);
    const drift = await inspected(live);
    expect(drift.map(({ what }) => what)).toEqual(expect.arrayContaining(['unregistered', 'memberships']));
    await ended(live);
  });

  test('settings: what the broker set is no drift, and is missed once it is gone', async () => {
    const live = await ledger.mint();
    await ledger.admin(`ALTER ROLE ${live.ref.handle} SET log_statement = 'all'`);
    await ledger.admin(`UPDATE mayfly.handle SET settings = '{log_statement=all}' WHERE handle = $1`, [
      live.ref.handle,
    ]);
    expect(await inspected(live)).toEqual([]);
    await ledger.admin(`ALTER ROLE ${live.ref.handle} RESET log_statement`);
    expect(await inspected(live)).toEqual([{ what: 'settings', says: expect.stringContaining('no longer set') }]);
    await ended(live);
  });

  /** What changes the template, how it is undone, and what is then said of each of its grants. */
  const ofTemplates: readonly (readonly [Drift['what'], string, string, RegExp])[] = [
    ['template', 'ALTER ROLE mayfly_t_ledger CREATEROLE', 'ALTER ROLE mayfly_t_ledger NOCREATEROLE', /CREATEROLE/],
    ['template', 'ALTER ROLE mayfly_t_ledger LOGIN', 'ALTER ROLE mayfly_t_ledger NOLOGIN', /LOGIN/],
    ['template', 'GRANT careless TO mayfly_t_ledger', 'REVOKE careless FROM mayfly_t_ledger', /member of careless/],
    [
      'template',
      'ALTER TABLE billing.salaries OWNER TO mayfly_t_ledger',
      'ALTER TABLE billing.salaries OWNER TO postgres',
      /owns/,
    ],
    [
      'template_wider',
      'GRANT SELECT ON billing.salaries TO mayfly_t_ledger',
      'REVOKE ALL ON billing.salaries FROM mayfly_t_ledger',
      /SELECT on billing\.salaries/,
    ],
    [
      'template_wider',
      'GRANT DELETE ON billing.invoices TO mayfly_t_ledger',
      'REVOKE DELETE ON billing.invoices FROM mayfly_t_ledger',
      /DELETE on billing\.invoices/,
    ],
    [
      'template_wider',
      'GRANT SELECT (iban) ON billing.customers TO mayfly_t_ledger',
      'REVOKE SELECT (iban) ON billing.customers FROM mayfly_t_ledger',
      /SELECT \(iban\) on billing\.customers/,
    ],
    [
      'template_wider',
      'GRANT SELECT ON billing.invoices TO mayfly_t_ledger WITH GRANT OPTION',
      'REVOKE GRANT OPTION FOR SELECT ON billing.invoices FROM mayfly_t_ledger',
      /to be granted on/,
    ],
    [
      'template_wider',
      'GRANT CREATE ON SCHEMA billing TO mayfly_t_ledger',
      'REVOKE CREATE ON SCHEMA billing FROM mayfly_t_ledger',
      /CREATE on the schema billing/,
    ],
    [
      'template_wider',
      'GRANT EXECUTE ON FUNCTION billing.other() TO mayfly_t_ledger',
      'REVOKE EXECUTE ON FUNCTION billing.other() FROM mayfly_t_ledger',
      /EXECUTE on billing\.other\(\)/,
    ],
    [
      'template_wider',
      'GRANT USAGE ON SCHEMA mayfly TO mayfly_t_ledger; GRANT EXECUTE ON FUNCTION mayfly.status() TO mayfly_t_ledger',
      'REVOKE ALL ON SCHEMA mayfly FROM mayfly_t_ledger; REVOKE ALL ON FUNCTION mayfly.status() FROM mayfly_t_ledger',
      /has also EXECUTE on mayfly\.status\(\)$/,
    ],
    [
      'template_wider',
      'GRANT TEMPORARY ON DATABASE ledger TO mayfly_t_ledger',
      'REVOKE TEMPORARY ON DATABASE ledger FROM mayfly_t_ledger',
      /TEMPORARY on the database ledger/,
    ],
    [
      'template_wider',
      'ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO mayfly_t_ledger',
      'ALTER DEFAULT PRIVILEGES REVOKE SELECT ON TABLES FROM mayfly_t_ledger',
      /default privileges/,
    ],
    [
      'template_narrower',
      'REVOKE SELECT ON billing.invoices FROM mayfly_t_ledger',
      'GRANT SELECT ON billing.invoices TO mayfly_t_ledger',
      /lacks SELECT on billing\.invoices/,
    ],
    [
      'template_narrower',
      'REVOKE EXECUTE ON FUNCTION billing.total(int, text[]) FROM mayfly_t_ledger',
      'GRANT EXECUTE ON FUNCTION billing.total(int, text[]) TO mayfly_t_ledger',
      /lacks EXECUTE on billing\.total\(int, text\[\]\)/,
    ],
    [
      'public',
      'GRANT SELECT ON billing.salaries TO PUBLIC',
      'REVOKE SELECT ON billing.salaries FROM PUBLIC',
      /PUBLIC has SELECT on billing\.salaries/,
    ],
    [
      'public',
      'GRANT UPDATE ON billing.invoices TO PUBLIC',
      'REVOKE UPDATE ON billing.invoices FROM PUBLIC',
      /UPDATE on billing\.invoices/,
    ],
    [
      'public',
      'GRANT SELECT (iban) ON billing.customers TO PUBLIC',
      'REVOKE SELECT (iban) ON billing.customers FROM PUBLIC',
      /SELECT \(iban\)/,
    ],
  ];
  test.each(ofTemplates)('%s: %s', async (what, sql, undo, says) => {
    const live = await ledger.mint();
    await ledger.admin(sql);
    const drift = await inspected(live);
    await ledger.admin(undo);
    expect(drift).toEqual([{ what, says: expect.stringMatching(says) }]);
    expect(await inspected(live)).toEqual([]);
    await ended(live);
  });

  test('template_narrower: an entitlement that has declared more since, and template: one that names another', async () => {
    const live = await ledger.mint();
    const more = provider.entitlementSchema.parse({
      ...entitlement,
      privileges: [
        ...entitlement.privileges,
        { schema: 'billing', functions: ['nowhere(nosuchtype)', 'other()'], grant: ['EXECUTE'] },
      ],
    });
    expect(await inspected(live, more)).toEqual([
      {
        what: 'template_narrower',
        says: expect.stringMatching(/nowhere\(nosuchtype\), EXECUTE on billing\.other\(\)/),
      },
    ]);
    const moved = provider.entitlementSchema.parse({ ...entitlement, template: 'mayfly_t_elsewhere' });
    const minted = {
      what: 'template',
      says: expect.stringMatching(/minted from .*mayfly_t_ledger, not mayfly_t_elsewhere/),
    };
    // Told, and no reason to end it: nobody changed the credential.
    expect(await inspected(live, moved)).toEqual([minted]);
    expect(endingDrift(await inspected(live, moved))).toEqual([]);
    await ledger.admin(`REVOKE mayfly_t_ledger FROM ${live.ref.handle}`);
    expect(await inspected(live, moved)).toEqual([
      { what: 'memberships', says: expect.stringContaining('mayfly_t_ledger') },
      minted,
    ]);
    await ended(live);
  });

  test('it is for the broker of this installation alone, and tells no verifier', async () => {
    const live = await ledger.mint();
    const thief = await ledger.stolenLogin();
    const ask = (installation: string) =>
      thief.query('SELECT mayfly.inspect($1, $2, $3)::text AS all', [installation, [live.ref.handle], [null]]);
    expect(await sqlState(ask('00000000-0000-4000-8000-000000000000'))).toBe('MF001');
    expect(JSON.stringify((await ask(ledger.installation)).rows)).not.toMatch(/SCRAM|verifier|digest/);
    const agent = await ledger.login(live.minted);
    for (const call of [
      `mayfly.inspect('${ledger.installation}', '{}', '{}')`,
      `mayfly.observe('${ledger.installation}', '{}', '{}', 1)`,
      `mayfly.seen('${ledger.installation}', '{}', 1)`,
      `mayfly.functions_named('${ledger.installation}', '{}')`,
      `mayfly.sessions('{}', 1)`,
    ]) {
      expect([call, await sqlState(agent.query(`SELECT ${call}`))]).toEqual([call, '42501']);
    }
    await ended(live);
  });
});
