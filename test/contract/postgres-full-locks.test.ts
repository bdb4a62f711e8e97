import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { availableVersions, type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { type Ledger, makeLedger, soon, sqlState } from './postgres-fixture.ts';

/** An agent may take as many advisory locks as it likes, until nobody on the server can take one. */
describe.each(availableVersions())('an agent that fills the lock table of PostgreSQL %i', (version) => {
  let server: PostgresServer;
  let ledger: Ledger;
  beforeAll(async () => {
    server = await startPostgres({ version });
    ledger = await makeLedger(server, 'ledger');
  });
  afterAll(async () => {
    await ledger?.close();
    await server?.stop();
  });

  /** The connection that is for this: in an open transaction that holds nothing back. */
  async function standsBy(): Promise<void> {
    const standing = (): Promise<unknown> =>
      ledger.admin(
        `SELECT backend_xid, backend_xmin FROM pg_stat_activity WHERE usename = $1 AND state = 'idle in transaction' AND application_name = 'mayfly, standing by'`,
        [ledger.config.user],
      );
    await expect.poll(standing).toEqual([{ backend_xid: null, backend_xmin: null }]);
  }

  test('is ended all the same, and the server is free again', async () => {
    const { ref, minted } = await ledger.mint();
    const agent = await ledger.login(minted);
    await standsBy();
    expect(await sqlState(agent.query('SELECT count(pg_advisory_lock(n)) FROM generate_series(1, 100000) n'))).toBe(
      '53200',
    );
    expect(await sqlState(agent.query('SELECT pg_advisory_lock(0)'))).toBe('53200');
    const outcomes = await ledger.session.fence([ref], soon());
    expect(outcomes.map((o) => (o.ok ? 'ok' : o.error.message))).toEqual(['ok']);
    expect(await sqlState(agent.query('SELECT 1'))).not.toBe('none');
    expect(await ledger.session.verify([ref], soon())).toMatchObject([{ contained: true }]);
    expect(await ledger.session.reap([ref], soon())).toMatchObject([{ ok: true }]);
    const next = await ledger.mint();
    await ledger.session.fence([next.ref], soon());
  });

  test('with an accomplice, and without the facts, too', async () => {
    const lives = [await ledger.mint(), await ledger.mint()];
    const agents = await Promise.all(lives.map(({ minted }) => ledger.login(minted)));
    await standsBy();
    const states = agents.map((agent, at) =>
      sqlState(agent.query(`SELECT count(pg_advisory_lock(${at}, n)) FROM generate_series(1, 100000) n`)),
    );
    expect(await Promise.all(states)).toEqual(['53200', '53200']);
    const [ending] = lives.map(({ ref }) => ({ ...ref, facts: null }));
    const outcomes = await ledger.session.fence(ending === undefined ? [] : [ending], soon());
    expect(outcomes.map((outcome) => (outcome.ok ? 'ok' : outcome.error.message))).toEqual(['ok']);
    expect(await sqlState((await ledger.stolenLogin()).query('SELECT 1'))).toBe('none');
    await ledger.session.fence(
      lives.map(({ ref }) => ref),
      soon(),
    );
  });

  test('and takes again whatever becomes free is ended too', async () => {
    const { ref, minted } = await ledger.mint();
    const agent = await ledger.login(minted);
    await standsBy();
    const greedy = sqlState(
      agent.query(`DO $$ DECLARE n int := 0; BEGIN
        LOOP
          BEGIN
            LOOP PERFORM pg_advisory_lock(n); n := n + 1; END LOOP;
          EXCEPTION WHEN out_of_memory THEN PERFORM pg_sleep(0.001);
          END;
        END LOOP; END $$`),
    );
    const full = async (): Promise<string> => sqlState(ledger.admin('SELECT pg_advisory_xact_lock(-1)'));
    await expect.poll(full).toBe('53200');
    const outcomes = await ledger.session.fence([ref], soon());
    expect(outcomes.map((outcome) => (outcome.ok ? 'ok' : outcome.error.message))).toEqual(['ok']);
    expect(await greedy).toBe('57P01');
    expect(await ledger.session.verify([ref], soon())).toMatchObject([{ contained: true }]);
    expect(await ledger.session.reap([ref], soon())).toMatchObject([{ ok: true }]);
  });
});
