import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { prepare, prepareSql } from '../../providers/postgres/index.ts';
import type { PostgresTarget } from '../../providers/postgres/schema.ts';
import { availableVersions, type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { entitlementName, type Ledger, makeLedger, soon, sqlState } from './postgres-fixture.ts';

describe.each(availableVersions())('preparing a managed PostgreSQL %i', (version) => {
  let server: PostgresServer;
  let created: Ledger;
  let pooled: Ledger;
  beforeAll(async () => {
    server = await startPostgres({ version });
    created = await makeLedger(server, 'created', { managed: { mode: 'createrole', maxRoles: 3 } });
    pooled = await makeLedger(server, 'pooled', { managed: { mode: 'pool', poolSize: 2 } });
  });
  afterAll(async () => {
    await created?.close();
    await pooled?.close();
    await server?.stop();
  });

  function apply(ledger: Ledger, changes: Partial<PostgresTarget> = {}, poolSize?: number): Promise<void> {
    const url = new URL(server.superuserUrl(ledger.config.database));
    url.username = 'dba';
    const config = { ...ledger.entitlement, ...(poolSize === undefined ? {} : { pool_size: poolSize }) };
    return prepare(
      url.toString(),
      { ...ledger.config, ...changes },
      [{ name: entitlementName, maxTtlSeconds: 900, config }],
      ledger.installation,
      { password: ledger.password },
    );
  }

  test('it can be done again and again; living grants and the broker work on, and a pool may grow', async () => {
    for (const ledger of [created, pooled]) {
      const { ref, minted } = await ledger.mint();
      const agent = await ledger.login(minted);
      await apply(ledger);
      await apply(ledger, {}, 5);
      expect(await sqlState(agent.query('SELECT * FROM billing.invoices LIMIT 1'))).toBe('none');
      expect(await ledger.session.fence([ref], soon())).toMatchObject([{ ok: true }]);
      expect(await ledger.session.reap([ref], soon())).toMatchObject([{ ok: true }]);
    }
    expect(await pooled.admin('SELECT count(*)::int AS size FROM mayfly.pooled')).toEqual([{ size: 5 }]);
  });

  test('a superuser may do it too', async () => {
    const entitlements = [{ name: entitlementName, maxTtlSeconds: 900, config: created.entitlement }];
    const { config, installation, password } = created;
    await prepare(server.superuserUrl('created'), config, entitlements, installation, { password });
    const { ref } = await created.mint();
    await created.session.fence([ref], soon());
    expect(await created.session.reap([ref], soon())).toMatchObject([{ ok: true }]);
    await apply(created);
  });

  test('the administrator is left with no more than it had: it does not use the owner, nor the owner the templates', async () => {
    const using = await created.admin(`SELECT pg_has_role('owner_created', 'mayfly_t_created', 'USAGE') AS reads
      ${version >= 16 ? `, pg_has_role('dba', 'owner_created', 'USAGE') AS acts, pg_has_role('owner_created', 'mayfly_t_created', 'SET') AS becomes` : ''}`);
    expect(Object.values(using[0] ?? {})).toEqual(version >= 16 ? [false, false, false] : [false]);
  });

  test('more minted roles than max_roles are refused, until some are dropped', async () => {
    const lives = [await created.mint(), await created.mint(), await created.mint()];
    await expect(created.mint()).rejects.toMatchObject({
      errorClass: 'retryable',
      message: expect.stringMatching(/at most 3 minted roles/),
    });
    const refs = lives.map(({ ref }) => ref);
    await created.session.fence(refs, soon());
    await expect(created.mint()).rejects.toMatchObject({ errorClass: 'retryable' });
    expect(await created.session.check(null, soon())).toContainEqual(
      expect.objectContaining({ step: 'roles', ok: false }),
    );
    // A tombstone is not a role.
    const never = created.ref();
    expect(await created.session.fence([never], soon())).toMatchObject([{ ok: true }]);
    await created.session.reap(refs, soon());
    const { ref } = await created.mint();
    await created.session.fence([ref], soon());
    await created.session.reap([ref], soon());
  });

  test('the mode changes only when nothing of the other one is alive', async () => {
    const { ref } = await created.mint();
    await expect(apply(created, { mode: 'pool' })).rejects.toThrow(/grants of another mode are alive/);
    await created.session.fence([ref], soon());
    await created.session.reap([ref], soon());
    await apply(created, { mode: 'pool' });
    const other = created.connect({ mode: 'pool' });
    const next = created.ref();
    const { facts } = await other.mint(next, created.request(next), soon());
    expect(facts).toMatchObject({ role_name: 'mayfly_p_created_1', generation: 1 });
    await other.fence([next], soon());
    await other.reap([next], soon());
    await apply(created);
    const { ref: last } = await created.mint();
    await created.session.fence([last], soon());
    expect(await created.session.reap([last], soon())).toMatchObject([{ ok: true, evidence: { role: 'dropped' } }]);
    expect(await created.admin('SELECT FROM pg_roles WHERE rolname = $1', [last.handle])).toEqual([]);
  });

  test("a role of the pool's name that somebody else made is not taken in", async () => {
    await pooled.admin('CREATE ROLE mayfly_p_pooled_6 LOGIN');
    await expect(apply(pooled, {}, 6)).rejects.toThrow(/mayfly_p_pooled_6 exists and is not of this pool/);
    await pooled.admin('DROP ROLE mayfly_p_pooled_6');
    await apply(pooled, {}, 6);
  });

  test('a role of the pool that somebody dropped is made again', async () => {
    await pooled.admin('DROP ROLE mayfly_p_pooled_6');
    await apply(pooled, {}, 6);
    const free = await pooled.admin(
      `SELECT FROM mayfly.pooled p JOIN pg_roles r ON r.oid = p.role_oid WHERE r.rolname = 'mayfly_p_pooled_6'`,
    );
    expect(free).toHaveLength(1);
    expect(await pooled.admin('SELECT count(*)::int AS size FROM mayfly.pooled')).toEqual([{ size: 6 }]);
  });

  test('a broker with attributes or an owner with more than it needs is refused, and so is a foreign schema', async () => {
    await created.admin('ALTER ROLE broker_created CREATEDB');
    await expect(apply(created)).rejects.toThrow(/must have no attributes/);
    await created.admin('ALTER ROLE broker_created NOCREATEDB');
    await created.admin('ALTER ROLE owner_created LOGIN');
    await expect(apply(created)).rejects.toThrow(/CREATEROLE, no LOGIN and nothing more/);
    await created.admin('ALTER ROLE owner_created NOLOGIN');
    await expect(apply(created, { owner: 'owner_other' })).rejects.toThrow(/does not belong to owner_other/);
  });

  test('the SQL asks nothing of pg_authid that only a superuser may', () => {
    for (const ledger of [created, pooled]) {
      const entitlements = [{ name: entitlementName, maxTtlSeconds: 900, config: ledger.entitlement }];
      const sql = prepareSql(ledger.config, entitlements, randomUUID());
      expect(sql.match(/\b(?:FROM|JOIN|,) *pg_authid\b/gi)).toBeNull();
      expect(sql.match(/mayfly\.authid\b[^;]*\bFOR (?:UPDATE|SHARE|NO KEY UPDATE)/g)).toBeNull();
    }
  });
});
