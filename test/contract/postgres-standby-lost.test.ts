import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { prepare } from '../../providers/postgres/index.ts';
import { availableVersions, type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { restoreLater } from '../support/postgres-standby.ts';
import { startTcpProxy } from '../support/tcp-proxy.ts';
import { entitlementName, type Ledger, makeLedger, soon, sqlState } from './postgres-fixture.ts';
import { check, failed, knowing, makeReplica, type Replica } from './postgres-standby-fixture.ts';

describe.each(availableVersions())('standbys of PostgreSQL %i that are not as they should be', (version) => {
  let server: PostgresServer;
  let ledger: Ledger;
  let replica: Replica;
  let folder: string;
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'mayfly-backup-'));
    server = await startPostgres({ version });
    ledger = await makeLedger(server, 'ledger');
    replica = await makeReplica(ledger, 'replica-1');
  });
  afterAll(async () => {
    await ledger?.close();
    await replica?.close();
    await server?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  const contained = [{ ok: true, contained: true }];

  function failing(name: string, errorClass: string, says = ''): Record<string, unknown> {
    const message = expect.stringMatching(new RegExp(`^standby ${name} .*${says}`));
    return { ok: false, error: { errorClass, message } };
  }

  test('one that is down is told by name, the others are swept, and once it is back the grant is contained', async () => {
    const other = await makeReplica(ledger, 'replica-2');
    const session = knowing(ledger, [replica.listed, other.listed]);
    try {
      const first = await ledger.mint();
      const second = await ledger.mint();
      const away = await replica.login(first);
      const near = await other.login(first);
      const neighbour = await other.login(second);
      await replica.server.halt();
      const down = failing('replica-1', 'retryable', 'connection failed');
      expect(await session.fence([first.ref, second.ref], soon())).toMatchObject([down, down]);
      expect(await sqlState(near.query('SELECT 1'))).not.toBe('none');
      expect(await sqlState(neighbour.query('SELECT 1'))).not.toBe('none');
      expect(await sqlState(ledger.login(first.minted))).toMatch(/^28/);
      expect(await session.verify([first.ref], soon())).toMatchObject([down]);
      await replica.server.restart();
      expect(await sqlState(away.query('SELECT 1'))).not.toBe('none');
      // It may be back before it has met its primary again.
      await expect
        .poll(() => session.fence([first.ref, second.ref], soon()), { timeout: 60_000 })
        .toMatchObject([{ ok: true }, { ok: true }]);
      expect(await session.verify([first.ref, second.ref], soon())).toMatchObject([...contained, ...contained]);
    } finally {
      await session.close();
      await other.close();
    }
  });

  // It is given up after four seconds. That the primary does not wait so long is seen by its being quicker once.
  test('one that takes the connection and says nothing holds up neither the primary nor the call for long', {
    retry: 4,
  }, async () => {
    const proxy = await startTcpProxy(replica.server.port);
    const session = knowing(ledger, [{ name: 'hung', host: '127.0.0.1', port: proxy.port }]);
    try {
      const live = await ledger.mint();
      const agent = await ledger.login(live.minted);
      proxy.blackHole();
      const fencing = session.fence([live.ref], soon());
      await expect.poll(() => sqlState(agent.query('SELECT 1')), { interval: 5, timeout: 3000 }).not.toBe('none');
      expect(await fencing).toMatchObject([failing('hung', 'retryable')]);
      expect(await session.verify([live.ref], soon())).toMatchObject([failing('hung', 'retryable')]);
      proxy.heal();
      expect(await session.fence([live.ref], soon())).toMatchObject([{ ok: true }]);
      expect(await session.verify([live.ref], soon())).toMatchObject(contained);
    } finally {
      await session.close();
      await proxy.close();
    }
  });

  test('one that was promoted is told by name, and its sessions are ended all the same', async () => {
    const heir = await makeReplica(ledger, 'heir');
    const session = knowing(ledger, [heir.listed]);
    try {
      const live = await ledger.mint();
      const agent = await heir.login(live);
      // A connection of the broker that stood before the promotion is no excuse.
      expect(await session.verify([(await ledger.mint()).ref], soon())).toMatchObject([{ ok: true, contained: false }]);
      expect(failed(await check(ledger, session))).toEqual([expect.stringMatching(/^standbys: .*replica-1@/)]);
      await heir.admin('SELECT pg_promote()');
      const promoted = failing('heir', 'misconfigured', 'promoted');
      expect(await session.fence([live.ref], soon())).toMatchObject([promoted]);
      expect(await sqlState(agent.query('SELECT 1'))).not.toBe('none');
      expect(await sqlState(ledger.login(live.minted))).toMatch(/^28/);
      expect(await session.verify([live.ref], soon())).toMatchObject([promoted]);
      expect(failed(await check(ledger, session)).join('\n')).toMatch(/^standby: standby heir .*promoted/m);

      // The heir as the target: the same cluster, where the end never arrived.
      const crowned = ledger.connect({ port: heir.server.port });
      expect(await sqlState(heir.tryLogin(live))).toBe('none');
      expect(await crowned.verify([live.ref], soon())).toMatchObject([{ ok: true, contained: false }]);
      expect(await crowned.fence([live.ref], soon())).toMatchObject([{ ok: true, evidence: { login: 'cut' } }]);
      expect(await crowned.verify([live.ref], soon())).toMatchObject(contained);
      expect(await sqlState(heir.tryLogin(live))).toMatch(/^28/);
    } finally {
      await session.close();
      await heir.close();
    }
  });

  test('one that follows another primary proves nothing by how far it is', async () => {
    const heir = await makeReplica(ledger, 'heir');
    try {
      const live = await ledger.mint();
      const agent = await replica.login(live);
      await (await heir.login(live)).end();
      await heir.admin('SELECT pg_promote()');
      // The old primary runs on, and the replica with it, further than the heir will be.
      await ledger.admin('CREATE TABLE billing.more AS SELECT generate_series(1, 20000)');
      const session = ledger.connect({ port: heir.server.port, standbys: [replica.listed] });
      const stray = failing('replica-1', 'retryable', 'timeline 00000001, and the primary is on 00000002');
      expect(await session.fence([live.ref], soon())).toMatchObject([stray]);
      expect(await sqlState(agent.query('SELECT 1'))).not.toBe('none');
      expect(await session.verify([live.ref], soon())).toMatchObject([stray]);
      expect(failed(await session.check(null, soon()))).toEqual([expect.stringMatching(/^standby: .*timeline/)]);
      expect(await sqlState(replica.tryLogin(live))).toBe('none');
      await session.close();
    } finally {
      await heir.close();
    }
  });

  test('one that is the primary itself, where all nodes are listed and take turns, is swept as what it is', async () => {
    const proxy = await startTcpProxy(server.port);
    const session = knowing(ledger, [{ name: 'node-1', host: '127.0.0.1', port: proxy.port }, replica.listed]);
    try {
      const live = await ledger.mint();
      const agent = await replica.login(live);
      expect(await session.fence([live.ref], soon())).toMatchObject([{ ok: true }]);
      expect(await sqlState(agent.query('SELECT 1'))).not.toBe('none');
      expect(await session.verify([live.ref], soon())).toMatchObject(contained);
      const steps = await check(ledger, session);
      expect(failed(steps)).toEqual([]);
      expect(steps.map(({ says }) => says)).toContainEqual(
        expect.stringMatching(/^standby node-1 .*is the primary now/),
      );
    } finally {
      await session.close();
      await proxy.close();
    }
  });

  test('a server of another cluster in the place of a standby proves nothing, and nothing is ended there', async () => {
    const stranger = await startPostgres({ version });
    try {
      const url = await stranger.createDatabase('ledger');
      const admin = new pg.Client({ connectionString: url });
      await admin.connect();
      await admin.query('CREATE SCHEMA billing; CREATE TABLE billing.invoices (id int)');
      const entitlements = [{ name: entitlementName, maxTtlSeconds: 900, config: ledger.entitlement }];
      await prepare(url, ledger.config, entitlements, ledger.installation, { password: ledger.password });
      const session = knowing(ledger, [{ name: 'stranger', host: '127.0.0.1', port: stranger.port }]);
      const live = await ledger.mint();
      // There the OID of the grant is that of somebody else, whom the registry there even calls ours.
      await admin.query('CREATE ROLE bystander LOGIN PASSWORD $$b$$');
      const [role] = (await admin.query(`SELECT oid FROM pg_roles WHERE rolname = 'bystander'`)).rows;
      const bystander = new pg.Client({
        host: '127.0.0.1',
        port: stranger.port,
        database: 'ledger',
        user: 'bystander',
        password: 'b',
      });
      await bystander.connect();
      await admin.query(
        `INSERT INTO mayfly.handle (handle, grant_id, installation, role_oid, keep_until) VALUES ($1, $2, $3, $4, now())`,
        [live.ref.handle, live.ref.grantId, ledger.installation, role?.oid],
      );
      const ref = { ...live.ref, facts: { ...live.ref.facts, oid: Number(role?.oid) } };
      const wrong = failing('stranger', 'misconfigured', 'of the cluster');
      expect(await session.fence([ref], soon())).toMatchObject([wrong]);
      expect(await sqlState(bystander.query('SELECT 1'))).toBe('none');
      expect(await session.verify([live.ref], soon())).toMatchObject([wrong]);
      await session.close();
      await bystander.end();
      await admin.end();
    } finally {
      await stranger.stop();
    }
  });

  test('a target restored from a backup that was taken while the grant lived is cut again', async () => {
    const live = await ledger.mint();
    const restore = await restoreLater(server, folder);
    const session = knowing(ledger, [replica.listed]);
    // The standby has a whole segment of WAL to receive first.
    await expect.poll(() => session.fence([live.ref], soon()), { timeout: 60_000 }).toMatchObject([{ ok: true }]);
    await session.reap([live.ref], soon());
    expect(await session.verify([live.ref], soon())).toMatchObject([{ contained: true, clean: true }]);
    await session.close();
    const restored = await restore();
    const again = ledger.connect({ port: restored.port });
    try {
      const { username: user, password } = live.minted.secret.reveal();
      const agent = new pg.Client({
        ...{ host: '127.0.0.1', port: restored.port, database: 'ledger' },
        ...{ user: String(user), password: String(password) },
      });
      agent.on('error', () => {});
      await agent.connect();
      expect(await again.verify([live.ref], soon())).toMatchObject([{ ok: true, contained: false, clean: false }]);
      expect(await again.fence([live.ref], soon())).toMatchObject([
        { ok: true, evidence: { login: 'cut', sessions_ended: 1 } },
      ]);
      expect(await sqlState(agent.query('SELECT 1'))).not.toBe('none');
      expect(await again.verify([live.ref], soon())).toMatchObject(contained);
      expect(await again.reap([live.ref], soon())).toMatchObject([{ ok: true }]);
      expect(await again.verify([live.ref], soon())).toMatchObject([{ contained: true, clean: true }]);
    } finally {
      await again.close();
      await restored.stop();
    }
  });

  test('while the primary is down their sessions are ended all the same, and that is not called contained', async () => {
    const session = knowing(ledger, [replica.listed]);
    const live = await ledger.mint();
    const neighbour = await ledger.mint();
    const agent = await replica.login(live);
    const bystander = await replica.login(neighbour);
    await server.halt();
    try {
      expect(await session.fence([live.ref], soon())).toMatchObject([
        { ok: false, error: { errorClass: 'retryable' } },
      ]);
      expect(await sqlState(agent.query('SELECT 1'))).not.toBe('none');
      expect(await sqlState(bystander.query('SELECT 1'))).toBe('none');
    } finally {
      await server.restart();
    }
    const refs = [live.ref, neighbour.ref];
    await expect
      .poll(() => session.fence(refs, soon()), { timeout: 60_000 })
      .toMatchObject([{ ok: true }, { ok: true }]);
    expect(await session.verify(refs, soon())).toMatchObject([...contained, ...contained]);
    await session.close();
  });
});
