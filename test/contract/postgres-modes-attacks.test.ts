import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { scramVerifier } from '../../providers/postgres/scram.ts';
import { Secret } from '../../src/provider.ts';
import { wantedModes } from '../support/contract-modes.ts';
import { availableVersions, type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { type Ledger, makeLedger, soon, sqlState } from './postgres-fixture.ts';

const cases = availableVersions().flatMap((version) =>
  wantedModes(['createrole', 'pool']).map((mode) => ({ version, mode })),
);

/** The attacks of `postgres-attacks.test.ts` and those of `postgres-life.test.ts`, where no superuser stands behind the functions. */
describe.each(cases)('mode $mode on PostgreSQL $version: what would outlive an ending', ({ version, mode }) => {
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

  const mintFunction = mode === 'pool' ? 'mint_pooled' : 'mint';
  const gone = [{ ok: true, contained: true, clean: true }];

  async function sqlOfMint(ref: { handle: string; grantId: string }): Promise<[string, unknown[]]> {
    const text = `SELECT mayfly.${mintFunction}($1, $2, $3, $4, $5, now() + interval '5 min', now() + interval '5 min', now() + interval '1 min', 3)`;
    const verifier = await scramVerifier('known', 4096);
    return [text, [ledger.installation, ref.handle, ref.grantId, ledger.entitlement.template, verifier]];
  }

  describe('a mint that its own end overtook', () => {
    test('runs into the tombstone', async () => {
      const ref = ledger.ref();
      expect(await ledger.session.verify([ref], soon())).toMatchObject([{ ok: true, contained: false }]);
      expect(await ledger.session.fence([ref], soon())).toMatchObject([{ ok: true, evidence: { login: 'absent' } }]);
      await expect(ledger.session.mint(ref, ledger.request(ref), soon())).rejects.toMatchObject({ errorClass: 'gone' });
      expect(await ledger.session.verify([ref], soon())).toMatchObject(gone);
    });

    test.each(['COMMIT', 'ROLLBACK', 'a crash'])('is waited for while it is in flight, then %s', async (ending) => {
      const ref = ledger.ref();
      const slow = await ledger.stolenLogin();
      await slow.query('BEGIN');
      await slow.query(...(await sqlOfMint(ref)));
      const fencing = ledger.session.fence([ref], soon());
      await expect
        .poll(() => ledger.admin(`SELECT FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'`))
        .toHaveLength(1);
      if (ending === 'a crash') {
        await ledger.admin(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'agent'
          AND usename = 'broker_ledger' AND state = 'idle in transaction'`);
      } else {
        await slow.query(ending);
      }
      expect(await fencing).toMatchObject([{ ok: true, evidence: { login: ending === 'COMMIT' ? 'cut' : 'absent' } }]);
      expect(await ledger.session.verify([ref], soon())).toMatchObject([{ ok: true, contained: true }]);
      await ledger.session.reap([ref], soon());
      expect(await ledger.session.verify([ref], soon())).toMatchObject(gone);
    });

    test('is refused after mint_by, by the clock of the target, and cannot be done twice', async () => {
      const late = ledger.ref();
      const request = ledger.request(late, { mintBy: new Date(Date.now() - 1) });
      await expect(ledger.session.mint(late, request, soon())).rejects.toMatchObject({
        message: expect.stringMatching(/too late/),
      });
      const { ref } = await ledger.mint();
      await expect(ledger.session.mint(ref, ledger.request(ref), soon())).rejects.toMatchObject({ errorClass: 'gone' });
      await ledger.session.fence([ref], soon());
      await ledger.session.reap([ref], soon());
      await expect(ledger.session.mint(ref, ledger.request(ref), soon())).rejects.toMatchObject({ errorClass: 'gone' });
    });
  });

  test('logins that race the end do not survive it', async () => {
    for (let round = 0; round < 5; round += 1) {
      const { ref, minted } = await ledger.mint();
      const racing = Array.from({ length: 4 }, () => ledger.login(minted).catch(() => null));
      expect(await ledger.session.fence([ref], soon())).toMatchObject([{ ok: true }]);
      for (const agent of await Promise.all(racing)) {
        expect(agent === null ? 'refused' : await sqlState(agent.query('SELECT 1'))).not.toBe('none');
      }
      expect(await ledger.session.verify([ref], soon())).toMatchObject([{ ok: true, contained: true }]);
    }
  });

  test('an open cursor returns no more rows, and SET ROLE to the template helps nobody', async () => {
    const { ref, minted } = await ledger.mint();
    const [agent, other] = [await ledger.login(minted), await ledger.login(minted)];
    await agent.query('BEGIN');
    await agent.query('DECLARE c CURSOR FOR SELECT * FROM billing.invoices');
    expect((await agent.query('FETCH 10 FROM c')).rowCount).toBe(10);
    expect(await sqlState(other.query('SET ROLE mayfly_t_ledger'))).toBe(version >= 16 ? '42501' : 'none');
    expect(await ledger.session.fence([ref], soon())).toMatchObject([{ ok: true, evidence: { sessions_ended: 2 } }]);
    expect(await sqlState(agent.query('FETCH 10 FROM c'))).not.toBe('none');
    expect(await sqlState(other.query('SELECT * FROM billing.invoices LIMIT 1'))).not.toBe('none');
  });

  test('an agent that holds the row of its own role is ended, and neither neighbours nor mints wait for it', async () => {
    const locker = await ledger.mint();
    const neighbour = await ledger.mint();
    const [first, second, bystander] = await Promise.all([
      ledger.login(locker.minted),
      ledger.login(locker.minted),
      ledger.login(neighbour.minted),
    ]);
    await first.query('BEGIN');
    await first.query(`ALTER ROLE current_user PASSWORD 'mine'`);
    await second.query('BEGIN');
    const queued = sqlState(second.query(`ALTER ROLE current_user PASSWORD 'mine too'`));
    await expect.poll(() => ledger.admin('SELECT FROM pg_locks WHERE NOT granted')).not.toHaveLength(0);
    const { ref: minting } = await ledger.mint();
    expect(await sqlState(first.query('SELECT 1'))).toBe('none');
    const refs = [locker.ref, neighbour.ref, minting];
    expect(await ledger.session.fence(refs, soon())).toMatchObject([{ ok: true }, { ok: true }, { ok: true }]);
    await queued;
    for (const client of [first, second, bystander]) {
      expect(await sqlState(client.query('COMMIT'))).not.toBe('none');
    }
    expect(await ledger.session.verify(refs, soon())).toMatchObject(refs.map(() => ({ contained: true })));
  });

  test('when a person holds its row, the neighbours are ended at once and that one is tried again', async () => {
    const held = await ledger.mint();
    const neighbour = await ledger.mint();
    const bystander = await ledger.login(neighbour.minted);
    await ledger.admin('BEGIN');
    await ledger.admin(`ALTER ROLE ${String(held.minted.secret.reveal()['username'])} CONNECTION LIMIT 7`);
    const fencing = ledger.session.fence([held.ref, neighbour.ref], soon());
    await expect.poll(() => sqlState(bystander.query('SELECT 1')), { interval: 5 }).not.toBe('none');
    expect(await fencing).toMatchObject([{ ok: false, error: { errorClass: 'retryable' } }, { ok: true }]);
    await ledger.admin('COMMIT');
    expect(await ledger.session.fence([held.ref], soon())).toMatchObject([{ ok: true }]);
  });

  test('when the change of its row is committed under our feet, it is cut all the same, in the same call', async () => {
    const { ref, minted } = await ledger.mint();
    await ledger.admin('BEGIN');
    await ledger.admin(`ALTER ROLE ${String(minted.secret.reveal()['username'])} CONNECTION LIMIT 7`);
    const fencing = ledger.session.fence([ref], soon());
    await expect
      .poll(() => ledger.admin('SELECT FROM pg_locks WHERE NOT granted'), { interval: 2 })
      .not.toHaveLength(0);
    await ledger.admin('COMMIT');
    expect(await fencing).toMatchObject([{ ok: true, evidence: { login: 'cut' } }]);
    expect(await ledger.session.verify([ref], soon())).toMatchObject([{ contained: true }]);
  });

  describe('a login asleep before it shows its user', () => {
    const asleep = (): Promise<readonly Record<string, unknown>[]> =>
      ledger.admin('SELECT unnest(mayfly.asleep()) AS pid');

    test('is seen, ended, and does not wake up inside', async () => {
      const { ref, minted } = await ledger.mint();
      const role = version === 15 ? ' -c role=mayfly_t_ledger' : '';
      const sleeper = ledger.login(minted, `-c post_auth_delay=20${role}`).then(
        (client) => sqlState(client.query('SELECT * FROM billing.invoices LIMIT 1')),
        () => 'refused',
      );
      await expect.poll(asleep).toHaveLength(1);
      expect(await ledger.session.verify([ref], soon())).toMatchObject([{ contained: false }]);
      expect(await ledger.session.fence([ref], soon())).toMatchObject([{ ok: true }]);
      expect(await ledger.session.verify([ref], soon())).toMatchObject([{ contained: true }]);
      expect(await sleeper).not.toBe('none');
    });

    test("that is a superuser's cannot be ended, is none of ours, and stops no fence", async () => {
      const { ref } = await ledger.mint();
      const url = new URL(server.superuserUrl('ledger'));
      const login = { username: 'postgres', password: url.password, host: '127.0.0.1', port: server.port };
      const { minted } = await ledger.mint();
      const secret = new Secret({ ...minted.secret.reveal(), ...login });
      const sleeper = ledger.login({ ...minted, secret }, '-c post_auth_delay=20');
      sleeper.catch(() => {});
      await expect.poll(asleep).toHaveLength(1);
      expect(await ledger.session.fence([ref], soon())).toMatchObject([{ ok: true }]);
      expect(await asleep()).toHaveLength(1);
      await ledger.admin('SELECT pg_terminate_backend(p) FROM unnest(mayfly.asleep()) p');
      await expect.poll(asleep).toHaveLength(0);
      expect(await ledger.session.verify([ref], soon())).toMatchObject([{ contained: true }]);
    });
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

  test('a renamed role is found by its OID, and is not called gone', async () => {
    const { ref, minted } = await ledger.mint();
    const agent = await ledger.login(minted);
    const name = String(minted.secret.reveal()['username']);
    await ledger.admin(`ALTER ROLE ${name} RENAME TO innocent`);
    expect(await ledger.session.verify([ref], soon())).toMatchObject([{ ok: true, contained: false }]);
    expect(await ledger.session.fence([ref], soon())).toMatchObject([{ ok: true, evidence: { login: 'cut' } }]);
    expect(await sqlState(agent.query('SELECT 1'))).not.toBe('none');
    expect(await ledger.session.reap([ref], soon())).toMatchObject([{ ok: true }]);
    const left = await ledger.admin(`SELECT FROM pg_roles WHERE rolname = 'innocent'`);
    expect(left).toHaveLength(mode === 'pool' ? 1 : 0);
    if (mode === 'pool') {
      await ledger.admin(`ALTER ROLE innocent RENAME TO ${name}`);
    }
  });

  test('a role dropped by somebody else leaves sessions, which are found by OID and ended', async () => {
    const { ref, minted } = await ledger.mint();
    const agent = await ledger.login(minted);
    await ledger.admin(`DROP ROLE ${String(minted.secret.reveal()['username'])}`);
    await agent.query('SELECT 1');
    expect(await ledger.session.verify([ref], soon())).toMatchObject([{ ok: true, contained: false }]);
    expect(await ledger.session.fence([{ ...ref, facts: null }], soon())).toMatchObject([
      { ok: true, evidence: { sessions_ended: 1 } },
    ]);
    expect(await sqlState(agent.query('SELECT 1'))).not.toBe('none');
    expect(await ledger.session.reap([ref], soon())).toMatchObject([{ ok: true }]);
    expect(await ledger.session.verify([ref], soon())).toMatchObject(gone);
  });

  describe('what the role owns', () => {
    test('in this database is dropped with it; behind a lock it does not hold up its neighbours', async () => {
      const { ref, minted } = await ledger.mint();
      const { ref: neighbour } = await ledger.mint();
      const name = String(minted.secret.reveal()['username']);
      await ledger.admin(`GRANT CREATE ON SCHEMA billing TO ${name}`);
      const agent = await ledger.login(minted);
      await agent.query('CREATE TABLE billing.loot AS SELECT * FROM billing.invoices');
      await agent.query('SELECT lo_create(0)');
      await ledger.admin(`REVOKE CREATE ON SCHEMA billing FROM ${name}`);
      await ledger.session.fence([ref, neighbour], soon());
      await ledger.admin('BEGIN');
      await ledger.admin('LOCK TABLE billing.loot');
      expect(await ledger.session.reap([ref, neighbour], soon())).toMatchObject([
        { ok: false, error: { errorClass: 'retryable' } },
        { ok: true },
      ]);
      await ledger.admin('COMMIT');
      expect(await ledger.session.reap([ref], soon())).toMatchObject([{ ok: true }]);
      expect(await ledger.admin(`SELECT FROM pg_class WHERE relname = 'loot'`)).toEqual([]);
      expect(await ledger.admin(`SELECT FROM pg_largeobject_metadata`)).toEqual([]);
      expect(await ledger.session.verify([ref], soon())).toMatchObject(gone);
    });

    test('in another database is reported, contained and not called clean', async () => {
      const { ref, minted } = await ledger.mint();
      const name = `elsewhere_${version}_${mode}`;
      await server.createDatabase(name);
      await ledger.admin(`ALTER DATABASE ${name} OWNER TO ${String(minted.secret.reveal()['username'])}`);
      await ledger.session.fence([ref], soon());
      expect(await ledger.session.reap([ref], soon())).toMatchObject([{ ok: false }]);
      expect(await ledger.session.verify([ref], soon())).toMatchObject([{ contained: true, clean: false }]);
      await server.dropDatabase(name);
      expect(await ledger.session.reap([ref], soon())).toMatchObject([{ ok: true }]);
      expect(await ledger.session.verify([ref], soon())).toMatchObject(gone);
    });
  });
});
