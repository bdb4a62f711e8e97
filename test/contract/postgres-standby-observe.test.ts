import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { PostgresEntitlement } from '../../providers/postgres/schema.ts';
import { type Observation, observedSessions, type Session } from '../../src/provider.ts';
import { availableVersions, type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { type Ledger, type Live, makeLedger, soon } from './postgres-fixture.ts';
import { knowing, makeReplica, type Replica } from './postgres-standby-fixture.ts';

describe.each(availableVersions())('who uses a credential on a standby of PostgreSQL %i', (version) => {
  let server: PostgresServer;
  let ledger: Ledger;
  let replica: Replica;
  let session: Session<PostgresEntitlement>;
  beforeAll(async () => {
    server = await startPostgres({ version });
    ledger = await makeLedger(server, 'ledger');
    replica = await makeReplica(ledger, 'replica-1');
    session = knowing(ledger, [replica.listed]);
  });
  afterAll(async () => {
    await ledger?.close();
    await replica?.close();
    await server?.stop();
  });

  async function observed(...lives: readonly Live[]): Promise<readonly Observation[]> {
    return (
      (await session.observe?.(
        lives.map(({ ref }) => ref),
        soon(),
      )) ?? []
    );
  }

  test('each session is seen with the name of the server that it is on, and told by the fence that ends it', async () => {
    const [used, other] = [await ledger.mint(), await ledger.mint()];
    const before = Date.now();
    const first = await replica.login(used);
    await first.query(`SET application_name = 'afar'`);
    await ledger.login(used.minted);
    await replica.login(other);
    const [seen, afar] = await observed(used, other);
    const label = expect.stringMatching(/^standby replica-1 /);
    expect(seen).toMatchObject({
      ok: true,
      total: 2,
      sessions: [
        { applicationName: 'afar', clientAddress: '127.0.0.1', state: 'idle', server: label },
        { applicationName: 'agent', clientAddress: '127.0.0.1', state: 'idle' },
      ],
    });
    expect(seen?.ok === true && seen.sessions[1]).not.toHaveProperty('server');
    expect(seen).not.toHaveProperty('unseen');
    expect(afar).toMatchObject({ ok: true, total: 1, sessions: [{ server: label }] });
    for (const { since } of seen?.ok === true ? seen.sessions : []) {
      expect(since.getTime()).toBeGreaterThan(before - 1000);
      expect(since.getTime()).toBeLessThan(Date.now() + 1000);
    }
    const since = expect.stringMatching(/^\d{4}-.*Z$/);
    expect(await session.fence([used.ref, other.ref], soon())).toMatchObject([
      {
        ok: true,
        evidence: {
          sessions: [{ application: 'agent' }],
          standbys_swept: [
            { standby: label, sessions_ended: 1, sessions: [{ application: 'afar', address: '127.0.0.1', since }] },
          ],
        },
      },
      { ok: true, evidence: { sessions: [], standbys_swept: [{ sessions: [{ application: 'agent' }] }] } },
    ]);
    expect(await observed(used)).toEqual([{ ok: true, total: 0, sessions: [] }]);
  });

  test('of many sessions on all servers the first are described and all are counted', async () => {
    const each = Math.ceil(observedSessions / 2) + 1;
    const live = await ledger.mint({ config: { ...ledger.entitlement, connection_limit: each } });
    for (let count = 0; count < each; count += 1) {
      await replica.login(live);
      await ledger.login(live.minted);
    }
    const [seen] = await observed(live);
    expect(seen).toMatchObject({ ok: true, total: 2 * each });
    const sessions = seen?.ok === true ? seen.sessions : [];
    expect(sessions).toHaveLength(observedSessions);
    // In turn, as they began.
    expect(sessions.filter((one) => one.server !== undefined)).toHaveLength(observedSessions / 2);
    await session.fence([live.ref], soon());
  });

  test('a standby that is down is told, and what is on the others is seen', async () => {
    const live = await ledger.mint();
    await replica.login(live);
    await ledger.login(live.minted);
    const gone = knowing(ledger, [{ name: 'replica-0', host: '127.0.0.1', port: 1 }, replica.listed]);
    const seen = await gone.observe?.([live.ref], soon());
    expect(seen).toMatchObject([
      { ok: true, total: 2, unseen: [expect.stringMatching(/^standby replica-0 \(127\.0\.0\.1:1\): /)] },
    ]);
    await session.fence([live.ref], soon());
  });

  test('a listed node that is the primary itself is not counted twice', async () => {
    const live = await ledger.mint();
    await ledger.login(live.minted);
    // Another name for it.
    const twice = knowing(ledger, [{ host: 'localhost', port: server.port }]);
    expect(await twice.observe?.([live.ref], soon())).toMatchObject([{ ok: true, total: 1 }]);
    await session.fence([live.ref], soon());
  });
});
