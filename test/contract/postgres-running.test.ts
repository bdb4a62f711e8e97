import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { availableVersions, type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { type Ledger, type Live, makeLedger, soon, sqlState } from './postgres-fixture.ts';

/** Work that began before an end, and would go on with the rights of what ended. */
describe.each(availableVersions())('work already running at an end on PostgreSQL %i', (version) => {
  let server: PostgresServer;
  let ledger: Ledger;
  beforeAll(async () => {
    server = await startPostgres({ version, settings: { max_prepared_transactions: 5 } });
    ledger = await makeLedger(server, 'ledger');
  });
  afterAll(async () => {
    await ledger?.close();
    await server?.stop();
  });

  /** A grant that may read salaries and create in `billing`, and an accomplice that may neither. */
  async function pair(): Promise<{ live: Live; agent: pg.Client; other: Live; accomplice: pg.Client }> {
    const [live, other] = [await ledger.mint(), await ledger.mint()];
    await ledger.admin(`GRANT CREATE, USAGE ON SCHEMA billing TO ${live.ref.handle}`);
    await ledger.admin(`GRANT SELECT ON billing.salaries TO ${live.ref.handle}`);
    const [agent, accomplice] = [await ledger.login(live.minted), await ledger.login(other.minted)];
    return { live, agent, other, accomplice };
  }

  test.each([
    [
      'a call inside its function',
      `CREATE FUNCTION billing.leak() RETURNS void SECURITY DEFINER LANGUAGE plpgsql AS 'BEGIN LOOP PERFORM count(*) FROM billing.salaries; PERFORM pg_sleep(0.01); END LOOP; END'`,
      '',
      'SELECT billing.leak()',
    ],
    [
      'a call inside its function, which it has dropped meanwhile',
      `CREATE FUNCTION billing.leak() RETURNS void SECURITY DEFINER LANGUAGE plpgsql AS 'BEGIN LOOP PERFORM count(*) FROM billing.salaries; PERFORM pg_sleep(0.01); END LOOP; END'`,
      'DROP FUNCTION billing.leak()',
      'SELECT billing.leak()',
    ],
  ])('%s is ended, whoever makes it', async (_what, create, meanwhile, call) => {
    const { live, agent, other, accomplice } = await pair();
    await agent.query(create);
    const called = sqlState(accomplice.query(call));
    await expect
      .poll(() =>
        ledger.admin(`SELECT FROM pg_stat_activity WHERE usename = $1 AND query = $2 AND state = 'active'`, [
          other.ref.handle,
          call,
        ]),
      )
      .toHaveLength(1);
    await agent.query(meanwhile);
    expect(await ledger.session.fence([live.ref], soon())).toMatchObject([{ ok: true }]);
    expect(await called).not.toBe('none');
    expect(await ledger.session.verify([live.ref], soon())).toMatchObject([
      { contained: true, evidence: { older_work_of_grants: 0 } },
    ]);
    // The accomplice's own grant goes on.
    expect(await sqlState((await ledger.login(other.minted)).query('SELECT * FROM billing.invoices LIMIT 1'))).toBe(
      'none',
    );
    expect(await ledger.session.reap([live.ref], soon())).toMatchObject([{ ok: true }]);
    await ledger.session.fence([other.ref], soon());
  });

  test.each([
    [
      'a cursor that its function opened',
      `CREATE FUNCTION billing.opened() RETURNS refcursor SECURITY DEFINER LANGUAGE plpgsql AS 'DECLARE c refcursor := ''c''; BEGIN OPEN c FOR SELECT * FROM billing.salaries; RETURN c; END'`,
      'SELECT billing.opened()',
    ],
    [
      'a cursor over its view',
      'CREATE VIEW billing.looked AS SELECT * FROM billing.salaries; GRANT SELECT ON billing.looked TO PUBLIC',
      'DECLARE c CURSOR FOR SELECT * FROM billing.looked',
    ],
  ])('%s returns no more rows', async (_what, create, opening) => {
    const { live, agent, other, accomplice } = await pair();
    await agent.query(create);
    await accomplice.query('BEGIN');
    await accomplice.query(opening);
    expect(await ledger.session.fence([live.ref], soon())).toMatchObject([{ ok: true }]);
    expect(await sqlState(accomplice.query('FETCH 1 FROM c'))).not.toBe('none');
    expect(await ledger.session.verify([live.ref], soon())).toMatchObject([{ contained: true }]);
    expect(await ledger.session.reap([live.ref], soon())).toMatchObject([{ ok: true }]);
    await ledger.session.fence([other.ref], soon());
  });

  test('transactions of others are let be when the role could create nothing', async () => {
    const [live, other] = [await ledger.mint(), await ledger.mint()];
    const bystander = await ledger.login(other.minted);
    await bystander.query('BEGIN; SELECT count(*) FROM billing.invoices');
    await ledger.session.fence([live.ref], soon());
    expect(await sqlState(bystander.query('SELECT 1'))).toBe('none');
    expect(await ledger.session.verify([live.ref], soon())).toMatchObject([{ contained: true }]);
    await ledger.session.fence([other.ref], soon());
  });

  test('a transaction that began after the end is let be', async () => {
    const { live, agent, other, accomplice } = await pair();
    await agent.query('CREATE TABLE billing.something (a int)');
    await ledger.session.fence([live.ref], soon());
    await accomplice.query('BEGIN; SELECT 1');
    await ledger.session.fence([live.ref], soon());
    expect(await sqlState(accomplice.query('COMMIT'))).toBe('none');
    await ledger.session.reap([live.ref], soon());
    await ledger.session.fence([other.ref], soon());
  });

  test('a stranger inside its view is not ended, and until it is done the end is not called contained', async () => {
    const { live, agent, other } = await pair();
    await agent.query('CREATE VIEW billing.lure AS SELECT * FROM billing.salaries');
    await ledger.admin(
      `CREATE ROLE app LOGIN PASSWORD 'app'; GRANT USAGE ON SCHEMA billing TO app; GRANT SELECT ON billing.lure TO app`,
    );
    const stranger = new pg.Client({
      host: '127.0.0.1',
      port: server.port,
      user: 'app',
      password: 'app',
      database: 'ledger',
      ssl: false,
    });
    const idler = new pg.Client({
      host: '127.0.0.1',
      port: server.port,
      user: 'app',
      password: 'app',
      database: 'ledger',
      ssl: false,
    });
    await Promise.all([stranger.connect(), idler.connect()]);
    await stranger.query('BEGIN; DECLARE c CURSOR FOR SELECT * FROM billing.lure');
    await idler.query('BEGIN; SELECT 1');
    expect(await ledger.session.fence([live.ref], soon())).toMatchObject([{ ok: true }]);
    expect(await ledger.session.verify([live.ref], soon())).toMatchObject([
      { contained: false, evidence: { strangers_inside: 1, older_work_of_strangers: 1 } },
    ]);
    expect(await sqlState(stranger.query('FETCH 1 FROM c; COMMIT'))).toBe('none');
    expect(await ledger.session.verify([live.ref], soon())).toMatchObject([
      { contained: true, evidence: { strangers_inside: 0, older_work_of_strangers: 1 } },
    ]);
    await Promise.all([stranger.end(), idler.end()]);
    expect(await ledger.session.reap([live.ref], soon())).toMatchObject([{ ok: true }]);
    await ledger.admin('DROP OWNED BY app; DROP ROLE app');
    await ledger.session.fence([other.ref], soon());
  });

  describe('a prepared transaction, where the server allows them', () => {
    test.each([
      ['that holds the row of its role', `ALTER ROLE CURRENT_USER PASSWORD 'mine'`, 'fence'],
      ['that holds something it made', 'CREATE TABLE billing.hidden (a int)', 'reap'],
      ['that holds what is not its own', 'SELECT pg_advisory_xact_lock(1)', 'reap'],
    ] as const)('%s is told with the command that ends it', async (_what, sql, step) => {
      const { live, agent, other } = await pair();
      await agent.query('BEGIN');
      await agent.query(sql);
      await agent.query(`PREPARE TRANSACTION 'it''s mine'`);
      const [fenced] = await ledger.session.fence([live.ref], soon());
      const [outcome] = step === 'fence' ? [fenced] : await ledger.session.reap([live.ref], soon());
      expect(fenced).toMatchObject({ ok: step !== 'fence' });
      expect(outcome).toMatchObject({
        ok: false,
        error: {
          errorClass: 'retryable',
          message: expect.stringContaining(`ROLLBACK PREPARED 'it''s mine' (on database ledger)`),
        },
      });
      expect(await ledger.session.verify([live.ref], soon())).toMatchObject([{ clean: false }]);
      await ledger.admin(`ROLLBACK PREPARED 'it''s mine'`);
      expect(await ledger.session.fence([live.ref], soon())).toMatchObject([{ ok: true }]);
      expect(await ledger.session.reap([live.ref], soon())).toMatchObject([{ ok: true }]);
      expect(await ledger.session.verify([live.ref], soon())).toMatchObject([{ clean: true }]);
      await ledger.session.fence([other.ref], soon());
    });

    test('whose name is not for a terminal is told by its number', async () => {
      const { live, agent, other } = await pair();
      await agent.query(`BEGIN; SELECT pg_advisory_xact_lock(1); PREPARE TRANSACTION E'a\\nb'`);
      await ledger.session.fence([live.ref], soon());
      const [outcome] = await ledger.session.reap([live.ref], soon());
      const [found] = await ledger.admin('SELECT transaction::text AS xid FROM pg_prepared_xacts');
      expect(outcome).toMatchObject({
        ok: false,
        error: { message: expect.stringContaining(`WHERE transaction = '${String(found?.['xid'])}'`) },
      });
      await ledger.admin(`ROLLBACK PREPARED E'a\\nb'`);
      expect(await ledger.session.reap([live.ref], soon())).toMatchObject([{ ok: true }]);
      await ledger.session.fence([other.ref], soon());
    });
  });
});
