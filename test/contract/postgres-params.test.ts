import { randomUUID } from 'node:crypto';
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { scramVerifier } from '../../providers/postgres/scram.ts';
import { availableVersions, type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { type Ledger, soon, sqlState } from './postgres-fixture.ts';
import { declared, makeRows, type Params, type Rows, tenants } from './postgres-rows-fixture.ts';

/** Params of a grant decide which rows it reaches, and nothing that its agent can do changes them. */
describe.each(availableVersions())('params on PostgreSQL %i', (version) => {
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

  test('two grants see, write and change only the rows of their own tenants', async () => {
    const { agent: acme } = await rows.agentOf('acme');
    const { agent: globex } = await rows.agentOf('globex');
    const { agent: nobody } = await rows.agentOf('globex, as a cast to varchar(6) would cut it');
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
    const { agent } = await rows.agentOf('acme');
    await agent.query('SET enable_seqscan = off');
    const { rows: found } = await agent.query('EXPLAIN (COSTS OFF) SELECT * FROM billing.payments');
    const plan = found.map((row) => row['QUERY PLAN']).join('\n');
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
      async (_what, attack, state, seen = 'acme') => {
        const other = await rows.mint({ tenant: 'globex' });
        const { live, agent } = await rows.agentOf('acme');
        const sql = attack.replaceAll('%other', other.ref.handle).replaceAll('%self', live.ref.handle);
        expect(await sqlState(agent.query(sql))).toBe(state);
        // Refused outright, or of no effect; never the rows of somebody else.
        expect(await tenants(agent).catch((error: unknown) => Object(error).code)).toBe(seen);
        // A login afterwards may be refused for what the agent did to its role, but is never wider.
        const again = await ledger.login(live.minted).catch(() => null);
        expect(again === null ? 'acme' : await tenants(again)).toBe('acme');
      },
    );

    test('as the template itself (before PostgreSQL 16) it has the same rows', async () => {
      const { agent } = await rows.agentOf('acme');
      expect(await sqlState(agent.query('SET ROLE mayfly_t_rows'))).toBe(version >= 16 ? '42501' : 'none');
      expect(await tenants(agent)).toBe('acme');
    });

    test('a leaky function in WHERE is shown nothing of others', async () => {
      const { agent } = await rows.agentOf('acme');
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
      await rows.mint({ tenant: 'acme' });
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
      await expect(rows.mint(params)).rejects.toMatchObject({ errorClass: 'misconfigured' });
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
      await rows.apply(entitlement);
      const thief = await ledger.stolenLogin();
      expect(await rawMint(thief, { tenant: 7 })).toBe('MF020');
      expect(await rawMint(thief, { tenant: 'x'.repeat(1001) })).toBe('MF020');
      expect(await rawMint(thief, { tenant: 'acme' })).toBe('none');
      await rows.apply();
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
        await expect(rows.mint({ tenant: 'acme' })).rejects.toMatchObject({
          errorClass: 'misconfigured',
          message: expect.stringContaining('MF021'),
        });
        expect(await rows.faults()).toMatch(/^row_security: .*billing\.payments/m);
        if (repair === null) await rows.apply();
        else await ledger.admin(repair);
        const { agent } = await rows.agentOf('acme');
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
    async function stored(): Promise<number> {
      return (await ledger.admin('SELECT FROM mayfly.param')).length;
    }
    test('they stay over a renewal and go with the role', async () => {
      const before = await stored();
      const { live, agent } = await rows.agentOf('acme');
      await ledger.session.renew?.(live.ref, new Date(Date.now() + 600_000), soon());
      expect(await tenants(agent)).toBe('acme');
      expect(await tenants(await ledger.login(live.minted))).toBe('acme');
      await ledger.session.fence([live.ref], soon());
      await ledger.session.reap([live.ref], soon());
      expect(await ledger.admin('SELECT FROM mayfly.param WHERE role_oid = $1', [live.ref.facts?.['oid']])).toEqual([]);
      expect(await stored()).toBe(before);
    });

    test('they go as well when somebody else drops the role', async () => {
      const { live } = await rows.agentOf('acme');
      await ledger.session.fence([live.ref], soon());
      await ledger.admin(`DROP ROLE ${live.ref.handle}`);
      await ledger.session.reap([live.ref], soon());
      expect(await ledger.admin('SELECT FROM mayfly.param WHERE role_oid = $1', [live.ref.facts?.['oid']])).toEqual([]);
    });

    test('an OID that is used again inherits nothing', async () => {
      const { live, agent } = await rows.agentOf('acme');
      // As if globex had had this OID, and nobody had cleaned up.
      const other = await rows.mint({ tenant: 'globex' });
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
      const live = await rows.mint({ tenant: 'acme' }, { deadline: new Date(Date.now() + 5000) });
      const agent = await ledger.login(live.minted);
      expect(await tenants(agent)).toBe('acme');
      await expect.poll(() => tenants(agent), { timeout: 60_000 }).toBe('');
      expect(await sqlState(agent.query('SELECT 1'))).toBe('none');
    });
  });
});
