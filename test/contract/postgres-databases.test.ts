import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { prepare, provider } from '../../providers/postgres/index.ts';
import { availableVersions, type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { entitlementName, type Ledger, type Live, makeLedger, soon } from './postgres-fixture.ts';

/** What a role owns or was given in the other databases of the cluster. */
describe.each(availableVersions())('other databases of the cluster on PostgreSQL %i', (version) => {
  let server: PostgresServer;
  let ledger: Ledger;
  let clients: pg.Client[];
  beforeAll(async () => {
    clients = [];
    server = await startPostgres({ version });
    ledger = await makeLedger(server, 'ledger');
    await server.createDatabase('listed');
    await server.createDatabase('unlisted');
    const config = { ...ledger.config, databases: ['listed'] };
    const entitlements = [{ name: entitlementName, maxTtlSeconds: 900, config: ledger.entitlement }];
    const { password } = ledger;
    await prepare(server.superuserUrl('ledger'), config, entitlements, ledger.installation, { password });
  });
  afterAll(async () => {
    await Promise.all(clients?.map((client) => client.end().catch(() => {})) ?? []);
    await ledger?.close();
    await server?.stop();
  });

  async function as(live: Live, database: string): Promise<pg.Client> {
    const { username, password } = live.minted.secret.reveal();
    return open({ user: String(username), password: String(password), database });
  }
  async function open(login: { user?: string; password?: string; database: string }): Promise<pg.Client> {
    const { user = 'postgres', password = server.password, database } = login;
    const client = new pg.Client({ host: '127.0.0.1', port: server.port, user, password, database, ssl: false });
    client.on('error', () => {});
    await client.connect();
    clients.push(client);
    return client;
  }
  /** Ends it whole. @returns the outcome of reap and the verdict after it. */
  async function end({ ref }: Live, session = ledger.session): Promise<readonly unknown[]> {
    expect(await session.fence([ref], soon())).toMatchObject([{ ok: true }]);
    expect(await session.verify([ref], soon())).toMatchObject([{ ok: true, contained: true, clean: false }]);
    const [reaped] = await session.reap([ref], soon());
    const [verdict] = await session.verify([ref], soon());
    return [reaped, verdict];
  }

  test('a database that is listed is cleaned, one that is not is told by name', async () => {
    const live = await ledger.mint();
    const inListed = await as(live, 'listed');
    await inListed.query('SELECT lo_create(0); ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC');
    const dba = await open({ database: 'listed' });
    await dba.query(`CREATE TABLE public.gift (a int); ALTER TABLE public.gift OWNER TO ${live.ref.handle}`);
    await (await as(live, 'unlisted')).query('SELECT lo_create(0)');
    const session = ledger.connect({ databases: ['listed'] });
    const [reaped, verdict] = await end(live, session);
    expect(reaped).toMatchObject({
      ok: false,
      error: { errorClass: 'misconfigured', message: expect.stringMatching(/does not list: unlisted$/) },
    });
    expect(verdict).toMatchObject({ contained: true, clean: false });
    expect((await dba.query(`SELECT FROM pg_class WHERE relname = 'gift'`)).rowCount).toBe(0);
    expect((await dba.query('SELECT FROM pg_largeobject_metadata')).rowCount).toBe(0);
    await (await open({ database: 'unlisted' })).query('SELECT lo_unlink(oid) FROM pg_largeobject_metadata');
    expect(await session.reap([live.ref], soon())).toMatchObject([{ ok: true }]);
    expect(await session.verify([live.ref], soon())).toMatchObject([{ clean: true }]);
  });

  test('the function in another database touches no role but an ended one of ours, for nobody else', async () => {
    const dba = await open({ database: 'listed' });
    const [cluster] = await ledger.admin('SELECT system_identifier::text AS id FROM pg_control_system()');
    const live = await ledger.mint();
    const ended = await ledger.mint();
    await ledger.session.fence([ended.ref], soon());
    await dba.query(
      'CREATE ROLE innocent; CREATE TABLE public.kept (a int); ALTER TABLE public.kept OWNER TO innocent',
    );
    const innocent = (
      await dba.query<{ oid: number }>(`SELECT oid::bigint::int FROM pg_roles WHERE rolname = 'innocent'`)
    ).rows[0]?.oid;
    const broker = await open({ user: ledger.config.user, password: ledger.password.reveal(), database: 'listed' });
    const disown = async (changes: {
      installation?: string;
      system?: unknown;
      handle: string;
      oid: unknown;
    }): Promise<unknown> => {
      const { installation = ledger.installation, system = cluster?.['id'], handle, oid } = changes;
      try {
        const { rows } = await broker.query<{ answer: { outcome: string } }>(
          `SELECT mayfly.disown($1, $2, $3, $4, 'objects', false, 0, 10, 100) AS answer`,
          [installation, system, handle, oid],
        );
        return rows[0]?.answer.outcome;
      } catch (error) {
        return error instanceof pg.DatabaseError ? error.code : error;
      }
    };
    expect(await disown({ handle: live.ref.handle, oid: live.ref.facts?.['oid'] })).toBe('live');
    expect(await disown({ handle: live.ref.handle, oid: innocent })).toBe('foreign');
    expect(await disown({ handle: live.ref.handle, oid: ended.ref.facts?.['oid'] })).toBe('foreign');
    expect(await disown({ handle: ended.ref.handle, oid: ended.ref.facts?.['oid'] })).toBe('done');
    expect(await disown({ handle: ended.ref.handle, oid: ended.ref.facts?.['oid'], system: '7' })).toBe('MF001');
    expect(
      await disown({ handle: ended.ref.handle, oid: ended.ref.facts?.['oid'], installation: live.ref.grantId }),
    ).toBe('MF001');
    const agent = await as(live, 'listed');
    await expect(
      agent.query(`SELECT mayfly.disown(NULL, NULL, NULL, 0, 'rest', false, 0, 1, 1)`),
    ).rejects.toMatchObject({ code: '42501' });
    await expect(broker.query(`SELECT mayfly.disown_rest(${String(innocent)}, false)`)).rejects.toMatchObject({
      code: '42501',
    });
    expect((await dba.query(`SELECT FROM pg_class WHERE relname = 'kept'`)).rowCount).toBe(1);
    await ledger.session.fence([live.ref], soon());
  });

  test('what prepare prints has a part for each, for psql, and is complete', async () => {
    const config = { ...ledger.config, databases: ['listed', 'unlisted'] };
    const printed = (await provider.preparation?.script(config, [], ledger.installation, null)) ?? '';
    const [, ...parts] = printed.split(/^\\connect /m);
    expect(parts.map((part) => part.split('\n', 1)[0])).toEqual(['"listed"', '"unlisted"']);
    const dba = await open({ database: 'listed' });
    await dba.query(parts[0]?.replace('"listed"', '') ?? '');
    await expect(dba.query(parts[1]?.replace('"unlisted"', '') ?? '')).rejects.toThrow(
      /this is for the database unlisted/,
    );
    await dba.query('ROLLBACK');
  });

  test('what an entitlement keeps is kept there too', async () => {
    const config = { ...ledger.config, databases: ['listed'] };
    const kept = {
      name: entitlementName,
      maxTtlSeconds: 900,
      config: ledger.entitlement,
      onOwnedObjects: 'keep' as const,
    };
    const { password } = ledger;
    await prepare(server.superuserUrl('ledger'), config, [kept], ledger.installation, { password });
    const live = await ledger.mint();
    const dba = await open({ database: 'listed' });
    await dba.query(`CREATE TABLE public.left (a int); ALTER TABLE public.left OWNER TO ${live.ref.handle}`);
    expect(await end(live, ledger.connect({ databases: ['listed'] }))).toMatchObject([{ ok: true }, { clean: true }]);
    expect(
      (await dba.query(`SELECT relowner::regrole::text AS owner FROM pg_class WHERE relname = 'left'`)).rows,
    ).toEqual([{ owner: `mayfly_q_${ledger.installation.slice(0, 8)}` }]);
    await prepare(server.superuserUrl('ledger'), config, [{ ...kept, onOwnedObjects: 'drop' }], ledger.installation, {
      password,
    });
  });

  test('check warns of databases that everybody may enter, and fails where a listed one is not prepared', async () => {
    const step = async (databases: string[], name: string): Promise<unknown> =>
      (await ledger.connect({ databases }).check(null, soon())).filter((each) => each.step === name);
    expect(await step([], 'databases')).toMatchObject([
      { ok: true, warns: true, says: expect.stringMatching(/PUBLIC may enter .*listed.*unlisted/) },
    ]);
    expect(await step(['listed', 'unlisted'], 'database')).toMatchObject([
      { ok: true },
      { ok: false, says: expect.stringMatching(/unlisted: .*not prepared/) },
    ]);
    await ledger.admin('GRANT CREATE ON DATABASE unlisted TO PUBLIC');
    expect(await step(['listed'], 'databases')).toMatchObject([
      { ok: false, says: expect.stringMatching(/may create schemas .*: unlisted$/) },
    ]);
    await ledger.admin('REVOKE CREATE ON DATABASE unlisted FROM PUBLIC');
  });
});
