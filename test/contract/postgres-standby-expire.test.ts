import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { availableVersions, type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { type Ledger, makeLedger, soon, sqlState } from './postgres-fixture.ts';
import { knowing, makeReplica, type Replica } from './postgres-standby-fixture.ts';

describe.each(availableVersions())("the dead-man's switch on a standby of PostgreSQL %i", (version) => {
  let server: PostgresServer;
  let ledger: Ledger;
  let replica: Replica;
  beforeAll(async () => {
    server = await startPostgres({ version });
    ledger = await makeLedger(server, 'ledger');
    replica = await makeReplica(ledger, 'replica-1');
    await ledger.admin(`ALTER ROLE broker_ledger_expire PASSWORD 'known'`);
  });
  afterAll(async () => {
    await ledger?.close();
    await replica?.close();
    await server?.stop();
  });

  async function expireThere(): Promise<unknown> {
    const host = { host: '127.0.0.1', port: replica.server.port, database: 'ledger', ssl: false };
    const switchman = new pg.Client({ ...host, user: 'broker_ledger_expire', password: 'known' });
    await switchman.connect();
    try {
      return (await switchman.query('SELECT mayfly.expire() AS told')).rows[0]?.told;
    } finally {
      await switchman.end();
    }
  }

  test('ends the sessions there of what is past its end, and nothing else, though nothing can be written', async () => {
    const [lapsing, living, dropped] = [await ledger.mint(), await ledger.mint(), await ledger.mint()];
    const [first, second, other, orphan] = [
      await replica.login(lapsing),
      await replica.login(lapsing),
      await replica.login(living),
      await replica.login(dropped),
    ];
    expect(await expireThere()).toEqual({ ended: 0, cut: 0, left: 0 });
    // In one transaction, so that the standby sees all of it or nothing. One role is gone, and its session lives on there.
    await ledger.admin(`
      ALTER ROLE ${lapsing.ref.handle} VALID UNTIL '2020-01-01';
      UPDATE mayfly.handle SET valid_until = 'epoch' WHERE handle = '${dropped.ref.handle}';
      DROP ROLE ${dropped.ref.handle}`);
    await expect.poll(expireThere, { timeout: 60_000 }).toEqual({ ended: 3, cut: 0, left: 0 });
    for (const agent of [first, second, orphan]) expect(await sqlState(agent.query('SELECT 1'))).not.toBe('none');
    expect(await sqlState(other.query('SELECT 1'))).toBe('none');
    expect(await sqlState(replica.tryLogin(lapsing))).toMatch(/^28/);
    // No run of it there counts as one on the primary.
    expect(await ledger.admin('SELECT mayfly.expire_age() AS age')).toEqual([{ age: null }]);
  });

  test('is promised for a standby only with that word', async () => {
    await ledger.admin('SELECT mayfly.expire()');
    const listing = knowing(ledger, [replica.listed]);
    const { says } = await listing.guarantee(ledger.entitlement, soon());
    expect(says).toMatch(/by the schedule of the target within about a minute \(on a standby only if/);
  });
});
