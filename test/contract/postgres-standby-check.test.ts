import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { availableVersions, type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { startTcpProxy } from '../support/tcp-proxy.ts';
import { type Ledger, makeLedger, soon } from './postgres-fixture.ts';
import { check, failed, knowing, makeReplica, type Replica } from './postgres-standby-fixture.ts';

describe.each(availableVersions())('standbys of PostgreSQL %i as check and guarantee see them', (version) => {
  let server: PostgresServer;
  let ledger: Ledger;
  let replica: Replica;
  beforeAll(async () => {
    server = await startPostgres({ version });
    ledger = await makeLedger(server, 'ledger');
    replica = await makeReplica(ledger, 'replica-1');
  });
  afterAll(async () => {
    await ledger?.close();
    await replica?.close();
    await server?.stop();
  });

  test('one that is not listed fails check, and is told before anything is issued', async () => {
    for (const listed of [[], [{ name: 'replica-7', host: '127.0.0.1', port: replica.server.port }]]) {
      const session = knowing(ledger, listed);
      expect(failed(await check(ledger, session))).toEqual([
        expect.stringMatching(/^standbys: .*replica-1@127\.0\.0\.1/),
      ]);
      expect(await session.guarantee(ledger.entitlement, soon())).toMatchObject({
        revocation: 'propagating',
        ends_sessions: false,
        says: expect.stringMatching(/replica-1@127\.0\.0\.1/),
      });
      await session.close();
    }
  });

  test.each(['name', 'address'])('one that is listed by its %s is accepted and looked at', async (by) => {
    const { host, port } = replica.listed;
    const session = knowing(ledger, [by === 'name' ? replica.listed : { host, port }]);
    const steps = await check(ledger, session);
    expect(failed(steps)).toEqual([]);
    expect(steps.map(({ step, says }) => `${step}: ${says}`)).toContainEqual(
      expect.stringMatching(/^standby: standby .*in recovery, same cluster, .* warning: .*max_standby_streaming_delay/),
    );
    const { revocation, ends_sessions } = await session.guarantee(ledger.entitlement, soon());
    expect([revocation, ends_sessions]).toEqual([version >= 16 ? 'immediate' : 'propagating', true]);
    await session.close();
  });

  test('two names for one server, a pause, and a standby of a standby are found', async () => {
    const proxy = await startTcpProxy(replica.server.port);
    const twin = { name: 'replica-2', host: '127.0.0.1', port: proxy.port };
    const session = knowing(ledger, [replica.listed, twin]);
    expect(failed(await check(ledger, session))).toEqual([
      expect.stringMatching(/^standby: standby replica-2 .* same server as/),
    ]);
    await session.close();
    await proxy.close();

    const alone = knowing(ledger, [replica.listed]);
    await replica.admin('SELECT pg_wal_replay_pause()');
    // Without an entitlement: the canary could not end its own either.
    expect(failed(await alone.check(null, soon()))).toEqual([expect.stringMatching(/^standby: .*replica-1 .*paused/)]);
    await replica.admin('SELECT pg_wal_replay_resume()');
    const cascaded = new pg.Client(
      Object.assign(
        { host: '127.0.0.1', port: replica.server.port, user: 'postgres', password: server.password },
        { application_name: 'grandchild', replication: 'true' },
      ),
    );
    await cascaded.connect();
    expect(failed(await check(ledger, alone))).toEqual([expect.stringMatching(/^standbys: .*grandchild@/)]);
    await cascaded.end();
    await alone.close();
  });

  test('closing a target closes what it has open on its standbys', async () => {
    const session = knowing(ledger, [replica.listed]);
    const live = await ledger.mint();
    await session.fence([live.ref], soon());
    await session.verify([live.ref], soon());
    const open = () =>
      replica.admin(`SELECT count(*)::int AS n FROM pg_stat_activity WHERE usename = $1`, [ledger.config.user]);
    const [{ n } = { n: 0 }] = await open();
    expect(Number(n)).toBeGreaterThan(0);
    expect(Number(n)).toBeLessThanOrEqual(2);
    await session.close();
    await expect.poll(open, { timeout: 60_000 }).toEqual([{ n: 0 }]);
  });
});
