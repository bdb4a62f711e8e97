import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { availableVersions, type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { entitlementName, type Ledger, makeLedger, soon, sqlState } from './postgres-fixture.ts';

const cases = availableVersions().flatMap((version) =>
  (['createrole', 'pool'] as const).map((mode) => ({ version, mode })),
);

/** The modes for managed services: prepared by an administrator that is no superuser, and with none behind the functions. */
describe.each(cases)('mode $mode on PostgreSQL $version', ({ version, mode }) => {
  let server: PostgresServer;
  let ledger: Ledger;
  beforeAll(async () => {
    server = await startPostgres({ version });
    ledger = await makeLedger(server, 'ledger', { managed: { mode, poolSize: 120 } });
  });
  afterAll(async () => {
    await ledger?.close();
    await server?.stop();
  });

  const gone = [{ ok: true, contained: true, clean: true }];

  test('a life: minted, does what is allowed, is refused what is not, is ended and proven gone', async () => {
    const { ref, minted } = await ledger.mint();
    const { username } = minted.secret.reveal();
    expect(username).toBe(mode === 'pool' ? minted.facts['role_name'] : ref.handle);
    const agent = await ledger.login(minted);
    expect((await agent.query('SELECT count(*)::int AS n FROM billing.invoices')).rows).toEqual([{ n: 5000 }]);
    for (const refused of [
      'SELECT * FROM billing.salaries',
      'DELETE FROM billing.invoices',
      'CREATE TABLE billing.mine (a int)',
      'CREATE ROLE friend',
      `ALTER ROLE current_user VALID UNTIL 'infinity'`,
      `ALTER ROLE current_user CONNECTION LIMIT 50`,
      'SELECT * FROM mayfly.handle',
      'SELECT mayfly.status()',
    ]) {
      expect([refused, await sqlState(agent.query(refused))]).toEqual([refused, '42501']);
    }
    expect(await ledger.session.verify([ref], soon())).toMatchObject([{ ok: true, contained: false }]);
    expect(await ledger.session.fence([ref], soon())).toMatchObject([
      { ok: true, evidence: { login: 'cut', sessions_ended: 1 } },
    ]);
    expect(await sqlState(agent.query('SELECT 1'))).not.toBe('none');
    expect(await sqlState(ledger.login(minted))).toMatch(/^28/);
    expect(await ledger.session.verify([ref], soon())).toMatchObject([{ ok: true, contained: true, clean: false }]);
    expect(await ledger.session.reap([ref], soon())).toMatchObject([{ ok: true, evidence: { role: 'dropped' } }]);
    expect(await ledger.session.verify([ref], soon())).toMatchObject(gone);
  });

  test('nobody behind it is superuser, and a stolen login of the broker reads nothing and makes no roles', async () => {
    const roles = await ledger.admin(
      `SELECT rolname, rolsuper, rolcanlogin, rolcreaterole FROM pg_roles WHERE rolname IN ('owner_ledger', 'broker_ledger') ORDER BY 1`,
    );
    expect(roles).toEqual([
      { rolname: 'broker_ledger', rolsuper: false, rolcanlogin: true, rolcreaterole: false },
      { rolname: 'owner_ledger', rolsuper: false, rolcanlogin: false, rolcreaterole: true },
    ]);
    const owned = await ledger.admin(
      `SELECT DISTINCT proowner::regrole::text AS owner FROM pg_proc WHERE pronamespace = 'mayfly'::regnamespace`,
    );
    expect(owned).toEqual([{ owner: 'owner_ledger' }]);
    const thief = await ledger.stolenLogin();
    for (const refused of [
      'SELECT * FROM billing.invoices',
      'CREATE ROLE friend',
      'SET ROLE owner_ledger',
      'GRANT mayfly_t_ledger TO broker_ledger',
      'SELECT * FROM mayfly.handle',
      `UPDATE mayfly.template SET max_seconds = 100000`,
      'SELECT mayfly.join_to_drop(1)',
    ]) {
      expect([refused, await sqlState(thief.query(refused))]).toMatchObject([refused, '42501']);
    }
  });

  test('every step may be repeated, and the end works without the facts', async () => {
    const { ref } = await ledger.mint();
    const blind = { ...ref, facts: null };
    for (let round = 0; round < 2; round += 1) {
      expect(await ledger.session.fence([blind], soon())).toMatchObject([{ ok: true }]);
      expect(await ledger.session.verify([blind], soon())).toMatchObject([{ ok: true, contained: true, clean: false }]);
    }
    for (let round = 0; round < 2; round += 1) {
      expect(await ledger.session.reap([blind], soon())).toMatchObject([{ ok: true }]);
      expect(await ledger.session.verify([blind], soon())).toMatchObject(gone);
    }
    expect(await ledger.session.fence([ref], soon())).toMatchObject([{ ok: true, evidence: { login: 'absent' } }]);
  });

  test('without the right to end sessions no end is reported, and check says so', async () => {
    const { ref, minted } = await ledger.mint();
    const agent = await ledger.login(minted);
    const [grant] = await ledger.admin(`SELECT grantor::regrole::text AS by FROM pg_auth_members
      WHERE member = 'owner_ledger'::regrole AND roleid = 'pg_signal_backend'::regrole`);
    await ledger.admin(`REVOKE pg_signal_backend FROM owner_ledger GRANTED BY ${String(grant?.['by'])}`);
    expect(await ledger.session.fence([ref], soon())).toMatchObject([{ ok: false, error: { errorClass: 'denied' } }]);
    expect(await ledger.session.verify([ref], soon())).toMatchObject([{ contained: false, evidence: { sessions: 1 } }]);
    expect(await ledger.session.check(null, soon())).toContainEqual(
      expect.objectContaining({ step: 'owner', ok: false, says: expect.stringMatching(/pg_signal_backend/) }),
    );
    await ledger.admin(`GRANT pg_signal_backend TO owner_ledger`);
    expect(await ledger.session.fence([ref], soon())).toMatchObject([{ ok: true }]);
    expect(await sqlState(agent.query('SELECT 1'))).not.toBe('none');
  });

  test('a renewal moves the end, and revives nothing', async () => {
    const { ref } = await ledger.mint({ deadline: new Date(Date.now() + 60_000) });
    const until = new Date(Date.now() + 120_000);
    const renewed = await ledger.session.renew?.(ref, until, soon());
    expect(Math.abs((renewed?.expiresAt.getTime() ?? 0) - until.getTime())).toBeLessThan(10_000);
    await ledger.session.fence([ref], soon());
    await expect(ledger.session.renew?.(ref, until, soon())).rejects.toMatchObject({ errorClass: 'gone' });
    await ledger.session.reap([ref], soon());
    await expect(ledger.session.renew?.(ref, until, soon())).rejects.toMatchObject({ errorClass: 'gone' });
  });

  test('a batch ends as one, two brokers at once both succeed, and list shows what is there', async () => {
    const lives = await Promise.all(Array.from({ length: 20 }, () => ledger.mint()));
    const refs = lives.map(({ ref }) => ref);
    const found = new Map(((await ledger.session.list?.(soon())) ?? []).map((each) => [each.handle, each]));
    expect(refs.map(({ handle }) => found.get(handle)?.grantId)).toEqual(refs.map(({ grantId }) => grantId));
    const other = ledger.connect();
    const both = await Promise.all([ledger.session.fence(refs, soon()), other.fence(refs.toReversed(), soon())]);
    expect(both.flat().filter(({ ok }) => !ok)).toEqual([]);
    await Promise.all([ledger.session.reap(refs, soon()), other.reap(refs, soon())]);
    await ledger.session.reap(refs, soon());
    expect(await ledger.session.verify(refs, soon())).toMatchObject(refs.map(() => ({ clean: true })));
    const left = ((await ledger.session.list?.(soon())) ?? []).map(({ handle }) => handle);
    expect(refs.filter(({ handle }) => left.includes(handle))).toEqual([]);
  });

  test('a second installation on the same target is a stranger', async () => {
    const stranger = ledger.connect({}, randomUUID());
    const { ref } = await ledger.mint();
    expect(await stranger.fence([ref], soon())).toMatchObject([{ ok: false, error: { errorClass: 'misconfigured' } }]);
    expect(await ledger.session.verify([ref], soon())).toMatchObject([{ contained: false }]);
  });

  test('the verifier is not written to the log where DDL is', async () => {
    await ledger.admin(`ALTER DATABASE ledger SET log_statement = 'ddl'`);
    const other = ledger.connect();
    const ref = ledger.ref();
    const minted = await other.mint(ref, ledger.request(ref), soon());
    const [row] = await ledger.admin('SELECT rolpassword FROM pg_authid WHERE oid = $1', [minted.facts['oid']]);
    const key = String(row?.['rolpassword']).split('$').at(-1) ?? '';
    expect(key).toMatch(/^[A-Za-z0-9+/]{43}=:/);
    await ledger.admin('ALTER DATABASE ledger RESET log_statement');
    expect(server.log()).not.toContain(key);
  });

  test('check plays a life and finds nothing wrong; what is promised says what it is not', async () => {
    await ledger.admin('REVOKE TEMPORARY ON DATABASE ledger FROM PUBLIC');
    const steps = await ledger.session.check({ name: entitlementName, config: ledger.entitlement }, soon());
    expect(steps.filter(({ ok }) => !ok)).toEqual([]);
    expect(steps.map(({ step }) => step)).toEqual(expect.arrayContaining(['owner', 'login', 'fence', 'verify']));
    const promised = await ledger.session.guarantee(ledger.entitlement, soon());
    expect(promised.revocation).toBe(version >= 16 ? 'immediate' : 'propagating');
    expect(promised.says).toMatch(/no superuser: it cannot see passwords/);
    expect(/nearly superuser/.test(promised.says)).toBe(version < 16);
    expect(/lent to one grant after another/.test(promised.says)).toBe(mode === 'pool');
  });

  test('a broker told of another mode finds out by check', async () => {
    const other = ledger.connect({ mode: mode === 'pool' ? 'createrole' : 'pool' });
    expect((await other.check(null, soon())).filter(({ ok }) => !ok)).not.toEqual([]);
    const ref = ledger.ref();
    await expect(other.mint(ref, ledger.request(ref), soon())).rejects.toMatchObject({ errorClass: 'misconfigured' });
  });
});
