import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { Database } from '../../src/store/database.ts';
import { claimRun, finishRun, keepRun, requestRuns } from '../../src/store/reconciliations.ts';
import { makeLedger, soon } from '../contract/postgres-fixture.ts';
import { type House, startHouse } from '../support/house.ts';
import { type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import {
  eventsOf,
  grantState,
  mintKnown,
  mintUnknown,
  QUICK,
  reconcile,
  roleOf,
  rolesOf,
  seedUnknown,
} from '../support/reconcile.ts';
import { createStore } from '../support/store.ts';
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts';

describe('comparing a target with the store, when things go wrong', () => {
  let storeServer: PostgresServer;
  let targetServer: PostgresServer;
  let proxy: TcpProxy;
  let house: House;
  beforeAll(async () => {
    [storeServer, targetServer] = await Promise.all([startPostgres({ version: 18 }), startPostgres({ version: 18 })]);
    proxy = await startTcpProxy(targetServer.port);
    house = await startHouse({
      ...{ server: storeServer, targetServer, targetPort: proxy.port, inProcess: false, env: QUICK },
    });
  });
  afterAll(async () => {
    await house?.stop();
    await proxy?.close();
    await Promise.all([storeServer?.stop(), targetServer?.stop()]);
  });

  const run = async () => {
    const [row] = await house.onStore<{ claimed_by: string | null; outcome: string | null; says: string | null }>(
      `SELECT claimed_by, result->>'outcome' AS outcome, result->>'says' AS says FROM mayfly.reconciliations`,
    );
    return row;
  };
  const gone = (id: string) =>
    vi.waitFor(async () => expect(await grantState(house, id)).toMatchObject({ revocation: 'clean' }), {
      timeout: 60_000,
      interval: 100,
    });

  test('a target that hangs while it lists fails that run, holds up no end of another kind, and is read again', async () => {
    await reconcile(house);
    proxy.blackHole();
    await vi.waitFor(
      async () => expect(await run()).toMatchObject({ outcome: 'failed', says: /did not answer|failed/ }),
      {
        timeout: 60_000,
        interval: 100,
      },
    );
    expect((await fetch(`${house.url}/readyz`)).status).toBe(200);
    proxy.heal();
    proxy.cut();
    const orphan = await mintUnknown(house);
    await gone(orphan);
  });

  test('a broker that is killed in the middle of a run leaves it to another; nothing is lost or done twice', async () => {
    const replica = await house.startReplica();
    const orphans = await Promise.all(Array.from({ length: 3 }, () => mintUnknown(house)));
    // Or taken in already, on a slow machine.
    const seen = 'SELECT handle FROM mayfly.orphan_sightings UNION SELECT handle FROM mayfly.grants';
    const handles = orphans.map(roleOf);
    await vi.waitFor(
      async () =>
        expect(await house.onStore(`SELECT FROM (${seen}) s WHERE handle = ANY($1)`, [handles])).toHaveLength(3),
      { timeout: 60_000, interval: 20 },
    );
    proxy.delay(300);
    await vi.waitFor(async () => expect((await run())?.claimed_by).toMatch(/./), { timeout: 60_000, interval: 5 });
    await Promise.all([house.broker.signal('SIGKILL'), replica.signal('SIGKILL')]);
    proxy.delay(0);
    house.broker = await house.restart();
    for (const id of orphans) await gone(id);
    expect(await rolesOf(house, orphans)).toEqual([]);
    for (const id of orphans)
      expect((await eventsOf(house, id)).filter((type) => type === 'grant.orphaned')).toHaveLength(1);
  });

  test('of two replicas each orphan is taken in once, and what lives is left alone by both', async () => {
    const replica = await house.startReplica();
    const { taskId, ids } = await mintKnown(house, 4);
    const orphans: string[] = [];
    for (let made = 0; made < 8; made++) orphans.push(await mintUnknown(house));
    for (const id of orphans) await gone(id);
    for (const id of orphans)
      expect((await eventsOf(house, id)).filter((type) => type === 'grant.orphaned')).toHaveLength(1);
    expect(await rolesOf(house, ids)).toHaveLength(4);
    await house.client().cancel(taskId, { wait: 20 });
    await replica.stop();
  });

  test('two thousand unknown roles are read in pages and taken back', async () => {
    await seedUnknown(house, 2_000);
    await vi.waitFor(
      async () => {
        const [row] = await house.onStore(
          `SELECT count(*)::int AS clean FROM mayfly.grants g JOIN mayfly.revocations r ON r.grant_id = g.id
           WHERE g.ended_by = 'orphaned' AND r.state = 'clean'`,
        );
        expect(Number(row?.['clean'])).toBeGreaterThanOrEqual(2_000);
      },
      { timeout: 150_000, interval: 500 },
    );
    expect(await house.onTarget(`SELECT FROM pg_roles WHERE rolname ~ '^mfy_'`)).toEqual([]);
  }, 240_000);
});

describe('a page of the list', () => {
  test('is never more than 500 of them, and all pages together are all', async () => {
    const server = await startPostgres({ version: 18 });
    const ledger = await makeLedger(server, 'paged');
    try {
      const made = new Set<string>();
      for (let n = 0; n < 3; n++) made.add((await ledger.mint()).ref.handle);
      await ledger.admin(`DO $$ DECLARE g uuid; h text; BEGIN FOR n IN 1..1200 LOOP
        g := gen_random_uuid(); h := 'mfy_' || replace(g::text, '-', '');
        EXECUTE format('CREATE ROLE %I', h); EXECUTE format('COMMENT ON ROLE %I IS %L', h, mayfly.mark('${ledger.installation}', g));
        IF n % 2 = 0 THEN INSERT INTO mayfly.handle (handle, grant_id, installation, role_oid, keep_until) VALUES (h, g, '${ledger.installation}', h::regrole, now()); END IF;
      END LOOP; END $$`);
      const seen: string[] = [];
      for (let after = ''; ; ) {
        const page = (await ledger.session.list?.(soon(), after)) ?? [];
        expect(page.length).toBeLessThanOrEqual(500);
        expect(page.every(({ grantId }) => grantId !== null)).toBe(true);
        if (page.length === 0) break;
        seen.push(...page.map(({ handle }) => handle));
        after = seen.at(-1) ?? '';
      }
      expect(seen).toEqual([...new Set(seen)].sort());
      expect(seen).toHaveLength(1203);
      expect(seen).toEqual(expect.arrayContaining([...made]));
    } finally {
      await ledger.close();
      await server.stop();
    }
  });
});

describe('the claim of a run', () => {
  test('is one replica’s at a time, is taken over when it falls silent, and the former one writes nothing', async () => {
    const server = await startPostgres({ version: 18 });
    const store = await createStore(server);
    const db = new Database({ url: store.runtimeUrl, connections: 2, onError: () => {} });
    const standing = { changed: 0, held: 0, uninspected: 0 };
    const nothing = { listed: 0, orphans: 0, waiting: 0, lost: 0, returned: 0, drifted: 0, unverified: 0, ...standing };
    const result = { outcome: 'done', says: '', ...nothing } as const;
    try {
      expect(await claimRun(db, ['a'], 'one', 30)).toBeUndefined();
      await requestRuns(db, ['a', 'b']);
      expect(await claimRun(db, ['none'], 'one', 30)).toBeUndefined();
      const silent = await claimRun(db, ['a'], 'one', 0);
      const next = await claimRun(db, ['a'], 'two', 30);
      expect(next?.target).toBe('a');
      expect(await claimRun(db, ['a'], 'three', 30)).toBeUndefined();
      if (silent === undefined || next === undefined) throw new Error('nothing was claimed');
      expect(next.number).toBeGreaterThan(silent.number);
      expect(await db.transaction({}, (tx) => keepRun(tx, silent, 30))).toBe(false);
      expect(await db.transaction({}, (tx) => finishRun(tx, silent, result, 0, true))).toBeUndefined();
      expect(await db.transaction({}, (tx) => keepRun(tx, next, 30))).toBe(true);
      // Asked for meanwhile: once more at once.
      await requestRuns(db, ['a']);
      expect(await db.transaction({}, (tx) => finishRun(tx, next, result, 300, true))).toBeNull();
      const again = await claimRun(db, ['a'], 'two', 30);
      if (again === undefined) throw new Error('it was not asked for again');
      expect(await db.transaction({}, (tx) => finishRun(tx, again, result, 300, true))).toEqual(result);
      expect(await claimRun(db, ['a'], 'two', 30)).toBeUndefined();
      expect((await claimRun(db, ['a', 'b'], 'two', 30))?.target).toBe('b');
    } finally {
      await db.close();
      await server.stop();
    }
  });
});
