import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { availableVersions, type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { type Ledger, sqlState } from './postgres-fixture.ts';
import { byTenant, declared, makeRows, type Rows } from './postgres-rows-fixture.ts';

/** Preparing row security, and checking that it is what bounds the rows. */
describe.each(availableVersions())('row security on PostgreSQL %i', (version) => {
  let server: PostgresServer;
  let rows: Rows;
  let ledger: Ledger;
  beforeAll(async () => {
    server = await startPostgres({ version });
    rows = await makeRows(server);
    ({ ledger } = rows);
  });
  afterAll(async () => {
    await ledger?.close();
    await server?.stop();
  });

  describe('prepare', () => {
    test('does not touch a table again that is as declared', async () => {
      const policies = (): Promise<unknown> => ledger.admin('SELECT oid, polname FROM pg_policy ORDER BY oid');
      const before = await policies();
      await rows.apply();
      expect(await policies()).toEqual(before);
    });

    test('refuses a table on which others have rights, unless told to; then they see what they saw', async () => {
      await ledger.admin(`
        CREATE TABLE billing.shared (id int, tenant text);
        INSERT INTO billing.shared VALUES (1, 'acme'), (2, 'globex');
        CREATE ROLE reporting LOGIN PASSWORD 'reporting';
        GRANT USAGE ON SCHEMA billing TO reporting; GRANT SELECT (tenant) ON billing.shared TO reporting`);
      const shared = { privileges: [{ schema: 'billing', tables: ['shared'], grant: ['SELECT'] }] };
      const bounded = { ...byTenant, table: 'shared' };
      const without = declared({ ...shared, row_security: [bounded] });
      await expect(rows.apply(without)).rejects.toMatchObject({
        message: expect.stringMatching(/billing\.shared.*reporting/),
      });
      expect(await ledger.admin(`SELECT relrowsecurity FROM pg_class WHERE relname = 'shared'`)).toEqual([
        { relrowsecurity: false },
      ]);
      const told = declared({ ...shared, row_security: [{ ...bounded, enable: true }] });
      await rows.apply(told);
      await ledger.admin('SET SESSION AUTHORIZATION reporting');
      expect(await ledger.admin('SELECT tenant FROM billing.shared')).toHaveLength(2);
      await ledger.admin('RESET SESSION AUTHORIZATION');
      const agent = await ledger.login((await ledger.mint({ config: told.config, params: { tenant: 'acme' } })).minted);
      // The policy for the others, which names PUBLIC, does not widen what the agent sees.
      expect((await agent.query('SELECT tenant FROM billing.shared')).rows).toEqual([{ tenant: 'acme' }]);
      await rows.apply();
      expect(await ledger.admin(`SELECT polname FROM pg_policy WHERE polrelid = 'billing.shared'::regclass`)).toEqual([
        { polname: 'mayfly_as_before' },
      ]);
    });

    test('refuses one that members of pg_read_all_data read', async () => {
      await ledger.admin(
        `CREATE TABLE billing.dumped (tenant text); CREATE ROLE dumper; GRANT pg_read_all_data TO dumper`,
      );
      const dumped = declared({
        privileges: [{ schema: 'billing', tables: ['dumped'], grant: ['SELECT'] }],
        row_security: [{ ...byTenant, table: 'dumped' }],
      });
      await expect(rows.apply(dumped)).rejects.toMatchObject({ message: expect.stringContaining('dumper') });
      await ledger.admin('DROP ROLE dumper');
      await ledger.admin('CREATE POLICY asleep ON billing.dumped USING (false)');
      await expect(rows.apply(dumped)).rejects.toMatchObject({ message: expect.stringContaining('would wake') });
      await ledger.admin('DROP POLICY asleep ON billing.dumped');
      await rows.apply(dumped);
      await rows.apply();
    });

    test.each([
      ['a view', { table: 'seen' }, /not a table/],
      ['a column that is not there', { column: 'nobody' }, /no column/],
      ['a type with many spellings', { column: 'odd' }, /not compared/],
      ['a collation to which other text is equal', { column: 'loose' }, /not compared/],
    ] as const)('refuses %s', async (_what, changes, says) => {
      await ledger.admin(`
        DROP TABLE IF EXISTS billing.odd CASCADE;
        CREATE COLLATION IF NOT EXISTS billing.loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
        CREATE TABLE billing.odd (odd char(5), loose text COLLATE billing.loose);
        CREATE OR REPLACE VIEW billing.seen AS SELECT 1 AS tenant`);
      await expect(
        rows.apply(declared({ row_security: [{ ...byTenant, table: 'odd', ...changes }] })),
      ).rejects.toMatchObject({ message: expect.stringMatching(says) });
      await ledger.admin('DROP VIEW billing.seen');
    });

    test('says which params are declared and not bound, or bound and not declared', async () => {
      await expect(
        rows.apply({ ...declared(), params: { tenant: { type: 'string' }, region: { type: 'integer' } } }),
      ).rejects.toMatchObject({
        message: expect.stringMatching(/nothing binds region/),
      });
      await expect(rows.apply({ ...declared(), params: {} })).rejects.toMatchObject({
        message: expect.stringMatching(/does not declare tenant/),
      });
    });

    test('two params of different types bound one table together', async () => {
      const both = declared({ row_security: [byTenant, { ...byTenant, column: 'region', param: 'region' }] });
      await rows.apply({ ...both, params: { tenant: { type: 'string' }, region: { type: 'integer' } } });
      const agent = await ledger.login(
        (await ledger.mint({ config: both.config, params: { tenant: 'acme', region: 2 } })).minted,
      );
      const { rows: found } = await agent.query('SELECT DISTINCT tenant, region FROM billing.payments');
      expect(found).toEqual([{ tenant: 'acme', region: 2 }]);
      expect(await rows.faults(both.config)).toBe('');
      await rows.apply();
    });
  });

  test('columns of other types, and params that only policies of your own read', async () => {
    const [acme, globex] = [randomUUID(), randomUUID()];
    await ledger.admin(`
      CREATE TABLE billing.notes (tenant uuid, open boolean, kind text);
      INSERT INTO billing.notes
        SELECT t::uuid, o, k FROM unnest(ARRAY['${acme}', '${globex}']) t, unnest(ARRAY[true, false]) o, unnest(ARRAY['a', 'b']) k`);
    const at = { schema: 'billing', table: 'notes' };
    const notes = declared({
      privileges: [{ schema: 'billing', tables: ['notes'], grant: ['SELECT'] }],
      row_security: [
        { ...at, column: 'tenant', param: 'tenant' },
        { ...at, column: 'open', param: 'open' },
      ],
      params: ['kind'],
    });
    const params = { tenant: { type: 'string' }, open: { type: 'boolean' }, kind: { type: 'string' } } as const;
    await rows.apply({ ...notes, params });
    await ledger.admin(
      `CREATE POLICY ours ON billing.notes AS RESTRICTIVE TO mayfly_t_rows USING (kind = (SELECT mayfly.param('kind')))`,
    );
    const asked = { tenant: globex, open: true, kind: 'b' };
    const agent = await ledger.login((await rows.mint(asked, { config: notes.config })).minted);
    expect((await agent.query('SELECT * FROM billing.notes')).rows).toEqual([asked]);
    // What is no UUID is refused when it is compared, not matched with anything.
    const odd = await ledger.login((await rows.mint({ ...asked, tenant: 'x' }, { config: notes.config })).minted);
    expect(await sqlState(odd.query('SELECT * FROM billing.notes'))).toBe('22P02');
    expect(await rows.faults(notes.config)).toBe('');
    await rows.apply();
  });

  describe('check', () => {
    test('warns of functions that see what their owner sees', async () => {
      await ledger.admin(
        `CREATE FUNCTION billing.everything() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM billing.payments'`,
      );
      const warnings = (await rows.check()).filter(
        ({ step, says }) => step === 'row_security' && says.startsWith('warning'),
      );
      await ledger.admin('DROP FUNCTION billing.everything()');
      expect(warnings).toMatchObject([{ ok: true, says: expect.stringContaining('billing.everything()') }]);
    });

    test('plays a life with params that nobody has', async () => {
      const steps = await rows.check();
      expect(steps.filter(({ ok }) => !ok)).toEqual([]);
      expect(steps).toEqual(
        expect.arrayContaining([
          expect.objectContaining({ step: 'rows' }),
          expect.objectContaining({ step: 'row_security' }),
        ]),
      );
    });

    test.each([
      [
        'a view of the owner',
        'CREATE VIEW billing.around AS SELECT * FROM billing.payments; GRANT SELECT ON billing.around TO mayfly_t_rows',
        'DROP VIEW billing.around',
        /billing\.around/,
      ],
      [
        'a view on such a view',
        'CREATE VIEW billing.layer AS SELECT * FROM billing.payments; CREATE VIEW billing.onion AS SELECT * FROM billing.layer; GRANT SELECT ON billing.onion TO PUBLIC',
        'DROP VIEW billing.onion, billing.layer',
        /billing\.onion/,
      ],
      [
        'a materialized view',
        'CREATE MATERIALIZED VIEW billing.copy AS SELECT * FROM billing.payments; GRANT SELECT ON billing.copy TO PUBLIC',
        'DROP MATERIALIZED VIEW billing.copy',
        /billing\.copy/,
      ],
      [
        'a child that is read directly',
        'CREATE TABLE billing.child () INHERITS (billing.payments); GRANT SELECT ON billing.child TO PUBLIC',
        'DROP TABLE billing.child',
        /billing\.child/,
      ],
      [
        'a template that bypasses it',
        'ALTER ROLE mayfly_t_rows BYPASSRLS',
        'ALTER ROLE mayfly_t_rows NOBYPASSRLS',
        /bypasses/,
      ],
      [
        'a right that no policy bounds',
        'GRANT TRUNCATE ON billing.payments TO PUBLIC',
        'REVOKE TRUNCATE ON billing.payments FROM PUBLIC',
        /TRUNCATE/,
      ],
      [
        'a template that owns the table',
        'ALTER TABLE billing.payments OWNER TO mayfly_t_rows',
        'ALTER TABLE billing.payments OWNER TO postgres',
        /as owner/,
      ],
    ] as const)('finds %s', async (_what, spoil, repair, finding) => {
      await ledger.admin(spoil);
      const findings = await rows.faults();
      await ledger.admin(repair);
      expect(findings).toMatch(new RegExp(`^row_security: .*${finding.source}`, 'm'));
      await rows.apply();
      expect(await rows.faults()).toBe('');
    });

    test.runIf(version >= 15)('lets a view be that reads with the rights of its caller', async () => {
      await ledger.admin(
        'CREATE VIEW billing.mine WITH (security_invoker = true) AS SELECT * FROM billing.payments; GRANT SELECT ON billing.mine TO mayfly_t_rows',
      );
      expect(await rows.faults()).toMatch(/^nothing_more: /);
      const { agent } = await rows.agentOf('acme');
      expect((await agent.query('SELECT DISTINCT tenant FROM billing.mine')).rows).toEqual([{ tenant: 'acme' }]);
      await ledger.admin('DROP VIEW billing.mine');
    });
  });
});
