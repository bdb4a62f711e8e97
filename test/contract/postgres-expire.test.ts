import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { prepare, provider } from '../../providers/postgres/index.ts';
import { availableVersions, type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { entitlementName, type Ledger, makeLedger, soon, sqlState } from './postgres-fixture.ts';

describe.each(availableVersions())("the dead-man's switch on PostgreSQL %i", (version) => {
  let server: PostgresServer;
  let ledger: Ledger;
  let switchman: pg.Client;
  const login = 'broker_ledger_expire';
  beforeAll(async () => {
    server = await startPostgres({ version });
    ledger = await makeLedger(server, 'ledger');
    await ledger.admin(`ALTER ROLE ${login} PASSWORD 'known'`);
    switchman = client('ledger', login, 'known');
    await switchman.connect();
  });
  afterAll(async () => {
    await switchman?.end();
    await ledger?.close();
    await server?.stop();
  });

  function client(database: string, user: string, password: string): pg.Client {
    const made = new pg.Client({ host: '127.0.0.1', port: server.port, database, user, password, ssl: false });
    made.on('error', () => {});
    return made;
  }
  async function expire(by = switchman): Promise<Record<string, number>> {
    const { rows } = await by.query('SELECT mayfly.expire() AS told');
    return rows[0]?.told;
  }
  async function dead(agent: pg.Client): Promise<boolean> {
    return (await sqlState(agent.query('SELECT 1'))) !== 'none';
  }
  /** Past its end by the target's own clock, without waiting for it. */
  async function lapse(handle: string): Promise<void> {
    await ledger.admin(`UPDATE mayfly.handle SET valid_until = now() - interval '1 s' WHERE handle = $1`, [handle]);
    await ledger.admin(`ALTER ROLE ${handle} VALID UNTIL '2020-01-01'`);
  }
  function steps(name: string): Promise<unknown> {
    return ledger.session.check(null, soon()).then((all) => all.filter(({ step }) => step === name));
  }

  test('is not spoken of until it ran', async () => {
    expect(await steps('expire')).toEqual([
      { step: 'expire', ok: true, says: expect.stringContaining('has never run') },
    ]);
    expect((await ledger.session.guarantee(ledger.entitlement, soon())).says).toMatch(
      /ended by the broker, not by the server/,
    );
  });

  test('with the whole broker down, ends the sessions of what is past its end, and nothing else', async () => {
    const down = await makeLedger(server, 'down');
    await down.admin(`ALTER ROLE broker_down_expire PASSWORD 'known'`);
    const by = client('down', 'broker_down_expire', 'known');
    await by.connect();
    const lapsing = await down.mint({ deadline: new Date(Date.now() + 5000) });
    const living = await down.mint();
    const [first, second, other] = [
      await down.login(lapsing.minted),
      await down.login(lapsing.minted),
      await down.login(living.minted),
    ];
    await ledger.admin(`
      CREATE ROLE stranger LOGIN PASSWORD 'stranger' VALID UNTIL '2099-01-01';
      CREATE ROLE mfy_${'a'.repeat(32)} LOGIN PASSWORD 'stranger'`);
    const strangers = await Promise.all(
      ['stranger', `mfy_${'a'.repeat(32)}`].map(async (user) => {
        const stranger = client('down', user, 'stranger');
        await stranger.connect();
        return stranger;
      }),
    );
    await ledger.admin(
      `ALTER ROLE stranger VALID UNTIL '2020-01-01'; ALTER ROLE mfy_${'a'.repeat(32)} VALID UNTIL '2020-01-01'`,
    );
    // Nothing that is not over: the role lives for another second.
    expect(await expire(by)).toEqual({ ended: 0, cut: 0, left: 0 });
    await down.session.close();

    await expect.poll(() => expire(by), { timeout: 60_000 }).toEqual({ ended: 2, cut: 1, left: 0 });
    await expect.poll(async () => (await dead(first)) && dead(second)).toBe(true);
    expect(await dead(other)).toBe(false);
    for (const stranger of strangers) {
      expect(await dead(stranger)).toBe(false);
      await stranger.end();
    }
    expect(
      await ledger.admin(
        `SELECT rolname, rolcanlogin FROM pg_roles WHERE rolname IN ($1, $2, 'stranger', 'broker_down') OR rolname LIKE 'mfy_aaa%' ORDER BY rolcanlogin, rolname = $2 DESC, rolname`,
        [lapsing.ref.handle, living.ref.handle],
      ),
    ).toEqual([
      { rolname: lapsing.ref.handle, rolcanlogin: false },
      { rolname: living.ref.handle, rolcanlogin: true },
      { rolname: 'broker_down', rolcanlogin: true },
      { rolname: `mfy_${'a'.repeat(32)}`, rolcanlogin: true },
      { rolname: 'stranger', rolcanlogin: true },
    ]);
    await ledger.admin(`DROP ROLE stranger, mfy_${'a'.repeat(32)}`);
    // The broker comes back, and finishes.
    const back = down.connect();
    expect(await back.fence([lapsing.ref], soon())).toMatchObject([{ ok: true }]);
    expect(await back.verify([lapsing.ref], soon())).toMatchObject([{ contained: true }]);
    expect(await back.reap([lapsing.ref], soon())).toMatchObject([{ ok: true }]);
    await by.end();
    await down.close();
  });

  test('finds a renamed role by its mark, a dropped one by its OID, and one that holds its own row', async () => {
    const [renamed, dropped, locker] = [await ledger.mint(), await ledger.mint(), await ledger.mint()];
    const clients = [
      await ledger.login(renamed.minted),
      await ledger.login(dropped.minted),
      await ledger.login(locker.minted),
    ];
    for (const { ref } of [renamed, dropped, locker]) await lapse(ref.handle);
    await ledger.admin(`ALTER ROLE ${renamed.ref.handle} RENAME TO hidden`);
    await ledger.admin(`DROP ROLE ${dropped.ref.handle}`);
    await clients[2]?.query(`BEGIN; ALTER ROLE ${locker.ref.handle} PASSWORD 'mine'`);
    expect(await expire()).toEqual({ ended: 3, cut: 2, left: 0 });
    for (const each of clients) await expect.poll(() => dead(each)).toBe(true);
    expect(
      await ledger.admin(`SELECT FROM pg_roles WHERE rolcanlogin AND rolname IN ('hidden', $1)`, [locker.ref.handle]),
    ).toEqual([]);
    await ledger.session.fence([renamed.ref, dropped.ref, locker.ref], soon());
    await ledger.session.reap([renamed.ref, dropped.ref, locker.ref], soon());
  });

  test('does not touch a role that only has the OID of one of ours', async () => {
    const { ref } = await ledger.mint();
    await ledger.session.fence([ref], soon());
    await ledger.admin(`CREATE ROLE heir LOGIN PASSWORD 'heir'`);
    const heir = client('ledger', 'heir', 'heir');
    await heir.connect();
    await ledger.admin(`ALTER ROLE heir VALID UNTIL '2020-01-01'`);
    await ledger.admin(`UPDATE mayfly.handle SET role_oid = 'heir'::regrole, valid_until = 'epoch' WHERE handle = $1`, [
      ref.handle,
    ]);
    expect(await expire()).toEqual({ ended: 0, cut: 0, left: 0 });
    expect(await dead(heir)).toBe(false);
    await heir.end();
    await ledger.admin(`UPDATE mayfly.handle SET role_oid = $2 WHERE handle = $1`, [ref.handle, ref.facts?.['oid']]);
    await ledger.admin('DROP ROLE heir');
    await ledger.session.reap([ref], soon());
  });

  test('a renewal that hangs past the end keeps no session open, and its login works on once it is done', async () => {
    const { ref, minted } = await ledger.mint({ deadline: new Date(Date.now() + 5000) });
    const agent = await ledger.login(minted);
    const renewing = await ledger.stolenLogin();
    await renewing.query('BEGIN');
    await renewing.query(`SELECT mayfly.renew($1, $2, now() + interval '14 min')`, [ledger.installation, ref.handle]);
    await expect.poll(() => expire(), { timeout: 60_000 }).toEqual({ ended: 1, cut: 0, left: 1 });
    await expect.poll(() => dead(agent)).toBe(true);
    await renewing.query('COMMIT');
    expect(await expire()).toEqual({ ended: 0, cut: 0, left: 0 });
    const again = await ledger.login(minted);
    expect(await dead(again)).toBe(false);
    await ledger.session.fence([ref], soon());
  });

  test('says when it last ran, and the guarantee speaks of it; later it says that it stopped', async () => {
    await expire();
    expect(await steps('expire')).toEqual([
      { step: 'expire', ok: true, says: expect.stringMatching(/last ran \d s ago/) },
    ]);
    const fresh = ledger.connect();
    expect((await fresh.guarantee(ledger.entitlement, soon())).says).toMatch(/schedule of the target/);
    await ledger.admin(`UPDATE mayfly.expire_run SET at = at - interval '4 min'`);
    expect(await steps('expire')).toEqual([{ step: 'expire', ok: false, says: expect.stringMatching(/has stopped/) }]);
    const later = ledger.connect();
    expect((await later.guarantee(ledger.entitlement, soon())).says).toMatch(/ended by the broker, not by the server/);
  });

  describe('its login', () => {
    test('may execute that function, and nothing else of ours', async () => {
      const { rows } = await switchman.query(
        `SELECT p.oid::regprocedure::text AS may FROM pg_proc p WHERE p.pronamespace = 'mayfly'::regnamespace AND has_function_privilege(p.oid, 'EXECUTE')`,
      );
      expect(rows).toEqual([{ may: 'mayfly.expire()' }]);
      const { rows: tables } = await switchman.query(
        `SELECT c.oid::regclass::text AS may FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname IN ('mayfly', 'billing') AND c.relkind = 'r'
           AND has_table_privilege(c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')`,
      );
      expect(tables).toEqual([]);
    });

    test.each([
      [
        'end a living session',
        'SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %living',
        '42501',
      ],
      ['make a role look past its end', `UPDATE mayfly.handle SET valid_until = 'epoch'`, '42501'],
      ['alter a role', 'ALTER ROLE broker_ledger NOLOGIN', '42501'],
      ['mint', `SELECT mayfly.mint(NULL, '', NULL, '', '', now(), now(), now(), 1)`, '42501'],
      ['end by force', `SELECT mayfly.kill(NULL, '{}', '{}')`, '42501'],
      ['read a table', 'SELECT * FROM billing.invoices', '42501'],
      ['say that it ran', 'INSERT INTO mayfly.expire_run VALUES (true, now(), current_user, 0)', '42501'],
      ['be more', 'SET ROLE broker_ledger', '42501'],
    ] as const)('cannot %s', async (_what, sql, state) => {
      const { ref, minted } = await ledger.mint();
      const agent = await ledger.login(minted);
      expect(await sqlState(switchman.query(sql.replace('%living', `'${ref.handle}'`)))).toBe(state);
      expect(await dead(agent)).toBe(false);
      await ledger.session.fence([ref], soon());
    });

    test('bends nothing by settings and tables of its own', async () => {
      const { ref, minted } = await ledger.mint();
      const agent = await ledger.login(minted);
      await switchman.query(`
        CREATE TEMP TABLE pg_authid AS SELECT oid, rolname, true AS rolcanlogin, 'epoch'::timestamptz AS rolvaliduntil FROM pg_roles;
        CREATE TEMP TABLE pg_shdescription AS SELECT 1 AS objoid; SET search_path = pg_temp, pg_catalog; SET TimeZone = 'Asia/Tokyo'`);
      expect(await expire()).toEqual({ ended: 0, cut: 0, left: 0 });
      await switchman.query('DISCARD ALL');
      expect(await dead(agent)).toBe(false);
      await ledger.session.fence([ref], soon());
    });

    test('is cut down by prepare, or refused when it is a member of something', async () => {
      const { config, installation, password, entitlement } = ledger;
      const again = (): Promise<void> =>
        prepare(
          server.superuserUrl('ledger'),
          config,
          [{ name: entitlementName, maxTtlSeconds: 900, config: entitlement }],
          installation,
          { password },
        );
      await ledger.admin(`ALTER ROLE ${login} CREATEROLE; GRANT EXECUTE ON FUNCTION mayfly.status() TO ${login}`);
      await again();
      expect(await ledger.admin(`SELECT rolcreaterole FROM pg_roles WHERE rolname = '${login}'`)).toEqual([
        { rolcreaterole: false },
      ]);
      expect(await sqlState(switchman.query('SELECT mayfly.status()'))).toBe('42501');
      expect(await expire()).toMatchObject({ left: 0 });
      await ledger.admin(`GRANT pg_monitor TO ${login}`);
      await expect(again()).rejects.toMatchObject({ message: expect.stringContaining(login) });
      await ledger.admin(`REVOKE pg_monitor FROM ${login}`);
    });
  });

  test('the CronJob calls it with that login, and holds no secret', () => {
    const config = { ...ledger.config, database: 'le"dger: #1', sslmode: 'verify-full' as const };
    const manifest: unknown = parse(provider.preparation?.expireJob?.('ledger-db', config) ?? '');
    const container = { command: expect.arrayContaining(['--command=SELECT mayfly.expire()']) };
    expect(manifest).toMatchObject({
      kind: 'CronJob',
      metadata: { name: 'mayfly-expire-ledger-db' },
      spec: { schedule: '* * * * *', jobTemplate: { spec: { template: { spec: { containers: [container] } } } } },
    });
    const text = JSON.stringify(manifest);
    expect(text).toContain(JSON.stringify({ name: 'PGDATABASE', value: 'le"dger: #1' }));
    expect(text).toContain(JSON.stringify({ name: 'PGUSER', value: login }));
    expect(text).not.toContain(ledger.password.reveal());
  });
});
