import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { availableVersions, type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { type Ledger, makeLedger, soon, sqlState } from './postgres-fixture.ts';

describe.each(availableVersions())('one life of a credential on PostgreSQL %i', (version) => {
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

  test('it is minted, does what is allowed, is refused what is not, and is ended and proven gone', async () => {
    const { ref, minted } = await ledger.mint();
    expect(minted.expiresAt.getTime()).toBeLessThanOrEqual(ref.deadline.getTime() + 1);
    expect(minted.expiresAt.getTime()).toBeGreaterThan(ref.deadline.getTime() - 1000);
    const { host, port, database, username, password, sslmode, url } = minted.secret.reveal();
    expect({ host, port, database, username, sslmode }).toEqual({
      host: '127.0.0.1',
      port: server.port,
      database: 'ledger',
      username: ref.handle,
      sslmode: 'disable',
    });
    expect(url).toBe(`postgres://${ref.handle}:${String(password)}@127.0.0.1:${server.port}/ledger?sslmode=disable`);
    expect(minted.facts).toMatchObject({ template: 'mayfly_t_ledger', database: 'ledger' });

    const agent = await ledger.login(minted);
    expect((await agent.query('SELECT count(*)::int AS n FROM billing.invoices')).rows).toEqual([{ n: 5000 }]);
    for (const refused of [
      'SELECT * FROM billing.salaries',
      'DELETE FROM billing.invoices',
      'CREATE TABLE public.mine (a int)',
      'CREATE TABLE billing.mine (a int)',
      'CREATE ROLE friend',
      `ALTER ROLE ${ref.handle} VALID UNTIL 'infinity'`,
      `ALTER ROLE ${ref.handle} CONNECTION LIMIT 50`,
      `COMMENT ON ROLE ${ref.handle} IS 'no longer yours'`,
      'SELECT * FROM mayfly.handle',
      'SELECT mayfly.status()',
      "COPY (SELECT 1) TO PROGRAM 'true'",
    ]) {
      expect([refused, await sqlState(agent.query(refused))]).toEqual([refused, '42501']);
    }

    const [fenced] = await ledger.session.fence([ref], soon());
    expect(fenced).toMatchObject({ ok: true, evidence: { login: 'cut', sessions_ended: 1, memberships_removed: 1 } });
    expect(await sqlState(agent.query('SELECT 1'))).not.toBe('none');
    expect(await sqlState(ledger.login(minted))).toMatch(/^28/);
    expect(await ledger.session.verify([ref], soon())).toMatchObject([{ ok: true, contained: true, clean: false }]);

    expect(await ledger.session.reap([ref], soon())).toMatchObject([{ ok: true, evidence: { role: 'dropped' } }]);
    expect(await ledger.session.verify([ref], soon())).toMatchObject([
      { ok: true, contained: true, clean: true, evidence: { role: 'absent', sessions: 0, tombstone: true } },
    ]);
    const left = await ledger.admin('SELECT FROM pg_roles WHERE rolname = $1 OR oid = $2', [
      ref.handle,
      ref.facts?.['oid'],
    ]);
    expect(left).toEqual([]);
  });

  test('verify says that a living role is not contained', async () => {
    const { ref } = await ledger.mint();
    expect(await ledger.session.verify([ref], soon())).toMatchObject([{ ok: true, contained: false, clean: false }]);
    await ledger.session.fence([ref], soon());
  });

  test('every step may be repeated, and the end works without the facts', async () => {
    const { ref } = await ledger.mint();
    const blind = { ...ref, facts: null };
    for (let round = 0; round < 2; round += 1) {
      expect(await ledger.session.fence([blind], soon())).toMatchObject([
        { ok: true, evidence: { oid: ref.facts?.['oid'] } },
      ]);
      expect(await ledger.session.verify([blind], soon())).toMatchObject([{ ok: true, contained: true, clean: false }]);
    }
    for (let round = 0; round < 2; round += 1) {
      expect(await ledger.session.reap([blind], soon())).toMatchObject([{ ok: true }]);
      expect(await ledger.session.verify([blind], soon())).toMatchObject([{ ok: true, contained: true, clean: true }]);
    }
    expect(await ledger.session.fence([ref], soon())).toMatchObject([{ ok: true, evidence: { login: 'absent' } }]);
  });

  test('a handle that was never minted counts as gone only behind its tombstone', async () => {
    const ref = ledger.ref();
    expect(await ledger.session.verify([ref], soon())).toMatchObject([{ ok: true, contained: false }]);
    expect(await ledger.session.fence([ref], soon())).toMatchObject([{ ok: true, evidence: { login: 'absent' } }]);
    expect(await ledger.session.verify([ref], soon())).toMatchObject([{ ok: true, contained: true, clean: true }]);
    expect(await ledger.session.reap([ref], soon())).toMatchObject([{ ok: true }]);
  });

  test('by itself it refuses new logins once its time is over', async () => {
    const deadline = new Date(Date.now() + 4000);
    const { minted } = await ledger.mint({ deadline });
    await (await ledger.login(minted)).end();
    await expect.poll(() => sqlState(ledger.login(minted)), { timeout: 60_000, interval: 100 }).toBe('28P01');
    expect(Date.now()).toBeGreaterThan(deadline.getTime() - 50);
  });

  test.runIf(version < 16)('before 16: a session inside SET ROLE is ended', async () => {
    const { ref, minted } = await ledger.mint();
    const agent = await ledger.login(minted);
    await agent.query('SET ROLE mayfly_t_ledger');
    await ledger.session.fence([ref], soon());
    expect(await sqlState(agent.query('SELECT * FROM billing.invoices LIMIT 1'))).not.toBe('none');
    expect(await ledger.session.verify([ref], soon())).toMatchObject([{ contained: true, evidence: { sessions: 0 } }]);
  });

  test.runIf(version >= 16)('since 16: SET ROLE to the template is refused', async () => {
    const { ref, minted } = await ledger.mint();
    const agent = await ledger.login(minted);
    expect(await sqlState(agent.query('SET ROLE mayfly_t_ledger'))).toBe('42501');
    await ledger.session.fence([ref], soon());
  });

  test('an open cursor returns no more rows', async () => {
    const { ref, minted } = await ledger.mint();
    const agent = await ledger.login(minted);
    await agent.query('BEGIN');
    await agent.query('DECLARE c CURSOR FOR SELECT * FROM billing.invoices');
    expect((await agent.query('FETCH 10 FROM c')).rowCount).toBe(10);
    await ledger.session.fence([ref], soon());
    expect(await sqlState(agent.query('FETCH 10 FROM c'))).not.toBe('none');
  });

  test('a role dropped by somebody else leaves sessions, which are found by OID and ended', async () => {
    const { ref, minted } = await ledger.mint();
    const agent = await ledger.login(minted);
    await ledger.admin(`DROP ROLE ${ref.handle}`);
    await agent.query('SELECT 1');
    expect(await ledger.session.verify([ref], soon())).toMatchObject([{ ok: true, contained: false }]);
    expect(await ledger.session.fence([{ ...ref, facts: null }], soon())).toMatchObject([
      { ok: true, evidence: { login: 'absent', sessions_ended: 1 } },
    ]);
    expect(await sqlState(agent.query('SELECT 1'))).not.toBe('none');
    expect(await ledger.session.verify([ref], soon())).toMatchObject([{ ok: true, contained: true, clean: true }]);
  });

  test('no login that races the fence survives it', async () => {
    for (let round = 0; round < 25; round += 1) {
      const { ref, minted } = await ledger.mint();
      const racing = Array.from({ length: 4 }, () => ledger.login(minted).catch(() => null));
      // Other moments of the login in each round.
      await new Promise((resolve) => setTimeout(resolve, round / 2));
      const [fenced] = await ledger.session.fence([ref], soon());
      expect(fenced).toMatchObject({ ok: true });
      for (const agent of await Promise.all(racing)) {
        expect(agent === null ? 'refused' : await sqlState(agent.query('SELECT 1'))).not.toBe('none');
      }
      expect(await ledger.session.verify([ref], soon())).toMatchObject([{ ok: true, contained: true }]);
    }
  });

  test('200 mints at once on one template all succeed, and end as one batch', async () => {
    const lives = await Promise.all(Array.from({ length: 200 }, () => ledger.mint()));
    expect(new Set(lives.map(({ ref }) => ref.facts?.['oid'])).size).toBe(200);
    const agents = await Promise.all(lives.slice(0, 5).map(({ minted }) => ledger.login(minted)));
    const refs = lives.map(({ ref }) => ref);
    const fenced = await ledger.session.fence(refs, soon());
    expect(fenced.filter(({ ok }) => ok)).toHaveLength(200);
    expect(await Promise.all(agents.map((agent) => sqlState(agent.query('SELECT 1'))))).not.toContain('none');
    const reaped = await ledger.session.reap(refs, soon());
    expect(reaped.filter(({ ok }) => ok)).toHaveLength(200);
    const verdicts = await ledger.session.verify(refs, soon());
    expect(verdicts.filter((verdict) => verdict.ok && verdict.clean)).toHaveLength(200);
    const oids = refs.map(({ facts }) => facts?.['oid']);
    expect(await ledger.admin('SELECT FROM pg_roles WHERE oid = ANY ($1)', [oids])).toEqual([]);
  });

  test('two brokers that end the same batch at once both succeed', async () => {
    const other = ledger.connect();
    const refs = (await Promise.all(Array.from({ length: 20 }, () => ledger.mint()))).map(({ ref }) => ref);
    const both = await Promise.all([ledger.session.fence(refs, soon()), other.fence(refs.toReversed(), soon())]);
    expect(both.flat().filter(({ ok }) => !ok)).toEqual([]);
    const dropped = await Promise.all([ledger.session.reap(refs, soon()), other.reap(refs, soon())]);
    const verdicts = await ledger.session.verify(refs, soon());
    expect(verdicts.filter((verdict) => verdict.ok && verdict.clean)).toHaveLength(20);
    // One of two that drop the same role may have to be told "locked"; what counts is that it is gone.
    expect(dropped.flat().filter((outcome) => !outcome.ok && outcome.error.errorClass !== 'retryable')).toEqual([]);
  });

  describe('renewal', () => {
    test('moves the end, and the target refuses logins after it', async () => {
      const { ref, minted } = await ledger.mint({ deadline: new Date(Date.now() + 60_000) });
      const until = new Date(Date.now() + 120_000);
      const renewed = await ledger.session.renew?.(ref, until, soon());
      expect(renewed?.secret).toBeUndefined();
      expect(Math.abs((renewed?.expiresAt.getTime() ?? 0) - until.getTime())).toBeLessThan(10_000);
      expect(renewed?.facts).toEqual(minted.facts);
      const [role] = await ledger.admin(
        'SELECT abs(extract(epoch FROM rolvaliduntil - $2::timestamptz)) < 0.1 AS moved FROM pg_roles WHERE rolname = $1',
        [ref.handle, until],
      );
      expect(role).toEqual({ moved: true });
    });

    test('never goes past what the mint allowed, nor past the template', async () => {
      const notAfter = new Date(Date.now() + 100_000);
      const { ref } = await ledger.mint({ deadline: new Date(Date.now() + 60_000), notAfter });
      await expect(ledger.session.renew?.(ref, new Date(Date.now() + 200_000), soon())).rejects.toMatchObject({
        errorClass: 'misconfigured',
      });
      const { ref: free } = await ledger.mint();
      await expect(ledger.session.renew?.(free, new Date(Date.now() + 1_000_000), soon())).rejects.toMatchObject({
        errorClass: 'misconfigured',
      });
    });

    test('revives nothing: not what was fenced, not what has lapsed, not what never was', async () => {
      const later = new Date(Date.now() + 60_000);
      const { ref, minted } = await ledger.mint();
      await ledger.session.fence([ref], soon());
      await expect(ledger.session.renew?.(ref, later, soon())).rejects.toMatchObject({ errorClass: 'gone' });
      const [role] = await ledger.admin('SELECT rolcanlogin FROM pg_roles WHERE rolname = $1', [ref.handle]);
      expect(role).toEqual({ rolcanlogin: false });
      expect(await sqlState(ledger.login(minted))).toMatch(/^28/);

      const { ref: lapsed } = await ledger.mint({ deadline: new Date(Date.now() + 400) });
      await expect
        .poll(() =>
          ledger.admin('SELECT FROM pg_roles WHERE rolname = $1 AND rolvaliduntil < clock_timestamp()', [
            lapsed.handle,
          ]),
        )
        .toHaveLength(1);
      await expect(ledger.session.renew?.(lapsed, later, soon())).rejects.toMatchObject({ errorClass: 'gone' });
      await expect(ledger.session.renew?.(ledger.ref(), later, soon())).rejects.toMatchObject({ errorClass: 'gone' });
    });
  });

  test('list shows what is there and ours, with the grant that its mark names', async () => {
    const other = await makeLedger(server, 'list_other');
    const { ref: theirs } = await other.mint();
    const { ref: live } = await ledger.mint();
    const { ref: fenced } = await ledger.mint();
    const { ref: gone } = await ledger.mint();
    await ledger.session.fence([fenced, gone], soon());
    await ledger.session.reap([gone], soon());
    await ledger.admin(`CREATE ROLE mfy_${randomUUID().replaceAll('-', '')}`);
    const found = new Map(((await ledger.session.list?.(soon())) ?? []).map((each) => [each.handle, each]));
    expect(found.get(live.handle)).toMatchObject({
      grantId: live.grantId,
      installation: ledger.installation,
      facts: { ...live.facts, fenced: false, can_login: true },
    });
    expect(found.get(fenced.handle)).toMatchObject({
      grantId: fenced.grantId,
      facts: { fenced: true, can_login: false },
    });
    expect(found.has(gone.handle)).toBe(false);
    expect(found.has(theirs.handle)).toBe(false);
    await ledger.admin(`COMMENT ON ROLE ${live.handle} IS 'renamed by hand'`);
    const again = (await ledger.session.list?.(soon())) ?? [];
    expect(again.find(({ handle }) => handle === live.handle)).toMatchObject({ grantId: null });
    await other.close();
  });

  test('what is promised follows from the version and the allow-list', async () => {
    const promised = await ledger.session.guarantee(ledger.entitlement, soon());
    expect(promised).toMatchObject({
      revocation: version >= 16 ? 'immediate' : 'propagating',
      native_expiry: true,
      ends_sessions: true,
      enumerable: true,
      max_ttl_seconds: 900,
    });
    expect(promised.says).toMatch(/sessions already open are ended by the broker, not by the server/);
    await expect(
      ledger.session.guarantee({ ...ledger.entitlement, template: 'mayfly_t_unknown' }, soon()),
    ).rejects.toMatchObject({ errorClass: 'misconfigured' });
  });

  test('rows of the registry go when nothing can need them any more', async () => {
    const { ref } = await ledger.mint();
    const never = ledger.ref();
    await ledger.session.fence([ref, never], soon());
    await ledger.session.reap([ref, never], soon());
    const rows = (): Promise<readonly unknown[]> =>
      ledger.admin('SELECT FROM mayfly.handle WHERE handle = ANY ($1)', [[ref.handle, never.handle]]);
    expect(await rows()).toHaveLength(2);
    await ledger.admin(
      `UPDATE mayfly.handle SET keep_until = clock_timestamp() - interval '1 s' WHERE handle = ANY ($1)`,
      [[ref.handle, never.handle]],
    );
    const { ref: other } = await ledger.mint();
    await ledger.admin(`UPDATE mayfly.handle SET keep_until = clock_timestamp() - interval '1 s' WHERE handle = $1`, [
      other.handle,
    ]);
    await ledger.session.reap([ledger.ref()], soon());
    expect(await rows()).toHaveLength(0);
    // A living role keeps its row, however old.
    expect(await ledger.session.fence([{ ...other, facts: null }], soon())).toMatchObject([
      { evidence: { login: 'cut' } },
    ]);
    expect(await ledger.session.verify([ref], soon())).toMatchObject([{ contained: true, clean: true }]);
  });

  test('an application that shares the server notices nothing', async () => {
    const application = new pg.Client({ connectionString: server.superuserUrl('ledger') });
    await application.connect();
    const { ref } = await ledger.mint();
    await ledger.session.fence([ref], soon());
    await ledger.session.reap([ref], soon());
    expect((await application.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
    await application.end();
  });
});
