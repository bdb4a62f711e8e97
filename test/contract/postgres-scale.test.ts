import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { scramVerifier } from '../../providers/postgres/scram.ts';
import { availableVersions, type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { type Ledger, makeLedger, soon, sqlState } from './postgres-fixture.ts';

/** What is counted and removed for many roles at once is as exact as for one. */
describe.each(availableVersions())('many roles of one template on PostgreSQL %i', (version) => {
  let server: PostgresServer;
  let ledger: Ledger;
  beforeAll(async () => {
    server = await startPostgres({ version });
    ledger = await makeLedger(server, 'ledger', { maxLive: 4 });
  });
  afterAll(async () => {
    await ledger?.close();
    await server?.stop();
  });

  async function endAll(refs: Parameters<Ledger['session']['fence']>[0]): Promise<void> {
    expect((await ledger.session.fence(refs, soon())).filter(({ ok }) => !ok)).toEqual([]);
    expect((await ledger.session.reap(refs, soon())).filter(({ ok }) => !ok)).toEqual([]);
  }
  const full = { errorClass: 'retryable', message: expect.stringMatching(/at most 4 live roles/) };

  test('the cap is exact, before and after some have ended', async () => {
    for (let round = 0; round < 3; round += 1) {
      const lives = await Promise.all(Array.from({ length: 4 }, () => ledger.mint()));
      await expect(ledger.mint()).rejects.toMatchObject(full);
      const [first, ...others] = lives.map(({ ref }) => ref);
      if (first === undefined) throw new Error('unreachable');
      await endAll([first]);
      const next = await ledger.mint();
      await expect(ledger.mint()).rejects.toMatchObject(full);
      await endAll([...others, next.ref]);
    }
  });

  test('mints that were rolled back take no room', async () => {
    const thief = await ledger.stolenLogin();
    const verifier = await scramVerifier('known', 1);
    for (let count = 0; count < 9; count += 1) {
      const ref = ledger.ref();
      await thief.query('BEGIN');
      await thief.query(
        `SELECT mayfly.mint($1, $2, $3, $4, $5, now() + interval '5 min', now() + interval '5 min', now() + interval '1 min', 3)`,
        [ledger.installation, ref.handle, ref.grantId, ledger.entitlement.template, verifier],
      );
      await thief.query('ROLLBACK');
    }
    const lives = await Promise.all(Array.from({ length: 4 }, () => ledger.mint()));
    await expect(ledger.mint()).rejects.toMatchObject(full);
    await endAll(lives.map(({ ref }) => ref));
  });

  test('a count that knows nothing of the roles that are there is not trusted', async () => {
    const lives = await Promise.all(Array.from({ length: 3 }, () => ledger.mint()));
    await ledger.admin('DROP SEQUENCE mayfly.live_ledger');
    lives.push(await ledger.mint());
    await expect(ledger.mint()).rejects.toMatchObject(full);
    await endAll(lives.map(({ ref }) => ref));
  });

  test('a life reads its own rows of the registry, however many ended ones stand beside them and no statistics say so', async () => {
    const ended = 20_000;
    await ledger.admin('ALTER TABLE mayfly.handle SET (autovacuum_enabled = off)');
    await ledger.admin(
      `INSERT INTO mayfly.handle (handle, grant_id, installation, role_oid, fenced_at, dropped_at, keep_until)
       SELECT 'mfy_' || md5(n::text), md5(n::text)::uuid, $1, 1000000 + n, now(), now(), now() + interval '1 hour'
       FROM generate_series(1, $2::int) n`,
      [ledger.installation, ended],
    );
    const read = async (): Promise<number> => {
      const [row] = await ledger.admin(
        "SELECT seq_tup_read::int AS read, pg_stat_clear_snapshot() FROM pg_stat_all_tables WHERE relid = 'mayfly.handle'::regclass",
      );
      return Number(row?.['read']);
    };
    const backends = async (): Promise<unknown> =>
      (await ledger.admin("SELECT count(*)::int AS n FROM pg_stat_activity WHERE backend_type = 'client backend'"))[0];
    const [before, others] = [await read(), await backends()];
    const session = ledger.connect({});
    const refs = await Promise.all(
      Array.from({ length: 3 }, async () => {
        const ref = ledger.ref();
        const { facts } = await session.mint(ref, ledger.request(ref), soon());
        return { ...ref, facts };
      }),
    );
    await session.fence(refs, soon());
    await session.verify(refs, soon());
    await session.reap(refs, soon());
    expect(await session.verify(refs, soon())).toMatchObject(refs.map(() => ({ ok: true, clean: true })));
    await session.close();
    // What a backend read is told when it ends.
    await vi.waitFor(async () => expect(await backends()).toEqual(others), { timeout: 60_000 });
    expect((await read()) - before).toBeLessThan(ended);
    await ledger.admin(
      "DELETE FROM mayfly.handle WHERE role_oid > 1000000 AND handle = 'mfy_' || md5((role_oid::int - 1000000)::text)",
    );
  });

  test('memberships of a batch are all removed, each told for its role', async () => {
    const lives = await Promise.all(Array.from({ length: 4 }, () => ledger.mint()));
    const refs = lives.map(({ ref }) => ref);
    const removed = { ok: true, evidence: { memberships_removed: 1 } };
    expect(await ledger.session.fence(refs, soon())).toMatchObject(refs.map(() => removed));
    const oids = refs.map(({ facts }) => facts?.['oid']);
    expect(await ledger.admin('SELECT FROM pg_auth_members WHERE member = ANY ($1)', [oids])).toEqual([]);
    await endAll(refs);
  });

  test.runIf(version >= 16)(
    'one whose membership cannot be removed yet does not keep its neighbours theirs',
    async () => {
      const [lender, borrower, neighbour, other] = await Promise.all(Array.from({ length: 4 }, () => ledger.mint()));
      if (lender === undefined || borrower === undefined || neighbour === undefined || other === undefined) {
        throw new Error('unreachable');
      }
      const { template } = ledger.entitlement;
      await ledger.admin(`GRANT ${template} TO ${lender.ref.handle} WITH ADMIN OPTION`);
      const onward = await ledger.login(lender.minted);
      expect(await sqlState(onward.query(`GRANT ${template} TO ${borrower.ref.handle}`))).toBe('none');
      expect(await ledger.session.fence([lender.ref, neighbour.ref, other.ref], soon())).toMatchObject([
        { ok: false, error: { errorClass: 'retryable' } },
        { ok: true, evidence: { memberships_removed: 1 } },
        { ok: true, evidence: { memberships_removed: 1 } },
      ]);
      await ledger.session.fence([borrower.ref], soon());
      await endAll([lender.ref, borrower.ref, neighbour.ref, other.ref]);
    },
  );
});
