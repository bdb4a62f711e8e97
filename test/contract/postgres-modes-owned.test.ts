import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { prepare, provider } from '../../providers/postgres/index.ts';
import type { PostgresTarget } from '../../providers/postgres/schema.ts';
import { wantedModes } from '../support/contract-modes.ts';
import { availableVersions, type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { entitlementName, type Ledger, type Live, makeLedger, soon, sqlState } from './postgres-fixture.ts';

const cases = availableVersions().flatMap((version) =>
  wantedModes(['createrole', 'pool']).map((mode) => ({ version, mode })),
);

/** What a tenant owns at its end, where no superuser stands behind the functions. Here it may create, which no prepared template may. */
describe.each(cases)('mode $mode on PostgreSQL $version: what a role owns at its end', ({ version, mode }) => {
  let server: PostgresServer;
  let ledger: Ledger;
  let config: PostgresTarget;
  let session: Ledger['session'];
  let clients: pg.Client[];
  beforeAll(async () => {
    clients = [];
    server = await startPostgres({ version });
    // With a pool of two, of which one serves as accomplice, each tenant follows the one before.
    ledger = await makeLedger(server, 'ledger', { managed: { mode, poolSize: 2 } });
    for (const name of ['listed', 'unlisted']) {
      await server.createDatabase(name);
      await ledger.admin(`ALTER DATABASE ${name} OWNER TO dba`);
    }
    config = { ...ledger.config, databases: ['listed'] };
    await apply();
    session = ledger.connect({ databases: ['listed'] });
  });
  afterAll(async () => {
    await Promise.all(clients?.map((client) => client.end().catch(() => {})) ?? []);
    await ledger?.close();
    await server?.stop();
  });

  function apply(onOwnedObjects: 'drop' | 'keep' = 'drop'): Promise<void> {
    const url = new URL(server.superuserUrl('ledger'));
    url.username = 'dba';
    const entitlements = [{ name: entitlementName, maxTtlSeconds: 900, config: ledger.entitlement, onOwnedObjects }];
    return prepare(url.toString(), config, entitlements, ledger.installation, { password: ledger.password });
  }
  async function open(database: string, user = 'postgres', password = server.password): Promise<pg.Client> {
    const client = new pg.Client({ host: '127.0.0.1', port: server.port, user, password, database, ssl: false });
    client.on('error', () => {});
    await client.connect();
    clients.push(client);
    return client;
  }
  const nameOf = ({ minted }: Live): string => String(minted.secret.reveal()['username']);
  const as = (live: Live, database: string): Promise<pg.Client> =>
    open(database, nameOf(live), String(live.minted.secret.reveal()['password']));
  async function mint(): Promise<Live> {
    if (mode === 'pool') await ledger.admin(`UPDATE mayfly.pooled SET free_at = '-infinity'`);
    return ledger.mint();
  }
  async function create(live: Live, ...statements: readonly string[]): Promise<pg.Client> {
    await ledger.admin(`GRANT CREATE ON SCHEMA billing TO ${nameOf(live)}`);
    const agent = await ledger.login(live.minted);
    for (const statement of statements) await agent.query(statement);
    // What a person gave, only that person takes away.
    await ledger.admin(`REVOKE CREATE ON SCHEMA billing FROM ${nameOf(live)}`);
    return agent;
  }
  async function end({ ref }: Live): Promise<readonly unknown[]> {
    expect(await session.fence([ref], soon())).toMatchObject([{ ok: true }]);
    expect(await session.verify([ref], soon())).toMatchObject([{ ok: true, contained: true, clean: false }]);
    const [reaped] = await session.reap([ref], soon());
    const [verdict] = await session.verify([ref], soon());
    return [reaped, verdict];
  }
  const clean = [{ ok: true }, { contained: true, clean: true }];

  test('is gone before the next tenant, here and in another listed database', async () => {
    const live = await mint();
    await create(
      live,
      'CREATE TABLE billing.loot (id serial PRIMARY KEY)',
      'CREATE VIEW billing.peek AS SELECT * FROM billing.loot',
      'CREATE FUNCTION billing.trap() RETURNS int LANGUAGE sql SECURITY DEFINER RETURN 1',
      "CREATE TYPE billing.mood AS ENUM ('a')",
      'ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC',
      'SELECT lo_create(0)',
    );
    const dba = await open('listed');
    await dba.query(`GRANT CREATE ON SCHEMA public TO ${nameOf(live)}`);
    const afar = await as(live, 'listed');
    await afar.query('CREATE TABLE public.loot (id int)');
    await afar.query('CREATE FUNCTION public.trap() RETURNS int LANGUAGE sql SECURITY DEFINER RETURN 1');
    await afar.query('SELECT lo_create(0); ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC');
    await dba.query(`REVOKE CREATE ON SCHEMA public FROM ${nameOf(live)}`);
    expect(await end(live)).toMatchObject(clean);
    for (const nothing of [
      `SELECT FROM pg_class WHERE relname IN ('loot', 'peek')`,
      `SELECT FROM pg_proc WHERE proname = 'trap'`,
      `SELECT FROM pg_type WHERE typname = 'mood'`,
      'SELECT FROM pg_largeobject_metadata',
      'SELECT FROM pg_default_acl',
    ]) {
      expect([nothing, await ledger.admin(nothing)]).toEqual([nothing, []]);
      expect([nothing, (await dba.query(nothing)).rowCount]).toEqual([nothing, 0]);
    }
    // Nor does the owner of the functions keep the rights of the role.
    expect(
      await ledger.admin(
        `SELECT FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid
         WHERE m.member = 'owner_ledger'::regrole AND r.oid = $1 AND pg_has_role(m.member, m.roleid, 'USAGE')`,
        [live.ref.facts?.['oid']],
      ),
    ).toEqual([]);
    const next = await mint();
    const agent = await ledger.login(next.minted);
    expect(await sqlState(agent.query('SELECT * FROM billing.invoices LIMIT 1'))).toBe('none');
    expect(await end(next)).toMatchObject(clean);
  });

  test('in a database that is not listed is told by name, and the role is not lent or called clean', async () => {
    const live = await mint();
    await (await as(live, 'unlisted')).query('SELECT lo_create(0)');
    const [reaped, verdict] = await end(live);
    expect(reaped).toMatchObject({ ok: false, error: { message: expect.stringMatching(/does not list: unlisted$/) } });
    expect(verdict).toMatchObject({ contained: true, clean: false });
    await (await open('unlisted')).query('SELECT lo_unlink(oid) FROM pg_largeobject_metadata');
    expect(await session.reap([live.ref], soon())).toMatchObject([{ ok: true }]);
    expect(await session.verify([live.ref], soon())).toMatchObject([{ clean: true }]);
  });

  test('and needs more locks than there are is removed, in bounded transactions', async () => {
    const live = await mint();
    const agent = await ledger.login(live.minted);
    for (let made = 0; made < 12_500; made += 2500) {
      await agent.query('SELECT count(lo_create(0)) FROM generate_series(1, 2500)');
    }
    await session.fence([live.ref], soon());
    await expect
      .poll(async () => (await session.reap([live.ref], soon())).map(({ ok }) => ok), { timeout: 60_000 })
      .toEqual([true]);
    expect(await ledger.admin('SELECT FROM pg_largeobject_metadata')).toEqual([]);
  });

  test('and somebody else needs stays, and the rest goes', async () => {
    const live = await mint();
    await create(live, 'CREATE TABLE billing.wanted (a int)', 'SELECT lo_create(0)');
    await ledger.admin('CREATE VIEW billing.report AS SELECT * FROM billing.wanted');
    const [reaped, verdict] = await end(live);
    expect(reaped).toMatchObject({ ok: false, error: { message: expect.stringMatching(/needed by/) } });
    expect(verdict).toMatchObject({ contained: true, clean: false });
    expect(await ledger.admin(`SELECT FROM pg_class WHERE relname IN ('wanted', 'report')`)).toHaveLength(2);
    expect(await ledger.admin('SELECT FROM pg_largeobject_metadata')).toEqual([]);
    await ledger.admin('DROP VIEW billing.report');
    expect(await session.reap([live.ref], soon())).toMatchObject([{ ok: true }]);
    expect(await session.verify([live.ref], soon())).toMatchObject([{ clean: true }]);
  });

  test('a function of it has no rights any more once it is contained, whoever calls it', async () => {
    const [live, other] = [await mint(), await mint()];
    const count = 'SELECT count(*)::int AS n FROM billing.invoices';
    await create(
      live,
      `CREATE FUNCTION billing.lent() RETURNS int LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN (${count}); END'`,
    );
    // Whom nobody lets at the invoices.
    await ledger.admin(`DO $$ BEGIN CREATE ROLE nobody LOGIN PASSWORD '${server.password}';
      EXCEPTION WHEN duplicate_object THEN NULL; END $$; GRANT USAGE ON SCHEMA billing TO nobody`);
    const stranger = await open('ledger', 'nobody');
    expect((await stranger.query('SELECT billing.lent() AS n')).rows).toEqual([{ n: 5000 }]);
    await session.fence([live.ref], soon());
    expect(await session.verify([live.ref], soon())).toMatchObject([{ contained: true }]);
    expect(await sqlState(stranger.query('SELECT billing.lent()'))).toBe('42501');
    // What becomes a role's own only after its end is noticed, where it still has the template.
    await ledger.admin(`CREATE SCHEMA lair AUTHORIZATION ${nameOf(other)}`);
    await session.fence([other.ref], soon());
    expect(await session.verify([other.ref], soon())).toMatchObject([{ contained: true }]);
    await ledger.admin(`ALTER FUNCTION billing.lent() OWNER TO ${nameOf(other)}`);
    expect(await session.verify([other.ref], soon())).toMatchObject([{ contained: mode === 'createrole' }]);
    expect(await session.reap([live.ref], soon())).toMatchObject([{ ok: true }]);
    await ledger.admin('REVOKE USAGE ON SCHEMA billing FROM nobody');
    // And a role of the pool may read again when it is lent again.
    const next = await mint();
    expect((await (await ledger.login(next.minted)).query(count)).rows).toEqual([{ n: 5000 }]);
    expect(await end(next)).toMatchObject(clean);
    expect(await end(other)).toMatchObject(clean);
  });

  test.runIf(mode === 'pool')('a role is not lent anew while something for its last tenant is under way', async () => {
    const live = await mint();
    await session.fence([live.ref], soon());
    const late = await ledger.stolenLogin();
    await late.query('BEGIN');
    const { handle, facts } = live.ref;
    await late.query('SELECT mayfly.holdings($1, $2, $3, NULL)', [ledger.installation, handle, facts?.['oid']]);
    expect(await session.reap([live.ref], soon())).toMatchObject([{ ok: false, error: { errorClass: 'retryable' } }]);
    await late.query('COMMIT');
    expect(await session.reap([live.ref], soon())).toMatchObject([{ ok: true }]);
  });

  test('work of another grant inside its function is ended', async () => {
    const [live, other] = [await mint(), await mint()];
    await create(
      live,
      `CREATE FUNCTION billing.leak() RETURNS void SECURITY DEFINER LANGUAGE plpgsql AS 'BEGIN LOOP PERFORM count(*) FROM billing.invoices; PERFORM pg_sleep(0.01); END LOOP; END'`,
    );
    const called = sqlState((await ledger.login(other.minted)).query('SELECT billing.leak()'));
    const busy = `SELECT FROM pg_stat_activity WHERE query = 'SELECT billing.leak()' AND state = 'active'`;
    await expect.poll(() => ledger.admin(busy)).toHaveLength(1);
    expect(await session.fence([live.ref], soon())).toMatchObject([{ ok: true }]);
    expect(await called).not.toBe('none');
    expect(await session.verify([live.ref], soon())).toMatchObject([{ contained: true }]);
    expect(await session.reap([live.ref], soon())).toMatchObject([{ ok: true }]);
    expect(await end(other)).toMatchObject(clean);
  });

  test('an agent that fills the lock table is ended; what stands by for that is in no way of the next prepare', async () => {
    const live = await mint();
    const agent = await ledger.login(live.minted);
    const standing = `SELECT FROM pg_stat_activity WHERE application_name = 'mayfly, standing by' AND state = 'idle in transaction'`;
    await expect.poll(() => ledger.admin(standing)).not.toEqual([]);
    await apply();
    const fill = 'SELECT count(pg_advisory_lock(n)) FROM generate_series(1, 100000) n';
    expect(await sqlState(agent.query(fill))).toBe('53200');
    const outcomes = await ledger.session.fence([live.ref], soon());
    expect(outcomes.map((outcome) => (outcome.ok ? 'ok' : outcome.error.message))).toEqual(['ok']);
    expect(await sqlState(agent.query('SELECT 1'))).not.toBe('none');
    expect(await end(live)).toMatchObject(clean);
  });

  test('the function in the other database touches no role but an ended one of ours', async () => {
    const live = await mint();
    const dba = await open('listed');
    const [cluster] = await ledger.admin('SELECT system_identifier::text AS id FROM pg_control_system()');
    await (await as(live, 'listed')).query('SELECT lo_create(0)');
    const [owner] = await ledger.admin(`SELECT oid::bigint::int AS oid FROM pg_roles WHERE rolname = 'owner_ledger'`);
    const broker = await open('listed', config.user, ledger.password.reveal());
    const disown = async (oid: unknown): Promise<unknown> => {
      const text = `SELECT mayfly.disown($1, $2, $3, $4, 'blobs', false, 0, 10, 100) ->> 'outcome' AS outcome`;
      const values = [ledger.installation, cluster?.['id'], live.ref.handle, oid];
      return (await broker.query<{ outcome: string }>(text, values)).rows[0]?.outcome;
    };
    expect(await disown(live.ref.facts?.['oid'])).toBe('live');
    expect(await disown(owner?.['oid'])).toBe('foreign');
    expect(await sqlState(broker.query('SELECT mayfly.join_to_drop(1)'))).toBe('42501');
    expect((await dba.query('SELECT FROM pg_largeobject_metadata')).rowCount).toBe(1);
    expect(await end(live)).toMatchObject(clean);
  });

  test('keeping it is refused, and said so; the script for psql has a part for each database', async () => {
    await expect(apply('keep')).rejects.toMatchObject({
      errorClass: 'misconfigured',
      message: expect.stringMatching(new RegExp(`keep needs the mode definer; this target has the mode ${mode}`)),
    });
    const printed = (await provider.preparation?.script(config, [], ledger.installation, null)) ?? '';
    expect(printed.split(/^\\connect /m)).toHaveLength(2);
    const steps = await session.check(null, soon());
    expect(steps.filter(({ step }) => step === 'database')).toMatchObject([{ ok: true, says: 'listed is prepared' }]);
  });
});
