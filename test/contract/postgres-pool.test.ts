import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Secret } from '../../src/provider.ts';
import { halfALogin } from '../support/half-login.ts';
import { availableVersions, type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { type Ledger, type Live, makeLedger, soon, sqlState } from './postgres-fixture.ts';

/** A pool of one role: each tenant follows the one before. */
describe.each(availableVersions())('between two tenants of one role on PostgreSQL %i', (version) => {
  let server: PostgresServer;
  let ledger: Ledger;
  beforeAll(async () => {
    server = await startPostgres({ version, settings: { authentication_timeout: 6 } });
    ledger = await makeLedger(server, 'ledger', { managed: { mode: 'pool', poolSize: 1 } });
  });
  afterAll(async () => {
    await ledger?.close();
    await server?.stop();
  });

  const role = 'mayfly_p_ledger_1';
  /** For tests of something else than the rest. */
  async function mintNext(): Promise<Live> {
    await ledger.admin(`UPDATE mayfly.pooled SET free_at = '-infinity'`);
    return ledger.mint();
  }
  /** Asks until a role is free. */
  async function mintSoon(timeout: number): Promise<Live> {
    const minted: Live[] = [];
    const tried = async (): Promise<number> => minted.push(await ledger.mint());
    await expect.poll(tried, { timeout, interval: 100 }).toBe(1);
    const [live] = minted;
    if (live === undefined) throw new Error('unreachable');
    return live;
  }
  async function end({ ref }: Live): Promise<void> {
    expect(await ledger.session.fence([ref], soon())).toMatchObject([{ ok: true }]);
    expect(await ledger.session.verify([ref], soon())).toMatchObject([{ contained: true }]);
    expect(await ledger.session.reap([ref], soon())).toMatchObject([{ ok: true }]);
    expect(await ledger.session.verify([ref], soon())).toMatchObject([{ contained: true, clean: true }]);
  }

  test('whatever comes late for the first one touches the second one in nothing', async () => {
    const first = await mintNext();
    await end(first);
    const second = await mintNext();
    expect(second.ref.facts?.['oid']).toBe(first.ref.facts?.['oid']);
    expect(second.ref.facts?.['generation']).toBe(Number(first.ref.facts?.['generation']) + 1);
    const agent = await ledger.login(second.minted);
    await end(first);
    await expect(ledger.session.renew?.(first.ref, new Date(Date.now() + 60_000), soon())).rejects.toMatchObject({
      errorClass: 'gone',
    });
    // A fence of the first that was under way when the role changed hands has its OID in its hand.
    const late = await ledger.stolenLogin();
    const oids = [first.ref.facts?.['oid']];
    await late.query('SELECT mayfly.kill($1, $2::oid[], $3)', [ledger.installation, oids, []]);
    await late.query('SELECT * FROM mayfly.unlink($1, $2::oid[], 100)', [ledger.installation, oids]);
    // A broker that lost what it knew of its registry of loans, too.
    await ledger.admin('DELETE FROM mayfly.handle WHERE handle = $1', [first.ref.handle]);
    await end(first);
    expect(await sqlState(agent.query('SELECT * FROM billing.invoices LIMIT 1'))).toBe('none');
    expect(await sqlState(ledger.login(second.minted))).toBe('none');
    expect(await ledger.session.verify([second.ref], soon())).toMatchObject([{ contained: false }]);
    await end(second);
  });

  test('the second finds nothing of the first: no settings, password, objects, rights, locks or sessions', async () => {
    const first = await mintNext();
    await ledger.admin(`GRANT CREATE ON SCHEMA billing TO ${role}`);
    const agent = await ledger.login(first.minted);
    for (const left of [
      `ALTER ROLE current_user SET search_path = billing, public`,
      `ALTER ROLE current_user IN DATABASE ledger SET application_name = 'left behind'`,
      `ALTER ROLE current_user IN DATABASE postgres SET work_mem = '1MB'`,
      `ALTER ROLE current_user PASSWORD 'mine'`,
      'CREATE TABLE billing.trap (a int)',
      `CREATE FUNCTION billing.trap() RETURNS int LANGUAGE sql SECURITY DEFINER RETURN 1`,
      'CREATE TEMP TABLE invoices AS SELECT 1 AS id',
      'ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC',
      'SELECT lo_create(0)',
      'SELECT pg_advisory_lock(42)',
      'LISTEN spy',
    ]) {
      expect([left, await sqlState(agent.query(left))]).toEqual([left, 'none']);
    }
    // What a person gave the role itself, only that person can take away: until then it is contained, and not lent again.
    await ledger.session.fence([first.ref], soon());
    expect(await ledger.session.reap([first.ref], soon())).toMatchObject([{ ok: false }]);
    expect(await ledger.session.verify([first.ref], soon())).toMatchObject([{ contained: true, clean: false }]);
    await ledger.admin(`REVOKE CREATE ON SCHEMA billing FROM ${role}`);
    await end(first);
    const second = await mintNext();
    for (const password of [String(first.minted.secret.reveal()['password']), 'mine']) {
      const secret = new Secret({ ...second.minted.secret.reveal(), password });
      expect(await sqlState(ledger.login({ ...second.minted, secret }))).toBe('28P01');
    }
    const next = await ledger.login(second.minted);
    expect((await next.query(`SELECT current_setting('search_path') AS path`)).rows).toEqual([
      { path: '"$user", public' },
    ]);
    expect((await next.query(`SELECT current_setting('application_name') AS name`)).rows).toEqual([{ name: 'agent' }]);
    for (const nothing of [
      `SELECT FROM pg_db_role_setting WHERE setrole = '${role}'::regrole`,
      `SELECT FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass AND refobjid = '${role}'::regrole`,
      `SELECT FROM pg_default_acl`,
      `SELECT FROM pg_class WHERE relname = 'trap' OR (relname = 'invoices' AND relpersistence = 't')`,
      `SELECT FROM pg_proc WHERE proname = 'trap'`,
      `SELECT FROM pg_locks WHERE locktype = 'advisory'`,
      `SELECT FROM pg_stat_activity WHERE usename = '${role}' AND pid <> pg_backend_pid()`,
      'SELECT FROM pg_largeobject_metadata',
    ]) {
      expect([
        nothing,
        await ledger.admin(nothing).then((rows) => rows.length - (nothing.includes('usename') ? 1 : 0)),
      ]).toEqual([nothing, 0]);
    }
    expect(await sqlState(next.query('CREATE TABLE billing.mine (a int)'))).toBe('42501');
    await end(second);
  });

  test('the role is not lent while anything is left: a membership that a person gave, a session, a login', async () => {
    const stained = [
      [`GRANT pg_read_all_data TO ${role}`, `REVOKE pg_read_all_data FROM ${role}`],
      [`GRANT ${role} TO dba`, `REVOKE ${role} FROM dba`],
      [`ALTER ROLE ${role} LOGIN`, `ALTER ROLE ${role} NOLOGIN`],
      [`ALTER ROLE ${role} SET work_mem = '1MB'`, `ALTER ROLE ${role} RESET work_mem`],
      [`GRANT SELECT ON billing.salaries TO ${role}`, `REVOKE SELECT ON billing.salaries FROM ${role}`],
      [`REVOKE mayfly_t_ledger FROM ${role}`, `GRANT mayfly_t_ledger TO ${role}`],
    ] as const;
    for (const [stain, wash] of stained) {
      if (stain.startsWith('REVOKE') && version >= 16) {
        // Only its grantor, the owner, could: and the right way back has SET FALSE.
        continue;
      }
      await ledger.admin(stain);
      expect([stain, await mintNext().then(String, (error: unknown) => error)]).toMatchObject([
        stain,
        { errorClass: 'retryable', message: expect.stringMatching(/pool is free/) },
      ]);
      await ledger.admin(wash);
    }
    // A registry that was restored calls the role free although it lives.
    const live = await mintNext();
    await ledger.login(live.minted);
    await ledger.admin('UPDATE mayfly.pooled SET handle = NULL');
    await expect(mintNext()).rejects.toMatchObject({ errorClass: 'retryable' });
    await ledger.admin('UPDATE mayfly.pooled SET handle = $1', [live.ref.handle]);
    await end(live);
  });

  test('a membership given meanwhile keeps the role from being called contained, or is taken away', async () => {
    const live = await mintNext();
    await ledger.admin(`GRANT pg_read_all_data TO ${role}`);
    const [fenced] = await ledger.session.fence([live.ref], soon());
    // Since 16 only its grantor may take it away.
    expect(fenced?.ok).toBe(version < 16);
    expect(await ledger.session.verify([live.ref], soon())).toMatchObject([{ contained: version < 16 }]);
    await ledger.admin(`REVOKE pg_read_all_data FROM ${role}`);
    await end(live);
  });

  test('a login held open in the middle of its password proof does not become the next tenant', async () => {
    const first = await mintNext();
    const finish = await halfALogin(server.port, first.minted.secret.reveal());
    await end(first);
    // Without the rest this would be the second tenant's role, with a login, while the first one's proof is still good.
    await expect(ledger.mint()).rejects.toMatchObject({
      errorClass: 'retryable',
      message: expect.stringMatching(/free/),
    });
    const second = await mintSoon(20_000);
    expect(await finish()).not.toBe('let in');
    await end(second);
  });

  test.runIf(version >= 18)('since 18, where logins under way show, the role is lent again at once', async () => {
    await end(await mintNext());
    // A login of somebody else may be under way for a moment.
    const again = await mintSoon(3000);
    expect(await ledger.session.verify([again.ref], soon())).toMatchObject([{ contained: false }]);
    await end(again);
  });

  test.runIf(version < 18)('before 18 the role is lent again only after authentication_timeout', async () => {
    await end(await mintNext());
    await expect(ledger.mint()).rejects.toMatchObject({ errorClass: 'retryable' });
  });

  test('the same proof would be let in if the role did not rest', async () => {
    const first = await mintNext();
    const finish = await halfALogin(server.port, first.minted.secret.reveal());
    await end(first);
    const second = await mintNext();
    expect(await finish()).toBe('let in');
    await end(second);
  });

  test('the role is not given back while a login of its tenant sleeps, wakes, or has woken', async () => {
    const live = await mintNext();
    const waking = ledger.login(live.minted, '-c post_auth_delay=1');
    const sleeper = { awake: false };
    const woken = waking.then(() => {
      sleeper.awake = true;
    });
    await expect.poll(() => ledger.admin('SELECT unnest(mayfly.asleep()) AS pid')).toHaveLength(1);
    // Only the cut of a fence: no session is ended.
    const cut = `SELECT outcome FROM mayfly.fence($1, $2, $3, ARRAY[now()], 20, false)`;
    const { handle, facts } = live.ref;
    const { rows } = await (await ledger.stolenLogin()).query(cut, [ledger.installation, [handle], [facts?.['oid']]]);
    expect(rows).toEqual([{ outcome: 'fenced' }]);
    while (!sleeper.awake) {
      expect(await ledger.session.reap([live.ref], soon())).toMatchObject([
        { ok: false, error: { errorClass: 'retryable' } },
      ]);
    }
    await woken;
    expect(await ledger.session.reap([live.ref], soon())).toMatchObject([{ ok: false }]);
    const agent = await waking;
    expect(await sqlState(agent.query('SELECT 1'))).toBe('none');
    await end(live);
    expect(await sqlState(agent.query('SELECT 1'))).not.toBe('none');
  });

  test('a registry that forgot who has the role is never taken for an end', async () => {
    const live = await mintNext();
    const agent = await ledger.login(live.minted);
    await ledger.admin('DELETE FROM mayfly.handle');
    await ledger.admin('UPDATE mayfly.pooled SET handle = NULL');
    expect(await ledger.session.verify([live.ref], soon())).toMatchObject([{ contained: false }]);
    await end(live);
    expect(await sqlState(agent.query('SELECT 1'))).not.toBe('none');

    const next = await mintNext();
    await ledger.admin('DELETE FROM mayfly.handle');
    const [row] = await ledger.admin('DELETE FROM mayfly.pooled RETURNING role_oid, template');
    const misconfigured = [{ ok: false, error: { errorClass: 'misconfigured' } }];
    for (const step of ['fence', 'verify', 'reap'] as const) {
      expect([step, await ledger.session[step]([next.ref], soon())]).toMatchObject([step, misconfigured]);
    }
    await ledger.admin('INSERT INTO mayfly.pooled (role_oid, template) VALUES ($1, $2)', Object.values(row ?? {}));
    await end(next);
  });

  test('an empty pool refuses, and says so', async () => {
    const live = await mintNext();
    await expect(ledger.mint()).rejects.toMatchObject({
      errorClass: 'retryable',
      message: expect.stringMatching(/free/),
    });
    const steps = await ledger.session.check({ name: 'x', config: ledger.entitlement }, soon());
    expect(steps).toContainEqual(expect.objectContaining({ step: 'pool', ok: false }));
    await end(live);
  });
});
