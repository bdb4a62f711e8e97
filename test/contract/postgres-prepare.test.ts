import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { prepare, type PrepareEntitlement, prepareSql, provider } from '../../providers/postgres/index.ts';
import { scramVerifier } from '../../providers/postgres/scram.ts';
import { type CheckStep, Secret } from '../../src/provider.ts';
import { availableVersions, type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { entitlementName, type Ledger, makeLedger, soon, sqlState } from './postgres-fixture.ts';

/** `step: says` of the steps that failed. */
function failed(steps: readonly CheckStep[]): readonly string[] {
  return steps.filter(({ ok }) => !ok).map(({ step, says }) => `${step}: ${says}`);
}

describe.each(availableVersions())('making PostgreSQL %i ready, and checking that it is', (version) => {
  let server: PostgresServer;
  let ledger: Ledger;
  let password: Secret<string>;
  let url: string;
  beforeAll(async () => {
    server = await startPostgres({ version });
    ledger = await makeLedger(server, 'ledger');
    url = server.superuserUrl('ledger');
    ({ password } = ledger);
    await ledger.admin(`
      CREATE TABLE billing."Odd ""names""; --" ("id $$ 1" int, secret text);
      CREATE SEQUENCE billing.numbers;
      CREATE FUNCTION billing.total(integer, text[]) RETURNS integer LANGUAGE sql RETURN 1;
      CREATE VIEW billing.totals AS SELECT sum(amount) FROM billing.invoices;`);
  });
  afterAll(async () => {
    await ledger?.close();
    await server?.stop();
  });

  function declared(privileges: readonly unknown[], maxTtlSeconds = 900): readonly PrepareEntitlement[] {
    const { template } = ledger.entitlement;
    const config = provider.entitlementSchema.parse({ template, privileges });
    return [{ name: entitlementName, maxTtlSeconds, config }];
  }
  async function apply(entitlements: readonly PrepareEntitlement[], installation = ledger.installation): Promise<void> {
    await prepare(url, ledger.config, entitlements, installation, { password });
  }
  const usual = [{ schema: 'billing', tables: ['invoices'], grant: ['SELECT'] }];

  test('it can be done again and again; living grants and the broker work on', async () => {
    const { ref, minted } = await ledger.mint();
    const agent = await ledger.login(minted);
    await apply(declared(usual));
    await apply(declared(usual));
    expect(await sqlState(agent.query('SELECT * FROM billing.invoices LIMIT 1'))).toBe('none');
    expect(await ledger.session.fence([ref], soon())).toMatchObject([{ ok: true }]);
  });

  test('what is no longer declared is taken away, from living grants too, and templates leave the allow-list', async () => {
    await apply(
      declared([
        { schema: 'billing', tables: ['invoices', 'totals'], grant: ['SELECT', 'UPDATE'] },
        { schema: 'billing', columns: { 'Odd "names"; --': ['id $$ 1'] }, grant: ['SELECT', 'UPDATE'] },
        { schema: 'billing', sequences: ['numbers'], grant: ['USAGE'] },
        { schema: 'billing', functions: ['total(integer, text[])'], grant: ['EXECUTE'] },
      ]),
    );
    const { ref, minted } = await ledger.mint();
    const agent = await ledger.login(minted);
    const uses = [
      'SELECT * FROM billing.invoices LIMIT 1',
      'UPDATE billing.invoices SET amount = amount WHERE id = 1',
      'SELECT * FROM billing.totals',
      'SELECT "id $$ 1" FROM billing."Odd ""names""; --"',
      `SELECT nextval('billing.numbers')`,
      `SELECT billing.total(1, '{}')`,
    ];
    const states = (): Promise<string[]> =>
      uses.reduce<Promise<string[]>>(
        async (before, use) => [...(await before), await sqlState(agent.query(use))],
        Promise.resolve([]),
      );
    await ledger.admin('REVOKE EXECUTE ON FUNCTION billing.total(integer, text[]) FROM PUBLIC');
    expect(await states()).toEqual(Array(6).fill('none'));
    expect(await sqlState(agent.query('SELECT secret FROM billing."Odd ""names""; --"'))).toBe('42501');

    await apply(declared(usual));
    expect(await states()).toEqual(['none', ...Array<string>(5).fill('42501')]);

    await apply([]);
    expect(await states()).toEqual(Array(6).fill('42501'));
    await expect(ledger.mint()).rejects.toMatchObject({ errorClass: 'misconfigured' });
    expect(await ledger.session.fence([ref], soon())).toMatchObject([{ ok: true }]);
    await apply(declared(usual));
  });

  test('policies that name a template stay as they are', async () => {
    await ledger.admin('CREATE POLICY some_rows ON billing.invoices TO mayfly_t_ledger USING (id < 10)');
    await apply(declared(usual));
    expect(await ledger.admin(`SELECT roles::text FROM pg_policies WHERE policyname = 'some_rows'`)).toEqual([
      { roles: '{mayfly_t_ledger}' },
    ]);
    await ledger.admin('DROP POLICY some_rows ON billing.invoices');
  });

  test('the SQL holds no password, only a verifier where one is given', async () => {
    const verifier = await scramVerifier('broker-password', 4096);
    const sql = prepareSql(ledger.config, declared(usual), ledger.installation, { brokerVerifier: verifier });
    expect(sql).toContain(verifier);
    expect(sql).not.toContain('broker-password');
    expect(prepareSql(ledger.config, declared(usual), ledger.installation)).not.toMatch(/PASSWORD 'SCRAM/);
  });

  test('the printed SQL is complete: an admin can run it as it is', async () => {
    const name = 'by_hand';
    const byHand = await server.createDatabase(name);
    const config = { ...ledger.config, database: name, user: 'broker by "hand"' };
    const brokerVerifier = await scramVerifier('known', 4096);
    const admin = new pg.Client({ connectionString: byHand });
    await admin.connect();
    await admin.query('REVOKE CREATE ON SCHEMA public FROM PUBLIC; CREATE TABLE public.things (id int)');
    const entitlements = [
      {
        name: 'by-hand/read',
        maxTtlSeconds: 60,
        config: provider.entitlementSchema.parse({
          template: 'mayfly_t_by_hand',
          privileges: [{ schema: 'public', tables: ['things'], grant: ['SELECT'] }],
        }),
      },
    ];
    await admin.query(prepareSql(config, entitlements, ledger.installation, { brokerVerifier }));
    await admin.end();
    const session = provider.connect(config, {
      target: name,
      installation: ledger.installation,
      secret: () => new Secret('known'),
      log: () => {},
    });
    const [entitlement] = entitlements;
    const steps = await session.check(
      { name: 'by-hand/read', config: entitlement?.config ?? ledger.entitlement },
      soon(),
    );
    expect(failed(steps)).toEqual([]);
    await session.close();
  });

  test('it refuses to take over the target of another installation, unless told to adopt it', async () => {
    const mine = randomUUID();
    const name = 'adopted';
    const other = await makeLedger(server, name);
    const { ref } = await other.mint();
    const entitlements = [{ name: entitlementName, maxTtlSeconds: 900, config: other.entitlement }];
    const at = server.superuserUrl(name);
    await expect(prepare(at, other.config, entitlements, mine, { password })).rejects.toMatchObject({
      errorClass: 'misconfigured',
      message: expect.stringContaining(other.installation),
    });
    expect(await other.session.fence([], soon())).toEqual([]);
    await prepare(at, other.config, entitlements, mine, { password, adopt: true });
    expect(await other.admin('SELECT id, epoch FROM mayfly.installation')).toEqual([{ id: mine, epoch: '2' }]);
    const context = { target: name, installation: mine, secret: () => password, log: () => {} };
    const adopter = provider.connect(other.config, context);
    expect(await adopter.list?.(soon())).toMatchObject([{ handle: ref.handle, grantId: null }]);
    expect(await adopter.fence([ref], soon())).toMatchObject([{ ok: true, evidence: { login: 'cut' } }]);
    expect(await adopter.reap([ref], soon())).toMatchObject([{ ok: true }]);
    await adopter.close();
    // The old one's connections that still stand are refused by the functions themselves.
    const fresh = other.ref();
    await expect(other.session.mint(fresh, other.request(fresh), soon())).rejects.toMatchObject({
      errorClass: expect.stringMatching(/misconfigured|denied/),
    });
    await other.close();
  });

  test('a login of the broker that has more than it needs is cut down, or refused', async () => {
    await ledger.admin(`ALTER ROLE ${ledger.config.user} CREATEROLE CREATEDB`);
    await apply(declared(usual));
    expect(
      await ledger.admin('SELECT rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = $1', [ledger.config.user]),
    ).toEqual([{ rolcreaterole: false, rolcreatedb: false }]);
    await ledger.admin(`GRANT pg_monitor TO ${ledger.config.user}`);
    await expect(apply(declared(usual))).rejects.toThrow(/must be a member of nothing/);
    await ledger.admin(`REVOKE pg_monitor FROM ${ledger.config.user}`);
  });

  test('only a superuser can do it', async () => {
    await ledger.admin(`CREATE ROLE dba LOGIN CREATEROLE CREATEDB PASSWORD 'dba'`);
    const asDba = `postgres://dba:dba@127.0.0.1:${server.port}/ledger`;
    await expect(prepare(asDba, ledger.config, declared(usual), ledger.installation, { password })).rejects.toThrow(
      /superuser/,
    );
    await ledger.admin('DROP ROLE dba');
  });

  test('a table that does not exist is told by name, and nothing is changed', async () => {
    const before = await ledger.admin('SELECT * FROM mayfly.template');
    await expect(apply(declared([{ schema: 'billing', tables: ['nowhere'], grant: ['SELECT'] }], 60))).rejects.toThrow(
      /nowhere/,
    );
    expect(await ledger.admin('SELECT * FROM mayfly.template')).toEqual(before);
  });

  test('two entitlements must mean the same by one template', () => {
    const [first] = declared(usual);
    const [second] = declared([{ schema: 'billing', tables: ['salaries'], grant: ['SELECT'] }]);
    if (first === undefined || second === undefined) {
      throw new Error('no entitlements');
    }
    expect(() => prepareSql(ledger.config, [first, second], ledger.installation)).toThrow(
      /stands for other privileges/,
    );
  });

  describe('check', () => {
    async function check(): Promise<readonly CheckStep[]> {
      const context = { target: 'ledger', installation: ledger.installation, secret: () => password, log: () => {} };
      const session = provider.connect(ledger.config, context);
      const steps = await session.check({ name: entitlementName, config: ledger.entitlement }, soon());
      await session.close();
      return steps;
    }

    test('is content with a target that is right, and leaves nothing behind', async () => {
      const roles = await ledger.admin('SELECT rolname FROM pg_roles ORDER BY 1');
      const steps = await check();
      expect(failed(steps)).toEqual([]);
      expect(steps.map(({ step }) => step)).toEqual(
        expect.arrayContaining([
          'clock',
          'mint',
          'login',
          'allowed',
          'refused',
          'nothing_more',
          'session_ended',
          'verify',
        ]),
      );
      expect(await ledger.admin('SELECT rolname FROM pg_roles ORDER BY 1')).toEqual(roles);
    });

    test.each([
      [
        'CREATE for PUBLIC',
        'GRANT CREATE ON SCHEMA public TO PUBLIC',
        'REVOKE CREATE ON SCHEMA public FROM PUBLIC',
        /^public_create: .*public/,
      ],
      [
        'a table that PUBLIC reads',
        'GRANT SELECT ON billing.salaries TO PUBLIC',
        'REVOKE SELECT ON billing.salaries FROM PUBLIC',
        /^nothing_more: .*billing\.salaries/,
      ],
      [
        'a right that is missing',
        'REVOKE SELECT ON billing.invoices FROM mayfly_t_ledger',
        'GRANT SELECT ON billing.invoices TO mayfly_t_ledger',
        /^allowed: SELECT on "billing"."invoices"/,
      ],
      [
        'a template that inherits more',
        'GRANT pg_monitor TO mayfly_t_ledger',
        'REVOKE pg_monitor FROM mayfly_t_ledger',
        /^template: .*pg_monitor/,
      ],
      [
        'a template that may create',
        'GRANT CREATE ON SCHEMA billing TO mayfly_t_ledger',
        'REVOKE CREATE ON SCHEMA billing FROM mayfly_t_ledger',
        /^template: .*billing/,
      ],
      [
        'definer functions for everybody',
        'GRANT EXECUTE ON FUNCTION mayfly.status() TO PUBLIC',
        'REVOKE EXECUTE ON FUNCTION mayfly.status() FROM PUBLIC',
        /^definer_rights: /,
      ],
      [
        'a broker with attributes',
        'ALTER ROLE broker_ledger CREATEDB',
        'ALTER ROLE broker_ledger NOCREATEDB',
        /^broker_login: /,
      ],
    ] as const)('finds %s', async (_what, spoil, repair, finding) => {
      await ledger.admin(spoil);
      const findings = failed(await check());
      await ledger.admin(repair);
      expect(findings.join('\n')).toMatch(new RegExp(finding.source, 'm'));
      expect(failed(await check())).toEqual([]);
    });

    test('finds a standby that is not listed', async () => {
      const url18 = new URL(url);
      const standby = new pg.Client(
        Object.assign(
          {
            host: url18.hostname,
            port: server.port,
            user: 'postgres',
            password: server.password,
            application_name: 'replica7',
          },
          { replication: 'true' },
        ),
      );
      await standby.connect();
      expect(failed(await check())).toEqual([expect.stringMatching(/^standbys: .*replica7/)]);
      await standby.end();
      await expect.poll(async () => failed(await check())).toEqual([]);
    });

    test('finds prepared transactions allowed', async () => {
      await server.restart('fast', { max_prepared_transactions: 3 });
      expect(failed(await check())).toEqual([expect.stringMatching(/^prepared_transactions: /)]);
      await server.restart('fast', { max_prepared_transactions: 0 });
    });

    test('says of a target that is not prepared what to do', async () => {
      const name = 'bare';
      const bare = await server.createDatabase(name);
      const admin = new pg.Client({ connectionString: bare });
      await admin.connect();
      await admin.query(`CREATE ROLE broker_bare LOGIN PASSWORD '${password.reveal()}'`);
      await admin.end();
      const context = { target: name, installation: ledger.installation, secret: () => password, log: () => {} };
      const session = provider.connect({ ...ledger.config, database: name, user: 'broker_bare' }, context);
      expect(failed(await session.check(null, soon()))).toEqual([expect.stringMatching(/mayfly target prepare/)]);
      await session.close();
    });
  });
});
