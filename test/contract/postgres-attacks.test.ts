import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { scramVerifier } from '../../providers/postgres/scram.ts';
import { availableVersions, type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { type Ledger, makeLedger, soon, sqlState } from './postgres-fixture.ts';

/** The ways in which an agent, an accident or another machine would keep a credential alive past its end. */
describe.each(availableVersions())('what would outlive an ending on PostgreSQL %i', (version) => {
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

  async function gone(handle: string): Promise<boolean> {
    return (await ledger.admin('SELECT FROM pg_roles WHERE rolname = $1', [handle])).length === 0;
  }

  describe('a mint that its own end overtook', () => {
    test('runs into the tombstone', async () => {
      const ref = ledger.ref();
      expect(await ledger.session.fence([ref], soon())).toMatchObject([{ ok: true }]);
      await expect(ledger.session.mint(ref, ledger.request(ref), soon())).rejects.toMatchObject({ errorClass: 'gone' });
      expect(await gone(ref.handle)).toBe(true);
      expect(await ledger.session.verify([ref], soon())).toMatchObject([{ contained: true, clean: true }]);
    });

    test.each(['COMMIT', 'ROLLBACK'])('is waited for while it is in flight, then %s', async (ending) => {
      const ref = ledger.ref();
      const slow = await ledger.stolenLogin();
      const verifier = await scramVerifier('known', 4096);
      await slow.query('BEGIN');
      await slow.query(
        `SELECT mayfly.mint($1, $2, $3, $4, $5, now() + interval '5 min', now() + interval '5 min', now() + interval '1 min', 3)`,
        [ledger.installation, ref.handle, ref.grantId, ledger.entitlement.template, verifier],
      );
      const fencing = ledger.session.fence([ref], soon());
      await expect
        .poll(() => ledger.admin(`SELECT FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'`))
        .toHaveLength(1);
      await slow.query(ending);
      expect(await fencing).toMatchObject([{ ok: true, evidence: { login: ending === 'COMMIT' ? 'cut' : 'absent' } }]);
      expect(await ledger.session.verify([ref], soon())).toMatchObject([{ ok: true, contained: true }]);
      await ledger.session.reap([ref], soon());
      expect(await gone(ref.handle)).toBe(true);
    });

    test('is refused after mint_by, by the clock of the target', async () => {
      const ref = ledger.ref();
      const late = ledger.request(ref, { mintBy: new Date(Date.now() - 1) });
      await expect(ledger.session.mint(ref, late, soon())).rejects.toMatchObject({
        errorClass: 'retryable',
        message: expect.stringMatching(/too late/),
      });
      expect(await gone(ref.handle)).toBe(true);
    });

    test('cannot be done twice', async () => {
      const { ref } = await ledger.mint();
      await expect(ledger.session.mint(ref, ledger.request(ref), soon())).rejects.toMatchObject({ errorClass: 'gone' });
      await ledger.session.fence([ref], soon());
      await ledger.session.reap([ref], soon());
      await expect(ledger.session.mint(ref, ledger.request(ref), soon())).rejects.toMatchObject({ errorClass: 'gone' });
    });
  });

  describe('an agent that holds the row of its own role', () => {
    test('is ended all the same, and neither its neighbours nor a mint on its template wait for it', async () => {
      const locker = await ledger.mint();
      const neighbour = await ledger.mint();
      const [first, second, bystander] = await Promise.all([
        ledger.login(locker.minted),
        ledger.login(locker.minted),
        ledger.login(neighbour.minted),
      ]);
      await first.query('BEGIN');
      await first.query(`ALTER ROLE ${locker.ref.handle} PASSWORD 'mine'`);
      // A second one queues up, to take the row over when the first is ended.
      await second.query('BEGIN');
      const queued = sqlState(second.query(`ALTER ROLE ${locker.ref.handle} PASSWORD 'mine too'`));
      await expect.poll(() => ledger.admin('SELECT FROM pg_locks WHERE NOT granted')).not.toHaveLength(0);

      const minting = await ledger.mint();
      expect(await sqlState(first.query('SELECT 1'))).toBe('none');

      const outcomes = await ledger.session.fence([locker.ref, neighbour.ref, minting.ref], soon());
      expect(outcomes).toMatchObject([{ ok: true }, { ok: true }, { ok: true }]);
      await queued;
      expect(await sqlState(second.query('COMMIT'))).not.toBe('none');
      expect(await sqlState(first.query('COMMIT'))).not.toBe('none');
      expect(await sqlState(bystander.query('SELECT 1'))).not.toBe('none');
      const verdicts = await ledger.session.verify([locker.ref, neighbour.ref], soon());
      expect(verdicts).toMatchObject([{ contained: true }, { contained: true }]);
    });

    test('when a person holds it, the neighbours are ended at once and that one is tried again', async () => {
      const held = await ledger.mint();
      const neighbour = await ledger.mint();
      const bystander = await ledger.login(neighbour.minted);
      await ledger.admin('BEGIN');
      await ledger.admin(`ALTER ROLE ${held.ref.handle} CONNECTION LIMIT 7`);
      const ended: { ok: boolean; order: string }[] = [];
      const fencing = ledger.session.fence([held.ref, neighbour.ref], soon()).then((outcomes) => {
        ended.push({ ok: true, order: 'batch' });
        return outcomes;
      });
      await expect.poll(() => sqlState(bystander.query('SELECT 1')), { interval: 5 }).not.toBe('none');
      ended.push({ ok: true, order: 'neighbour' });
      expect(await fencing).toMatchObject([{ ok: false, error: { errorClass: 'retryable' } }, { ok: true }]);
      expect(ended.map(({ order }) => order)).toEqual(['neighbour', 'batch']);
      await ledger.admin('COMMIT');
      expect(await ledger.session.fence([held.ref], soon())).toMatchObject([{ ok: true }]);
    });
  });

  // A wait for a lock is given up after a second. That it is none is seen by its being shorter once: a busy machine takes longer.
  test('a mint that hangs on the template delays neither the cut of another grant nor the end of its sessions', {
    retry: 9,
  }, async () => {
    const { ref, minted } = await ledger.mint();
    const agent = await ledger.login(minted);
    const hanging = ledger.ref();
    const slow = await ledger.stolenLogin();
    await slow.query('BEGIN');
    await slow.query(
      `SELECT mayfly.mint($1, $2, $3, $4, $5, now() + interval '5 min', now() + interval '5 min', now() + interval '1 min', 3)`,
      [ledger.installation, hanging.handle, hanging.grantId, ledger.entitlement.template, await scramVerifier('x', 1)],
    );
    const fencing = ledger.session.fence([ref], soon());
    try {
      await expect.poll(() => sqlState(agent.query('SELECT 1')), { interval: 5, timeout: 900 }).not.toBe('none');
      expect(await sqlState(ledger.login(minted))).toMatch(/^28/);
    } finally {
      await slow.query('ROLLBACK');
    }
    expect(await fencing).toMatchObject([{ ok: true }]);
    expect(await ledger.session.verify([ref], soon())).toMatchObject([{ contained: true }]);
  });

  describe('a login asleep before it shows its user', () => {
    const asleep = (): Promise<readonly Record<string, unknown>[]> =>
      ledger.admin('SELECT unnest(mayfly.asleep()) AS pid');

    test('is seen, ended, and does not wake up inside', async () => {
      const { ref, minted } = await ledger.mint();
      const role = version < 16 ? ' -c role=mayfly_t_ledger' : '';
      const sleeper = ledger.login(minted, `-c post_auth_delay=20${role}`).then(
        (client) => sqlState(client.query('SELECT * FROM billing.invoices LIMIT 1')),
        () => 'refused',
      );
      await expect.poll(asleep).toHaveLength(1);
      expect(await ledger.session.verify([ref], soon())).toMatchObject([
        { contained: false, evidence: { logins_asleep: 1 } },
      ]);
      expect(await ledger.session.fence([ref], soon())).toMatchObject([{ ok: true }]);
      expect(await ledger.session.verify([ref], soon())).toMatchObject([
        { contained: true, evidence: { logins_asleep: 0 } },
      ]);
      expect(await sleeper).not.toBe('none');
      expect(await asleep()).toEqual([]);
    });

    test('of somebody else that is quick is let be', async () => {
      const other = await ledger.mint();
      const { ref } = await ledger.mint();
      // Logins come and go during the whole sweep; each lasts a few milliseconds.
      const stop = new AbortController();
      const states: string[] = [];
      const logins = (async () => {
        while (!stop.signal.aborted) {
          const client = await ledger.login(other.minted);
          states.push(await sqlState(client.query('SELECT 1')));
          await client.end();
        }
      })();
      await expect.poll(() => states.length).toBeGreaterThan(3);
      expect(await ledger.session.fence([ref], soon())).toMatchObject([{ ok: true }]);
      stop.abort();
      await logins;
      expect(states.filter((state) => state !== 'none')).toEqual([]);
    });
  });

  describe('names and numbers that mislead', () => {
    test('a renamed role is found by its OID, and is not called gone', async () => {
      const { ref, minted } = await ledger.mint();
      const agent = await ledger.login(minted);
      await ledger.admin(`ALTER ROLE ${ref.handle} RENAME TO innocent`);
      expect(await ledger.session.verify([ref], soon())).toMatchObject([{ ok: true, contained: false }]);
      expect(await ledger.session.fence([ref], soon())).toMatchObject([{ ok: true, evidence: { login: 'cut' } }]);
      expect(await sqlState(agent.query('SELECT 1'))).not.toBe('none');
      expect(await ledger.session.verify([ref], soon())).toMatchObject([
        { contained: true, clean: false, evidence: { role: 'innocent' } },
      ]);
      expect(await ledger.session.reap([ref], soon())).toMatchObject([{ ok: true }]);
      expect(await gone('innocent')).toBe(true);
    });

    test('a renamed role whose mark was removed too is for a person, and never called gone', async () => {
      const { ref } = await ledger.mint();
      await ledger.admin(`ALTER ROLE ${ref.handle} RENAME TO stranger`);
      await ledger.admin(`COMMENT ON ROLE stranger IS NULL`);
      const misconfigured = [{ ok: false, error: { errorClass: 'misconfigured' } }];
      expect(await ledger.session.fence([ref], soon())).toMatchObject(misconfigured);
      expect(await ledger.session.verify([ref], soon())).toMatchObject(misconfigured);
      expect(await ledger.session.reap([ref], soon())).toMatchObject(misconfigured);
      expect(await gone('stranger')).toBe(false);
    });

    test('a role that only bears our name is not touched, and fails alone', async () => {
      const foreign = ledger.ref();
      await ledger.admin(`CREATE ROLE ${foreign.handle} LOGIN`);
      const { ref } = await ledger.mint();
      const malformed = { ...ledger.ref(), handle: 'postgres' };
      const outcomes = await ledger.session.fence([foreign, malformed, ref], soon());
      expect(outcomes).toMatchObject([
        { ok: false, error: { errorClass: 'misconfigured' } },
        { ok: false, error: { errorClass: 'misconfigured' } },
        { ok: true },
      ]);
      const [role] = await ledger.admin('SELECT rolcanlogin FROM pg_roles WHERE rolname = $1', [foreign.handle]);
      expect(role).toEqual({ rolcanlogin: true });
      await ledger.admin(`DROP ROLE ${foreign.handle}`);
    });

    test('absence in another cluster behind the same address means nothing', async () => {
      const { ref } = await ledger.mint();
      const elsewhere = { ...ref, facts: { ...ref.facts, system_identifier: '7000000000000000001' } };
      for (const step of ['fence', 'verify', 'reap'] as const) {
        const [first, second] = await ledger.session[step]([elsewhere, ref], soon());
        expect([step, first]).toMatchObject([step, { ok: false, error: { errorClass: 'misconfigured' } }]);
        expect([step, second]).toMatchObject([step, { ok: true }]);
      }
    });

    test('a role that the registry forgot is known by its mark', async () => {
      const { ref } = await ledger.mint();
      await ledger.admin('DELETE FROM mayfly.handle WHERE handle = $1', [ref.handle]);
      expect(await ledger.session.fence([{ ...ref, facts: null }], soon())).toMatchObject([
        { ok: true, evidence: { login: 'cut', oid: ref.facts?.['oid'] } },
      ]);
      expect(await ledger.session.reap([ref], soon())).toMatchObject([{ ok: true, evidence: { role: 'dropped' } }]);
      expect(await gone(ref.handle)).toBe(true);
    });
  });

  test('memberships that others got in the role are taken away, and their sessions from before are ended', async () => {
    const lender = await ledger.mint();
    const borrower = await ledger.mint();
    const agent = await ledger.login(borrower.minted);
    // Before 15 the agent could do this by itself; since then only an administrator can.
    const lending = `GRANT ${lender.ref.handle} TO ${borrower.ref.handle}`;
    expect(await sqlState((await ledger.login(lender.minted)).query(lending))).toMatch(
      version < 15 ? 'none' : /^(42501|0LP01)$/,
    );
    await ledger.admin(lending);
    expect(await ledger.session.fence([lender.ref], soon())).toMatchObject([
      { ok: true, evidence: { memberships_removed: 2 } },
    ]);
    expect(await sqlState(agent.query('SELECT 1'))).not.toBe('none');
    expect(await ledger.session.verify([lender.ref], soon())).toMatchObject([{ contained: true }]);
    // The borrower's own access is another grant's, and goes on.
    const again = await ledger.login(borrower.minted);
    expect(await sqlState(again.query('SELECT * FROM billing.invoices LIMIT 1'))).toBe('none');
    await ledger.session.fence([borrower.ref], soon());
  });

  describe('what the role owns', () => {
    test('in this database is dropped with it', async () => {
      const { ref, minted } = await ledger.mint();
      await ledger.admin(`GRANT CREATE ON SCHEMA billing TO ${ref.handle}`);
      const agent = await ledger.login(minted);
      await agent.query('CREATE TABLE billing.loot AS SELECT * FROM billing.invoices');
      await ledger.session.fence([ref], soon());
      expect(await ledger.session.reap([ref], soon())).toMatchObject([{ ok: true }]);
      expect(await ledger.admin(`SELECT FROM pg_class WHERE relname = 'loot'`)).toEqual([]);
      expect(await ledger.session.verify([ref], soon())).toMatchObject([{ clean: true }]);
    });

    test('in another database is reported, contained and not called clean; its neighbour is dropped', async () => {
      const { ref } = await ledger.mint();
      const { ref: neighbour } = await ledger.mint();
      const name = `elsewhere_${version}`;
      await server.createDatabase(name);
      await ledger.admin(`GRANT CONNECT ON DATABASE ${name} TO ${ref.handle}`);
      await ledger.admin(`ALTER DATABASE ${name} OWNER TO ${ref.handle}`);
      await ledger.session.fence([ref, neighbour], soon());
      const [owned, dropped] = await ledger.session.reap([ref, neighbour], soon());
      expect(owned).toMatchObject({ ok: false });
      expect(dropped).toMatchObject({ ok: true });
      const verdicts = await ledger.session.verify([ref, neighbour], soon());
      expect(verdicts).toMatchObject([
        { contained: true, clean: false },
        { contained: true, clean: true },
      ]);
      await server.dropDatabase(name);
      expect(await ledger.session.reap([ref], soon())).toMatchObject([{ ok: true }]);
    });

    test('behind a lock does not hold up its neighbours', async () => {
      const { ref, minted } = await ledger.mint();
      const { ref: neighbour } = await ledger.mint();
      await ledger.admin(`GRANT CREATE ON SCHEMA billing TO ${ref.handle}`);
      await (await ledger.login(minted)).query('CREATE TABLE billing.locked (a int)');
      await ledger.session.fence([ref, neighbour], soon());
      await ledger.admin('BEGIN');
      await ledger.admin('LOCK TABLE billing.locked');
      expect(await ledger.session.reap([ref, neighbour], soon())).toMatchObject([
        { ok: false, error: { errorClass: 'retryable' } },
        { ok: true },
      ]);
      await ledger.admin('COMMIT');
      expect(await ledger.session.reap([ref], soon())).toMatchObject([{ ok: true }]);
    });
  });

  test('only what was fenced is dropped', async () => {
    const { ref } = await ledger.mint();
    expect(await ledger.session.reap([ref], soon())).toMatchObject([{ ok: false }]);
    expect(await gone(ref.handle)).toBe(false);
    await ledger.session.fence([ref], soon());
  });

  test.each([
    ['fence', 'fence(uuid, text[], oid[], timestamptz[], integer, boolean)'],
    ['fence', 'kill(uuid, oid[], integer[])'],
    ['fence', 'unlink(uuid, oid[], integer)'],
    ['verify', 'look(text[], oid[])'],
    ['reap', 'drop(uuid, text[], oid[], integer, boolean)'],
  ] as const)('permission denied is never success: %s without %s', async (step, signature) => {
    const { ref } = await ledger.mint();
    if (step === 'reap') {
      await ledger.session.fence([ref], soon());
    }
    await ledger.admin(`REVOKE EXECUTE ON FUNCTION mayfly.${signature} FROM ${ledger.config.user}`);
    try {
      const outcome = await ledger.session[step]([ref], soon()).then(
        ([first]) => first,
        (error: unknown) => ({ ok: false, error }),
      );
      expect(outcome).toMatchObject({ ok: false, error: { errorClass: 'denied' } });
    } finally {
      await ledger.admin(`GRANT EXECUTE ON FUNCTION mayfly.${signature} TO ${ledger.config.user}`);
    }
    await ledger.session.fence([ref], soon());
    expect(await ledger.session.reap([ref], soon())).toMatchObject([{ ok: true }]);
  });

  test('a second installation on the same target is a stranger', async () => {
    const stranger = ledger.connect({}, randomUUID());
    const { ref } = await ledger.mint();
    const fresh = ledger.ref();
    await expect(stranger.mint(fresh, ledger.request(fresh), soon())).rejects.toMatchObject({
      errorClass: 'misconfigured',
    });
    expect(await stranger.fence([ref], soon())).toMatchObject([{ ok: false, error: { errorClass: 'misconfigured' } }]);
    expect(await ledger.session.verify([ref], soon())).toMatchObject([{ contained: false }]);
    await ledger.session.fence([ref], soon());
  });
});
