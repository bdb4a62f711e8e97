import pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { PostgresEntitlement } from '../../providers/postgres/schema.ts';
import type { Session } from '../../src/provider.ts';
import { availableVersions, type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { type Ledger, makeLedger, soon, sqlState } from './postgres-fixture.ts';
import { knowing, makeReplica, type Replica } from './postgres-standby-fixture.ts';

/** Nothing that happens on the primary ends a session on a standby, or a cursor, or a role taken on there. */
describe.each(availableVersions())('a hot standby of PostgreSQL %i', (version) => {
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

  const contained = [{ ok: true, contained: true }];
  const patient = { timeout: 60_000 };

  test('has its open sessions and cursors ended, and lets nobody in again', async () => {
    const live = await ledger.mint();
    const neighbour = await ledger.mint();
    const agent = await replica.login(live);
    const reader = await replica.login(live);
    const bystander = await replica.login(neighbour);
    await reader.query('BEGIN');
    await reader.query('DECLARE loot CURSOR FOR SELECT * FROM billing.invoices');
    await reader.query('FETCH 10 FROM loot');
    expect(await session.fence([live.ref], soon())).toMatchObject([
      {
        ok: true,
        evidence: {
          login: 'cut',
          standbys_swept: [{ sessions_ended: 2, standby: expect.stringMatching(/^standby replica-1 /) }],
        },
      },
    ]);
    expect(await sqlState(agent.query('SELECT 1'))).not.toBe('none');
    expect(await sqlState(reader.query('FETCH 10 FROM loot'))).not.toBe('none');
    expect(await sqlState(replica.tryLogin(live))).toMatch(/^28/);
    expect(await sqlState(bystander.query('SELECT * FROM billing.invoices LIMIT 1'))).toBe('none');
    expect(await session.verify([live.ref], soon())).toMatchObject([
      {
        contained: true,
        evidence: { standbys: [{ can_login: false, memberships: 0, sessions: 0, logins_asleep: 0 }] },
      },
    ]);
    await session.reap([live.ref], soon());
    expect(await session.verify([live.ref], soon())).toMatchObject([{ contained: true, clean: true }]);
    await session.fence([neighbour.ref], soon());
  });

  test('has work of another grant ended that goes on inside a function of the role', async () => {
    const [live, other] = [await ledger.mint(), await ledger.mint()];
    await ledger.admin(`GRANT CREATE ON SCHEMA billing TO ${live.ref.handle}`);
    await (await ledger.login(live.minted)).query(
      `CREATE FUNCTION billing.leak() RETURNS void SECURITY DEFINER LANGUAGE plpgsql AS 'BEGIN LOOP PERFORM count(*) FROM billing.invoices; PERFORM pg_sleep(0.01); END LOOP; END'`,
    );
    const accomplice = await replica.login(other);
    await expect.poll(() => replica.admin(`SELECT FROM pg_proc WHERE proname = 'leak'`), patient).toHaveLength(1);
    const called = sqlState(accomplice.query('SELECT billing.leak()'));
    const busy = `SELECT FROM pg_stat_activity WHERE query = 'SELECT billing.leak()' AND state = 'active'`;
    await expect.poll(() => replica.admin(busy), patient).toHaveLength(1);
    expect(await session.fence([live.ref], soon())).toMatchObject([{ ok: true }]);
    expect(await called).not.toBe('none');
    expect(await session.verify([live.ref], soon())).toMatchObject(contained);
    expect(await session.reap([live.ref], soon())).toMatchObject([{ ok: true }]);
    await session.fence([other.ref], soon());
  });

  test('has a session ended that took on the template there', async () => {
    const live = await ledger.mint();
    const agent = await replica.login(live);
    const took = await sqlState(agent.query(`SET ROLE ${ledger.entitlement.template}`));
    expect(took).toBe(version >= 16 ? '42501' : 'none');
    await session.fence([live.ref], soon());
    expect(await sqlState(agent.query('SELECT * FROM billing.invoices LIMIT 1'))).not.toBe('none');
    expect(await session.verify([live.ref], soon())).toMatchObject(contained);
  });

  test('with a session on it is not contained, and one that outlived the role itself is found by its OID', async () => {
    const live = await ledger.mint();
    const agent = await replica.login(live);
    // A broker that does not know of the standby ends everything that it can see.
    expect(await ledger.session.fence([live.ref], soon())).toMatchObject([{ ok: true }]);
    expect(await ledger.session.verify([live.ref], soon())).toMatchObject(contained);
    expect(await sqlState(agent.query('SELECT 1'))).toBe('none');
    expect(await session.verify([live.ref], soon())).toMatchObject([
      { contained: false, clean: false, evidence: { sessions: 0, standbys: [{ sessions: 1 }] } },
    ]);
    await ledger.session.reap([live.ref], soon());
    expect(await session.verify([live.ref], soon())).toMatchObject([{ contained: false, clean: false }]);
    expect(await session.fence([live.ref], soon())).toMatchObject([
      { ok: true, evidence: { login: 'absent', standbys_swept: [{ sessions_ended: 1 }] } },
    ]);
    expect(await sqlState(agent.query('SELECT 1'))).not.toBe('none');
    expect(await session.verify([live.ref], soon())).toMatchObject([{ contained: true, clean: true }]);
  });

  test('has a login ended that sleeps before it shows its user', async () => {
    const live = await ledger.mint();
    await (await replica.login(live)).end();
    const sleeper = replica.tryLogin(live, '-c post_auth_delay=20').then(
      (client) => sqlState(client.query('SELECT * FROM billing.invoices LIMIT 1')),
      () => 'refused',
    );
    await expect.poll(() => replica.admin('SELECT unnest(mayfly.asleep()) AS pid'), patient).toHaveLength(1);
    expect(await ledger.session.fence([live.ref], soon())).toMatchObject([{ ok: true }]);
    expect(await session.verify([live.ref], soon())).toMatchObject([
      { contained: false, evidence: { logins_asleep: 0, standbys: [{ logins_asleep: 1 }] } },
    ]);
    expect(await session.fence([live.ref], soon())).toMatchObject([{ ok: true }]);
    expect(await sleeper).not.toBe('none');
    expect(await session.verify([live.ref], soon())).toMatchObject(contained);
  });

  test('keeps nobody who logs in again and again while the end arrives', async () => {
    for (let round = 0; round < 12; round += 1) {
      const live = await ledger.mint();
      await (await replica.login(live)).end();
      const stop = new AbortController();
      let entered = 0;
      let ending = false;
      const racers = [1, 2, 3, 4, 5].map(async () => {
        while (!stop.signal.aborted) {
          try {
            const client = await replica.tryLogin(live);
            entered += 1;
            // Until the end begins they make room for each other; from then on whoever is in stays in.
            if (!ending) {
              await client.end();
            }
          } catch {
            // Refused, or ended on the way in.
          }
        }
      });
      await expect.poll(() => entered, { interval: 5, timeout: 60_000 }).toBeGreaterThan(10);
      ending = true;
      expect(await session.fence([live.ref], soon())).toMatchObject([{ ok: true }]);
      stop.abort();
      await Promise.all(racers);
      expect(await replica.sessions(live)).toBe(0);
      expect(await session.verify([live.ref], soon())).toMatchObject(contained);
    }
  });

  describe('whose replay an agent holds up', () => {
    afterEach(() => moving());

    async function moving(): Promise<void> {
      await expect.poll(stalledBy, patient).toBe(null);
    }

    /** What its replay waits for. */
    async function stalledBy(): Promise<unknown> {
      const [row] = await replica.admin(`SELECT coalesce(
        (SELECT 'lock' FROM pg_locks l WHERE l.pid = s.pid AND NOT l.granted),
        CASE WHEN s.wait_event LIKE 'RecoveryConflict%' THEN s.wait_event END) AS by
        FROM pg_stat_activity s WHERE s.backend_type = 'startup'`);
      return row?.['by'] ?? null;
    }

    async function holdByLock(agent: pg.Client): Promise<void> {
      await agent.query('BEGIN');
      await agent.query('SELECT * FROM billing.invoices LIMIT 1');
      await ledger.admin('BEGIN');
      await ledger.admin('LOCK TABLE billing.invoices');
      await ledger.admin('COMMIT');
      await expect.poll(stalledBy, patient).toBe('lock');
    }

    async function holdBySnapshot(agent: pg.Client): Promise<void> {
      await agent.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
      await agent.query('SELECT * FROM billing.invoices LIMIT 1');
      await ledger.admin('CREATE TABLE IF NOT EXISTS billing.scratch (a int)');
      await ledger.admin('INSERT INTO billing.scratch VALUES (1)');
      await ledger.admin('DELETE FROM billing.scratch');
      await ledger.admin('VACUUM billing.scratch');
      await expect.poll(stalledBy, patient).toMatch(/RecoveryConflictSnapshot/);
    }

    test('with the very session that is to end, is unblocked, and a login that never saw the end is refused', async () => {
      const live = await ledger.mint();
      const agent = await replica.login(live);
      await holdByLock(agent);
      expect(await session.fence([live.ref], soon())).toMatchObject([{ ok: true }]);
      expect(await sqlState(agent.query('SELECT 1'))).not.toBe('none');
      expect(await sqlState(replica.tryLogin(live))).toMatch(/^28/);
      expect(await session.verify([live.ref], soon())).toMatchObject(contained);
    });

    test.each([
      ['a lock', holdByLock],
      ['a snapshot', holdBySnapshot],
    ] as const)('with %s in the session of another grant, is unblocked', async (_what, hold) => {
      const live = await ledger.mint();
      const accomplice = await ledger.mint();
      const agent = await replica.login(live);
      const holder = await replica.login(accomplice);
      await hold(holder);
      expect(await session.fence([live.ref], soon())).toMatchObject([{ ok: true }]);
      expect(await sqlState(agent.query('SELECT 1'))).not.toBe('none');
      expect(await session.verify([live.ref], soon())).toMatchObject(contained);
      // The other grant goes on; only that session of it is over.
      expect(await sqlState(holder.query('SELECT 1'))).not.toBe('none');
      expect(await sqlState((await replica.tryLogin(accomplice)).query('SELECT 1'))).toBe('none');
      await session.fence([accomplice.ref], soon());
    });

    test('keeps a fence waiting for no synchronous commit', async () => {
      const live = await ledger.mint();
      const agent = await replica.login(live);
      await holdByLock(agent);
      await ledger.admin(`ALTER SYSTEM SET synchronous_standby_names = '*'`);
      await ledger.admin(`ALTER SYSTEM SET synchronous_commit = 'remote_apply'`);
      await ledger.admin('SELECT pg_reload_conf()');
      const outcome = async () => session.fence([live.ref], soon(12_000));
      await expect
        .poll(() => ledger.admin('SHOW synchronous_commit'), patient)
        .toEqual([{ synchronous_commit: 'remote_apply' }]);
      try {
        expect(await outcome()).toMatchObject([{ ok: true }]);
      } finally {
        await ledger.admin(`ALTER SYSTEM RESET ALL`);
        await ledger.admin('SELECT pg_reload_conf()');
        await agent.end().catch(() => {});
      }
      expect(await session.verify([live.ref], soon())).toMatchObject(contained);
    });

    test('is not unblocked at the cost of a person: who holds it up is named, and that is not contained', async () => {
      const live = await ledger.mint();
      await (await replica.login(live)).end();
      const analyst = new pg.Client({ connectionString: replica.server.superuserUrl('ledger') });
      await analyst.connect();
      try {
        await holdByLock(analyst);
        const [outcome] = await session.fence([live.ref], soon());
        expect(outcome).toMatchObject({
          ok: false,
          error: {
            errorClass: 'retryable',
            message: expect.stringMatching(/^standby replica-1 .* held up by a session of postgres \(pid \d+\)/),
          },
        });
        expect(await session.verify([live.ref], soon())).toMatchObject([
          { ok: false, error: { message: expect.stringMatching(/^standby replica-1 .*not replayed/) } },
        ]);
        expect(await sqlState(analyst.query('SELECT 1'))).toBe('none');
      } finally {
        await analyst.end();
      }
      expect(await session.fence([live.ref], soon())).toMatchObject([{ ok: true }]);
      expect(await session.verify([live.ref], soon())).toMatchObject(contained);
    });
  });

  test('whose replay is paused is not contained, by name, though its sessions are ended; after the pause it is', async () => {
    const live = await ledger.mint();
    const agent = await replica.login(live);
    await replica.admin('SELECT pg_wal_replay_pause()');
    const paused = {
      ok: false,
      error: { errorClass: 'retryable', message: expect.stringMatching(/^standby replica-1 .*paused/) },
    };
    try {
      expect(await session.fence([live.ref], soon())).toMatchObject([paused]);
      expect(await sqlState(agent.query('SELECT 1'))).not.toBe('none');
      // The primary is cut all the same.
      expect(await sqlState(ledger.login(live.minted))).toMatch(/^28/);
      expect(await session.verify([live.ref], soon())).toMatchObject([paused]);
    } finally {
      await replica.admin('SELECT pg_wal_replay_resume()');
    }
    expect(await session.fence([live.ref], soon())).toMatchObject([{ ok: true }]);
    expect(await session.verify([live.ref], soon())).toMatchObject(contained);
  });
});
