import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { scramVerifier } from '../../providers/postgres/scram.ts';
import { availableVersions, type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { type Ledger, makeLedger, soon, sqlState } from './postgres-fixture.ts';

/** What the target itself refuses, to the broker's own login too: it may have been stolen. */
describe.each(availableVersions())("a stolen broker's login on PostgreSQL %i", (version) => {
  let server: PostgresServer;
  let ledger: Ledger;
  let thief: pg.Client;
  let verifier: string;
  beforeAll(async () => {
    server = await startPostgres({ version, settings: { log_statement: 'all', log_min_error_statement: 'error' } });
    ledger = await makeLedger(server, 'ledger', { maxTtlSeconds: 60, maxLive: 5 });
    thief = await ledger.stolenLogin();
    verifier = await scramVerifier('known to the thief', 4096);
  });
  afterAll(async () => {
    await ledger?.close();
    await server?.stop();
  });

  interface Asked {
    installation?: string;
    handle?: string;
    grantId?: string;
    template?: string;
    verifier?: string;
    seconds?: number | 'infinity';
    mintBy?: string;
    limit?: number | null;
  }
  /** The SQLSTATE of a raw `mint`, and its handle. */
  async function rawMint(asked: Asked = {}): Promise<{ state: string; handle: string }> {
    const grantId = asked.grantId ?? randomUUID();
    const handle = asked.handle ?? `mfy_${grantId.replaceAll('-', '')}`;
    const until = asked.seconds === 'infinity' ? 'infinity' : new Date(Date.now() + (asked.seconds ?? 30) * 1000);
    const state = await sqlState(
      thief.query('SELECT * FROM mayfly.mint($1, $2, $3, $4, $5, $6, $7, $8, $9)', [
        ...[asked.installation ?? ledger.installation, handle, grantId, asked.template ?? ledger.entitlement.template],
        ...[asked.verifier ?? verifier, until, 'infinity', asked.mintBy ?? new Date(Date.now() + 30_000)],
        asked.limit === undefined ? 3 : asked.limit,
      ]),
    );
    return { state, handle };
  }

  test('cannot mint behind an old snapshot, where the cap would be counted as it was', async () => {
    await thief.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
    expect((await rawMint()).state).toBe('MF007');
    await thief.query('ROLLBACK');
  });

  test('cannot count the beats of the holder beyond what a holder can count', async () => {
    const beat = (asked: string) =>
      thief.query(`SELECT (mayfly.hold($1, 'a', $2, ${asked})->>'beat')::bigint::float8 AS beat`, [
        ledger.installation,
        tenure,
      ]);
    const tenure = randomUUID();
    expect((await beat('1')).rows).toEqual([{ beat: 1 }]);
    expect((await beat('9223372036854775807')).rows).toEqual([{ beat: 1 }]);
    expect((await beat('2')).rows).toEqual([{ beat: 2 }]);
    await ledger.admin('UPDATE mayfly.installation SET store = NULL, tenure = NULL, beat = 0');
    await thief.query(`SELECT set_config('mayfly.tenure', '', false)`);
  });

  test.each([
    ['another installation', { installation: randomUUID() }, 'MF001'],
    ['a mint_by that has passed', { mintBy: '2020-01-01' }, 'MF002'],
    ['a mint_by that never comes', { mintBy: 'infinity' }, 'MF007'],
    ['an end that has passed', { seconds: -1 }, 'MF002'],
    ['a template that is not allowed', { template: 'mayfly_t_other' }, 'MF004'],
    ['a superuser as template', { template: 'postgres' }, 'MF004'],
    ['a built-in role as template', { template: 'pg_read_all_data' }, 'MF004'],
    ['SQL for a template', { template: 'mayfly_t_ledger"; ALTER ROLE broker_ledger SUPERUSER; --' }, 'MF004'],
    ['a longer life than the template allows', { seconds: 66 }, 'MF005'],
    ['a life without end', { seconds: 'infinity' as const }, 'MF005'],
    ['a handle that is not of the grant', { handle: `mfy_${'0'.repeat(32)}` }, 'MF007'],
    ['the name of a role that exists', { handle: 'postgres' }, 'MF007'],
    ['a password in clear', { verifier: 'secret' }, 'MF007'],
    ['an md5 verifier', { verifier: `md5${'0'.repeat(32)}` }, 'MF007'],
    ['a verifier with more after it', { verifier: "' SUPERUSER --" }, 'MF007'],
    ['a verifier that costs the server minutes', { verifier: 'SCRAM-SHA-256$9999999:AAAA' }, 'MF007'],
    ['no connection limit', { limit: null }, 'MF007'],
    ['an unbounded connection limit', { limit: -1 }, 'MF007'],
  ] satisfies readonly (readonly [string, Asked, string])[])('cannot mint with %s', async (_what, asked, state) => {
    const before = await ledger.admin('SELECT oid, rolname, rolsuper FROM pg_roles ORDER BY oid');
    expect((await rawMint(asked)).state).toBe(state);
    expect(await ledger.admin('SELECT oid, rolname, rolsuper FROM pg_roles ORDER BY oid')).toEqual(before);
  });

  test('gets no more live roles than the template allows, also at once', async () => {
    const others = await Promise.all(Array.from({ length: 8 }, () => ledger.stolenLogin()));
    const grants = others.map(() => randomUUID());
    const states = await Promise.all(
      others.map((client, i) =>
        sqlState(
          client.query(
            `SELECT mayfly.mint($1, $2, $3, $4, $5, now() + interval '30 s', now(), now() + interval '10 s', 1)`,
            [
              ledger.installation,
              `mfy_${(grants[i] ?? '').replaceAll('-', '')}`,
              grants[i],
              ledger.entitlement.template,
              verifier,
            ],
          ),
        ),
      ),
    );
    expect(states.filter((state) => state === 'none')).toHaveLength(5);
    expect(states.filter((state) => state === 'MF006')).toHaveLength(3);
    await expect(ledger.mint({ deadline: new Date(Date.now() + 30_000) })).rejects.toMatchObject({
      errorClass: 'retryable',
    });
    // What is fenced makes room.
    const refs = grants.map((grantId) => ledger.ref(grantId));
    await ledger.session.fence(refs, soon());
    const { ref } = await ledger.mint({ deadline: new Date(Date.now() + 30_000) });
    await ledger.session.fence([ref], soon());
    await ledger.session.reap([...refs, ref], soon());
  });

  test('cannot stretch a life by renewing it for ever', async () => {
    const { handle } = await rawMint();
    expect(await sqlState(thief.query(`SELECT mayfly.renew($1, $2, 'infinity')`, [ledger.installation, handle]))).toBe(
      'MF005',
    );
    await ledger.admin(
      `UPDATE mayfly.handle SET valid_until = clock_timestamp() + interval '10 s', not_after = clock_timestamp() + interval '20 s'
       WHERE handle = $1`,
      [handle],
    );
    const renewed = await thief.query(
      `SELECT expires_at <= clock_timestamp() + interval '20 s' AS bounded FROM mayfly.renew($1, $2, now() + interval '24 s')`,
      [ledger.installation, handle],
    );
    expect(renewed.rows).toEqual([{ bounded: true }]);
    const [row] = await ledger.admin('SELECT max_total_seconds FROM mayfly.template');
    expect(row).toEqual({ max_total_seconds: 86_400 });
  });

  test.each([
    'SELECT * FROM billing.invoices',
    'SELECT * FROM mayfly.handle',
    'SELECT * FROM mayfly.template',
    'SELECT * FROM mayfly.installation',
    "INSERT INTO mayfly.template VALUES ('mayfly_t_x', 1, 1, 1)",
    "UPDATE mayfly.installation SET id = '00000000-0000-0000-0000-000000000000'",
    'SELECT * FROM pg_authid',
    'CREATE ROLE friend',
    'ALTER ROLE postgres PASSWORD NULL',
    'GRANT mayfly_t_ledger TO broker_ledger',
    'SET ROLE mayfly_t_ledger',
    'SET ROLE postgres',
    'CREATE TABLE mayfly.mine (a int)',
    'CREATE SCHEMA mine',
    'CREATE FUNCTION mayfly.mark(uuid, uuid) RETURNS text LANGUAGE sql RETURN 1',
    'SELECT mayfly.prune()',
    "SELECT mayfly.roles_of(ARRAY['x'], ARRAY[10::oid])",
    'SET log_parameter_max_length = -1',
  ])('may not %s', async (sql) => {
    expect(await sqlState(thief.query(sql))).toBe('42501');
  });

  test('can neither end the sessions nor touch the role of anybody who is not ours', async () => {
    const application = new pg.Client({ connectionString: server.superuserUrl('ledger') });
    await application.connect();
    const handle = `mfy_${randomUUID().replaceAll('-', '')}`;
    const oids = '{10}';
    await thief.query(`SELECT mayfly.kill($1, $2::oid[], ARRAY(SELECT pid FROM pg_stat_activity))`, [
      ledger.installation,
      oids,
    ]);
    const fenced = await thief.query(`SELECT outcome FROM mayfly.fence($1, $2, $3::oid[], ARRAY[now()], 10, false)`, [
      ledger.installation,
      [handle],
      oids,
    ]);
    expect(fenced.rows).toEqual([{ outcome: 'foreign' }]);
    const unlinked = await thief.query(`SELECT outcome FROM mayfly.unlink($1, $2::oid[], 10)`, [
      ledger.installation,
      oids,
    ]);
    expect(unlinked.rows).toEqual([{ outcome: 'absent' }]);
    const dropped = await thief.query(`SELECT outcome FROM mayfly.drop($1, $2, $3::oid[], 10, true)`, [
      ledger.installation,
      [handle],
      oids,
    ]);
    expect(dropped.rows).toEqual([{ outcome: 'foreign' }]);
    expect((await application.query('SELECT rolcanlogin FROM pg_roles WHERE oid = 10')).rows).toEqual([
      { rolcanlogin: true },
    ]);
    await application.end();
  });

  test('cannot bend the functions by its own settings', async () => {
    const crooked = await ledger.stolenLogin();
    await crooked.query('CREATE TEMP TABLE pg_authid (oid oid, rolname name, rolcanlogin bool)');
    await crooked.query(`SET search_path = pg_temp, public; SET DateStyle = 'SQL, DMY'; SET TimeZone = 'Asia/Tokyo'`);
    await crooked.query('SET standard_conforming_strings = off; SET check_function_bodies = off').catch(() => {});
    const grantId = randomUUID();
    const { rows } = await crooked.query(
      `SELECT role_oid, abs(extract(epoch FROM expires_at - now()) - 30) < 1 AS as_asked
       FROM mayfly.mint($1, $2, $3, $4, $5, now() + interval '30 s', now(), now() + interval '10 s', 1)`,
      [ledger.installation, `mfy_${grantId.replaceAll('-', '')}`, grantId, ledger.entitlement.template, verifier],
    );
    expect(rows).toMatchObject([{ as_asked: true }]);
    const [role] = await ledger.admin(
      'SELECT abs(extract(epoch FROM rolvaliduntil - now()) - 30) < 5 AS as_asked FROM pg_roles WHERE oid = $1',
      [rows[0]?.role_oid],
    );
    expect(role).toEqual({ as_asked: true });
  });

  test('leaves neither password nor verifier in the log, also under log_statement = all and in errors', async () => {
    const { ref, minted } = await ledger.mint({ deadline: new Date(Date.now() + 30_000) });
    await ledger.session
      .mint(ref, ledger.request(ref, { deadline: new Date(Date.now() + 30_000) }), soon())
      .catch(() => {});
    await ledger.admin('ALTER ROLE mayfly_t_ledger RENAME TO mayfly_t_away');
    // Fails in the middle, at the statement that follows CREATE ROLE.
    await expect(ledger.mint({ deadline: new Date(Date.now() + 30_000) })).rejects.toMatchObject({
      errorClass: 'misconfigured',
    });
    await ledger.admin('ALTER ROLE mayfly_t_away RENAME TO mayfly_t_ledger');
    // And at CREATE ROLE itself, whose text holds the verifier.
    const taken = ledger.ref();
    await ledger.admin(`CREATE ROLE ${taken.handle}`);
    const request = ledger.request(taken, { deadline: new Date(Date.now() + 30_000) });
    await expect(ledger.session.mint(taken, request, soon())).rejects.toMatchObject({
      message: expect.stringContaining('42710'),
    });
    await ledger.admin(`DROP ROLE ${taken.handle}`);
    const [stored] = await ledger.admin('SELECT rolpassword FROM pg_authid WHERE rolname = $1', [ref.handle]);
    const log = server.log();
    expect(log).toContain('mayfly.mint(');
    expect(log).toContain('does not exist');
    expect(log).not.toContain(String(minted.secret.reveal()['password']));
    expect(log).not.toContain(String(stored?.['rolpassword']).split('$')[2]);
    // The only verifier in it is the one of the broker's login, set by `prepare` as DDL.
    expect(new Set(log.match(/SCRAM-SHA-256\$[^']*/g)).size).toBe(1);
    await ledger.session.fence([ref], soon());
  });
});
