import { randomUUID } from 'node:crypto';
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { prepare, type PrepareEntitlement, provider } from '../../providers/postgres/index.ts';
import { scramVerifier } from '../../providers/postgres/scram.ts';
import type { CheckStep } from '../../src/provider.ts';
import { availableVersions, type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { entitlementName, type Ledger, type Live, makeLedger, soon, sqlState } from './postgres-fixture.ts';

type Params = Readonly<Record<string, string | number | boolean>>;

function failed(steps: readonly CheckStep[]): string {
  return steps
    .filter(({ ok }) => !ok)
    .map(({ step, says }) => `${step}: ${says}`)
    .join('\n');
}

describe.each(availableVersions())('params that bound rows on PostgreSQL %i', (version) => {
  let server: PostgresServer;
  let ledger: Ledger;
  beforeAll(async () => {
    server = await startPostgres({ version });
    ledger = await makeLedger(server, 'ledger');
    await ledger.admin(`
      REVOKE CREATE ON SCHEMA public FROM PUBLIC;
      CREATE TABLE billing.payments (id int PRIMARY KEY, tenant varchar(40) NOT NULL, region int NOT NULL DEFAULT 1, amount int NOT NULL);
      CREATE INDEX ON billing.payments (tenant);
      INSERT INTO billing.payments SELECT n, CASE WHEN n % 2 = 0 THEN 'acme' ELSE 'globex' END, n % 3, n FROM generate_series(1, 3000) n;
      CREATE TABLE billing.accounts (id uuid PRIMARY KEY, tenant text COLLATE "C");
      ANALYZE`);
    await apply();
  });
  afterAll(async () => {
    await ledger?.close();
    await server?.stop();
  });

  const rights = [{ schema: 'billing', tables: ['payments'], grant: ['SELECT', 'INSERT', 'UPDATE', 'DELETE'] }];
  const byTenant = { schema: 'billing', table: 'payments', column: 'tenant', param: 'tenant' };
  function declared(changes: Record<string, unknown> = {}): PrepareEntitlement {
    const config = provider.entitlementSchema.parse({
      template: 'mayfly_t_rows',
      privileges: rights,
      row_security: [byTenant],
      connection_limit: 5,
      ...changes,
    });
    return { name: 'ledger-db/own-payments', maxTtlSeconds: 900, config };
  }
  async function apply(...entitlements: PrepareEntitlement[]): Promise<void> {
    const usual = { name: entitlementName, maxTtlSeconds: 900, config: ledger.entitlement };
    const { config, installation, password } = ledger;
    const all = [usual, ...(entitlements.length === 0 ? [declared()] : entitlements)];
    await prepare(server.superuserUrl('ledger'), config, all, installation, { password });
  }
  function mint(params: Params, changes: Parameters<Ledger['mint']>[0] = {}): Promise<Live> {
    return ledger.mint({ config: declared().config, params, ...changes });
  }
  async function agentOf(tenant: string, options = ''): Promise<{ live: Live; agent: pg.Client }> {
    const live = await mint({ tenant });
    return { live, agent: await ledger.login(live.minted, options) };
  }
  async function tenants(agent: pg.Client): Promise<string> {
    const { rows } = await agent.query('SELECT DISTINCT tenant FROM billing.payments ORDER BY 1');
    return rows.map(({ tenant }) => tenant).join();
  }
  function check(config = declared().config): Promise<readonly CheckStep[]> {
    return ledger.session.check({ name: 'ledger-db/own-payments', config }, soon());
  }
  async function stored(): Promise<number> {
    return (await ledger.admin('SELECT FROM mayfly.param')).length;
  }

  test('two grants see, write and change only the rows of their own tenants', async () => {
    const { agent: acme } = await agentOf('acme');
    const { agent: globex } = await agentOf('globex');
    const { agent: nobody } = await agentOf('acme-but-longer-than-the-column-allows-so-that-a-cast-would-cut-it');
    expect([await tenants(acme), await tenants(globex), await tenants(nobody)]).toEqual(['acme', 'globex', '']);
    const states: string[] = [];
    for (const sql of [
      `INSERT INTO billing.payments VALUES (10001, 'globex', 1, 1)`,
      `UPDATE billing.payments SET tenant = 'globex' WHERE id = 2`,
      `INSERT INTO billing.payments VALUES (3, 'acme', 1, 1) ON CONFLICT (id) DO UPDATE SET amount = 0`,
      `INSERT INTO billing.payments VALUES (10002, 'acme', 1, 1)`,
    ])
      states.push(await sqlState(acme.query(sql)));
    expect(states).toEqual(['42501', '42501', '42501', 'none']);
    expect((await acme.query(`UPDATE billing.payments SET amount = 0 WHERE tenant = 'globex'`)).rowCount).toBe(0);
    expect((await acme.query(`DELETE FROM billing.payments WHERE tenant = 'globex' OR id = 10002`)).rowCount).toBe(1);
  });

  test('the param is read once a statement, and an index on the column serves', async () => {
    const { agent } = await agentOf('acme');
    await agent.query('SET enable_seqscan = off');
    const { rows } = await agent.query('EXPLAIN (COSTS OFF) SELECT * FROM billing.payments');
    const plan = rows.map((row) => row['QUERY PLAN']).join('\n');
    expect(plan).toMatch(/InitPlan/);
    expect(plan).toMatch(/Index Cond: .*tenant/);
  });

  describe('an agent cannot change, shadow or forge them:', () => {
    test.each([
      ['SET ROLE to the owner', 'SET ROLE postgres', '42501'],
      ['SET SESSION AUTHORIZATION', 'SET SESSION AUTHORIZATION postgres', '42501'],
      ['SET SESSION AUTHORIZATION to another grant', 'SET SESSION AUTHORIZATION %other', '42501'],
      ['SET ROLE to another grant', 'SET ROLE %other', '42501'],
      [
        'a setting of the same name',
        `SELECT set_config('mayfly.tenant', 'globex', false), set_config('mayfly.param', 'globex', false)`,
        'none',
      ],
      ['the setting session_authorization', `SELECT set_config('session_authorization', '%other', false)`, '42501'],
      ['the setting role', `SELECT set_config('role', 'postgres', false)`, '42501'],
      ['row_security off', 'SET row_security = off', 'none', '42501'],
      ['a schema of the same name', 'CREATE SCHEMA mayfly', '42501'],
      [
        'a function in the same schema',
        `CREATE FUNCTION mayfly.param(text) RETURNS text LANGUAGE sql AS $$ SELECT 'globex' $$`,
        '42501',
      ],
      [
        'a function found first',
        `CREATE FUNCTION pg_temp.param(text) RETURNS text LANGUAGE sql AS $$ SELECT 'globex'::text $$; SET search_path = pg_temp, mayfly, public`,
        'none',
      ],
      [
        'tables found first',
        `CREATE TEMP TABLE param AS SELECT 'globex' AS value; CREATE TEMP TABLE pg_authid AS SELECT 1 AS oid; SET search_path = pg_temp`,
        'none',
      ],
      ['a setting of its role', 'ALTER ROLE %self SET role = postgres', 'none'],
      ['the name of another grant', 'ALTER ROLE %self RENAME TO %other', '0A000'],
      ['another name for the other grant', 'ALTER ROLE %other RENAME TO globex', '42501'],
      ['BYPASSRLS', 'ALTER ROLE %self BYPASSRLS', '42501'],
      ['reading the table of params', 'SELECT * FROM mayfly.param', '42501'],
      ['writing it', `UPDATE mayfly.param SET value = 'globex'`, '42501'],
      [
        'writing it by the part of mint',
        `SELECT mayfly.bind('mayfly_t_rows', '%self', 1, '{"tenant": "globex"}')`,
        '42501',
      ],
      ['switching row security off', 'ALTER TABLE billing.payments DISABLE ROW LEVEL SECURITY', '42501'],
      ['a policy of its own', 'CREATE POLICY mine ON billing.payments USING (true)', '42501'],
      ['dropping the policy', 'DROP POLICY mayfly_t_rows_r ON billing.payments', '42501'],
    ] satisfies readonly (readonly [string, string, string, string?])[])(
      '%s',
      async (_what, attack, state, later = 'none') => {
        const other = await mint({ tenant: 'globex' });
        const { live, agent } = await agentOf('acme');
        const sql = attack.replaceAll('%other', other.ref.handle).replaceAll('%self', live.ref.handle);
        expect(await sqlState(agent.query(sql))).toBe(state);
        // Refused outright, or of no effect; never the rows of somebody else.
        const seen = tenants(agent);
        expect(await sqlState(seen)).toBe(later);
        if (later === 'none') expect(await seen).toBe('acme');
        // A login afterwards may be refused by what the agent did to itself, but is never wider.
        const again = await ledger.login(live.minted).catch(() => null);
        if (again !== null) expect(await tenants(again)).toBe('acme');
      },
    );

    test('as the template itself (before PostgreSQL 16) it has the same rows', async () => {
      const { agent } = await agentOf('acme');
      expect(await sqlState(agent.query('SET ROLE mayfly_t_rows'))).toBe(version >= 16 ? '42501' : 'none');
      expect(await tenants(agent)).toBe('acme');
    });

    test('a leaky function in WHERE is shown nothing of others', async () => {
      const { agent } = await agentOf('acme');
      const notices: string[] = [];
      agent.on('notice', ({ message }) => notices.push(String(message)));
      await agent.query(`CREATE FUNCTION pg_temp.leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001
        AS $$ BEGIN RAISE NOTICE '%', $1; RETURN true; END $$`);
      await agent.query('SELECT FROM billing.payments WHERE pg_temp.leak(tenant)');
      expect(new Set(notices)).toEqual(new Set(['acme']));
      // An error as the channel: 1 / 0 at a row of globex.
      expect(await sqlState(agent.query('SELECT FROM billing.payments WHERE 1 / (id - 3) > 0'))).toBe('none');
    });

    test('the function answers no other login: not the superuser, the broker or another template', async () => {
      await mint({ tenant: 'acme' });
      expect(await ledger.admin(`SELECT mayfly.param('tenant')`)).toEqual([{ param: null }]);
      const broker = await ledger.stolenLogin();
      expect(await sqlState(broker.query(`SELECT mayfly.param('tenant')`))).toBe('42501');
      const other = await ledger.login((await ledger.mint()).minted);
      expect(await sqlState(other.query(`SELECT mayfly.param('tenant')`))).toBe('42501');
    });
  });

  describe('a mint', () => {
    test.each([
      ['without them', {}],
      ['with another', { tenant: 'acme', region: 1 }],
      ['with another instead', { region: 1 }],
    ] as const)('%s is refused, and by the target too', async (_what, params) => {
      await expect(mint(params)).rejects.toMatchObject({ errorClass: 'misconfigured' });
      // As a broker would that was lied to about the entitlement, or whose login was stolen.
      const thief = await ledger.stolenLogin();
      expect(await rawMint(thief, params)).toBe('MF020');
    });

    test('of an entitlement without params refuses any', async () => {
      await expect(ledger.mint({ params: { tenant: 'acme' } })).rejects.toMatchObject({ errorClass: 'misconfigured' });
      const thief = await ledger.stolenLogin();
      expect(await rawMint(thief, { tenant: 'acme' }, ledger.entitlement.template)).toBe('MF020');
    });

    test('takes only the declared type', async () => {
      const entitlement = { ...declared(), params: { tenant: { type: 'string' } } } as const;
      await apply(entitlement);
      const thief = await ledger.stolenLogin();
      expect(await rawMint(thief, { tenant: 7 })).toBe('MF020');
      expect(await rawMint(thief, { tenant: 'x'.repeat(1001) })).toBe('MF020');
      expect(await rawMint(thief, { tenant: 'acme' })).toBe('none');
      await apply();
    });

    test('is refused while the rows are not bounded as prepared', async () => {
      for (const [spoil, repair] of [
        [
          'ALTER TABLE billing.payments DISABLE ROW LEVEL SECURITY',
          'ALTER TABLE billing.payments ENABLE ROW LEVEL SECURITY',
        ],
        ['ALTER POLICY mayfly_t_rows_r ON billing.payments USING (true)', null],
        ['DROP POLICY mayfly_t_rows_p ON billing.payments', null],
      ] as const) {
        await ledger.admin(spoil);
        await expect(mint({ tenant: 'acme' })).rejects.toMatchObject({
          errorClass: 'misconfigured',
          message: expect.stringContaining('MF021'),
        });
        expect(failed(await check())).toMatch(/^row_security: .*billing\.payments/m);
        if (repair === null) await apply();
        else await ledger.admin(repair);
        const { agent } = await agentOf('acme');
        expect(await tenants(agent)).toBe('acme');
      }
    });

    async function rawMint(thief: pg.Client, params: Params, template = 'mayfly_t_rows'): Promise<string> {
      const grantId = randomUUID();
      return sqlState(
        thief.query(
          `SELECT mayfly.mint($1, $2, $3, $4, $5, now() + interval '1 min', now(), now() + interval '10 s', 1, $6)`,
          [
            ...[ledger.installation, `mfy_${grantId.replaceAll('-', '')}`, grantId, template],
            ...[await scramVerifier('known', 4096), JSON.stringify(params)],
          ],
        ),
      );
    }
  });

  describe('their life', () => {
    test('they stay over a renewal and go with the role', async () => {
      const before = await stored();
      const { live, agent } = await agentOf('acme');
      await ledger.session.renew?.(live.ref, new Date(Date.now() + 600_000), soon());
      expect(await tenants(agent)).toBe('acme');
      expect(await tenants(await ledger.login(live.minted))).toBe('acme');
      await ledger.session.fence([live.ref], soon());
      await ledger.session.reap([live.ref], soon());
      expect(await ledger.admin('SELECT FROM mayfly.param WHERE role_oid = $1', [live.ref.facts?.['oid']])).toEqual([]);
      expect(await stored()).toBe(before);
    });

    test('they go as well when somebody else drops the role', async () => {
      const { live } = await agentOf('acme');
      await ledger.session.fence([live.ref], soon());
      await ledger.admin(`DROP ROLE ${live.ref.handle}`);
      await ledger.session.reap([live.ref], soon());
      expect(await ledger.admin('SELECT FROM mayfly.param WHERE role_oid = $1', [live.ref.facts?.['oid']])).toEqual([]);
    });

    test('an OID that is used again inherits nothing', async () => {
      const { live, agent } = await agentOf('acme');
      // As if globex had had this OID, and nobody had cleaned up.
      const other = await mint({ tenant: 'globex' });
      await ledger.admin('UPDATE mayfly.handle SET handle = $2 WHERE role_oid = $1', [
        live.ref.facts?.['oid'],
        `mfy_${'f'.repeat(32)}`,
      ]);
      expect(await tenants(agent)).toBe('');
      await ledger.admin('UPDATE mayfly.handle SET handle = $2 WHERE role_oid = $1', [
        live.ref.facts?.['oid'],
        live.ref.handle,
      ]);
      // And a mint clears what it finds under its OID.
      await ledger.admin(`INSERT INTO mayfly.param VALUES ($1, 'region', '1')`, [other.ref.facts?.['oid']]);
      await ledger.admin(`SELECT mayfly.bind('mayfly_t_rows', $1, $2, '{"tenant": "acme"}')`, [
        other.ref.handle,
        other.ref.facts?.['oid'],
      ]);
      expect(
        await ledger.admin('SELECT name, value FROM mayfly.param WHERE role_oid = $1', [other.ref.facts?.['oid']]),
      ).toEqual([{ name: 'tenant', value: 'acme' }]);
    });

    test('past the end an open session sees no rows, with the broker down', async () => {
      const live = await mint({ tenant: 'acme' }, { deadline: new Date(Date.now() + 2000) });
      const agent = await ledger.login(live.minted);
      expect(await tenants(agent)).toBe('acme');
      await expect.poll(() => tenants(agent), { timeout: 10_000 }).toBe('');
      expect(await sqlState(agent.query('SELECT 1'))).toBe('none');
    });
  });

  describe('prepare', () => {
    test('does not touch a table again that is as declared', async () => {
      const policies = (): Promise<unknown> => ledger.admin('SELECT oid, polname FROM pg_policy ORDER BY oid');
      const before = await policies();
      await apply();
      expect(await policies()).toEqual(before);
    });

    test('refuses a table on which others have rights, unless told to; then they see what they saw', async () => {
      await ledger.admin(`
        CREATE TABLE billing.shared (id int, tenant text);
        INSERT INTO billing.shared VALUES (1, 'acme'), (2, 'globex');
        CREATE ROLE reporting LOGIN PASSWORD 'reporting';
        GRANT USAGE ON SCHEMA billing TO reporting; GRANT SELECT (tenant) ON billing.shared TO reporting`);
      const shared = { privileges: [{ schema: 'billing', tables: ['shared'], grant: ['SELECT'] }] };
      const rows = { ...byTenant, table: 'shared' };
      const without = declared({ ...shared, row_security: [rows] });
      await expect(apply(without)).rejects.toMatchObject({
        message: expect.stringMatching(/billing\.shared.*reporting/),
      });
      expect(await ledger.admin(`SELECT relrowsecurity FROM pg_class WHERE relname = 'shared'`)).toEqual([
        { relrowsecurity: false },
      ]);
      const told = declared({ ...shared, row_security: [{ ...rows, enable: true }] });
      await apply(told);
      await ledger.admin('SET SESSION AUTHORIZATION reporting');
      expect(await ledger.admin('SELECT tenant FROM billing.shared')).toHaveLength(2);
      await ledger.admin('RESET SESSION AUTHORIZATION');
      const agent = await ledger.login((await ledger.mint({ config: told.config, params: { tenant: 'acme' } })).minted);
      // The policy for the others, which names PUBLIC, does not widen what the agent sees.
      expect((await agent.query('SELECT tenant FROM billing.shared')).rows).toEqual([{ tenant: 'acme' }]);
      await apply();
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
      await expect(apply(dumped)).rejects.toMatchObject({ message: expect.stringContaining('dumper') });
      await ledger.admin('DROP ROLE dumper');
      await ledger.admin('CREATE POLICY asleep ON billing.dumped USING (false)');
      await expect(apply(dumped)).rejects.toMatchObject({ message: expect.stringContaining('would wake') });
      await ledger.admin('DROP POLICY asleep ON billing.dumped');
      await apply(dumped);
      await apply();
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
        apply(declared({ row_security: [{ ...byTenant, table: 'odd', ...changes }] })),
      ).rejects.toMatchObject({ message: expect.stringMatching(says) });
      await ledger.admin('DROP VIEW billing.seen');
    });

    test('says which params are declared and not bound, or bound and not declared', async () => {
      await expect(
        apply({ ...declared(), params: { tenant: { type: 'string' }, region: { type: 'integer' } } }),
      ).rejects.toMatchObject({
        message: expect.stringMatching(/nothing binds region/),
      });
      await expect(apply({ ...declared(), params: {} })).rejects.toMatchObject({
        message: expect.stringMatching(/does not declare tenant/),
      });
    });

    test('two params of different types bound one table together', async () => {
      const both = declared({ row_security: [byTenant, { ...byTenant, column: 'region', param: 'region' }] });
      await apply({ ...both, params: { tenant: { type: 'string' }, region: { type: 'integer' } } });
      const agent = await ledger.login(
        (await ledger.mint({ config: both.config, params: { tenant: 'acme', region: 2 } })).minted,
      );
      const { rows } = await agent.query('SELECT DISTINCT tenant, region FROM billing.payments');
      expect(rows).toEqual([{ tenant: 'acme', region: 2 }]);
      expect(failed(await check(both.config))).toBe('');
      await apply();
    });
  });

  describe('check', () => {
    test('plays a life with params that nobody has', async () => {
      const steps = await check();
      expect(failed(steps)).toBe('');
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
      const findings = failed(await check());
      await ledger.admin(repair);
      expect(findings).toMatch(new RegExp(`^row_security: .*${finding.source}`, 'm'));
      await apply();
      expect(failed(await check())).toBe('');
    });

    test.runIf(version >= 15)('lets a view be that reads with the rights of its caller', async () => {
      await ledger.admin(
        'CREATE VIEW billing.mine WITH (security_invoker = true) AS SELECT * FROM billing.payments; GRANT SELECT ON billing.mine TO mayfly_t_rows',
      );
      expect(failed(await check())).toMatch(/^nothing_more: /);
      const { agent } = await agentOf('acme');
      expect((await agent.query('SELECT DISTINCT tenant FROM billing.mine')).rows).toEqual([{ tenant: 'acme' }]);
      await ledger.admin('DROP VIEW billing.mine');
    });
  });
});
