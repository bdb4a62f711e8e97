import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import type { GrantId } from '../../src/domain/ids.ts';
import { Database } from '../../src/store/database.ts';
import { claimRun, finishRun, requestRuns } from '../../src/store/reconciliations.ts';
import { isReconciled, noteSetBack, noteTimeline } from '../../src/store/store-timeline.ts';
import { findGrantsUnder, insertTenure, raiseBeat } from '../../src/store/tenures.ts';
import { type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { startStandby } from '../support/postgres-standby.ts';
import { createStore, type TestStore } from '../support/store.ts';
import { bear } from '../support/sweep-plans.ts';
import { refuses } from '../support/synthetic/faults.ts';
import { startSyntheticHouse, type SyntheticHouse } from '../support/synthetic/house.ts';
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts';

const WAIT = { timeout: 60_000, interval: 50 };

async function asSuperuser(server: PostgresServer, text: string): Promise<pg.QueryResultRow[]> {
  const client = new pg.Client({ connectionString: server.superuserUrl() });
  await client.connect();
  try {
    return (await client.query(text)).rows;
  } finally {
    await client.end();
  }
}

describe('a store that failed over to a replica', () => {
  let primary: PostgresServer;
  let standby: PostgresServer;
  let proxy: TcpProxy;
  let house: SyntheticHouse;
  beforeAll(async () => {
    primary = await startPostgres({ version: 18 });
    proxy = await startTcpProxy(primary.port);
    house = await startSyntheticHouse(
      { ...primary, port: proxy.port },
      { sick: 'handles', well: 'handles' },
      { MAYFLY_RECONCILE_SECONDS: '86400', MAYFLY_SWEEP_SECONDS: '1' },
    );
    standby = await startStandby(primary, { name: 'next' });
  });
  afterAll(async () => {
    await house?.stop();
    await proxy?.close();
    await standby?.stop();
    await primary?.stop();
  });

  const failedOver = () => house.onStore(`SELECT payload FROM mayfly.audit_events WHERE type = 'store.failed_over'`);
  const unreconciled = async (name: string) => {
    const text = await (await fetch(`${house.url}/metrics`)).text();
    return new RegExp(`^mayfly_target_unreconciled\\{target="${name}"\\} (\\d)$`, 'm').exec(text)?.[1];
  };

  test('issues nothing on a target until that was reconciled since, and goes on revoking there', async () => {
    const sick = house.target('sick');
    const task = await house.openTask('sick', 'well');
    const grant = await house.issue(task, 'sick');
    expect(await failedOver()).toEqual([]);
    await vi.waitFor(async () => expect(await unreconciled('sick')).toBe('0'), WAIT);
    sick.faults.set('list', refuses('retryable', 'not now'));
    const written = await asSuperuser(primary, 'SELECT pg_current_wal_lsn()::text AS lsn');
    await vi.waitFor(async () => {
      const lsn = String(written[0]?.['lsn']);
      const rows = await asSuperuser(standby, `SELECT pg_last_wal_replay_lsn() >= '${lsn}' AS has`);
      expect(rows).toEqual([{ has: true }]);
    }, WAIT);
    await primary.halt();
    await asSuperuser(standby, 'SELECT pg_promote()');
    proxy.retarget(standby.port);
    proxy.cut();

    await vi.waitFor(async () => {
      expect(await failedOver()).toEqual([{ payload: expect.objectContaining({ timeline_before: 1, timeline: 2 }) }]);
    }, WAIT);
    await vi.waitFor(() => house.issue(task, 'well'), WAIT);
    const refused: unknown = await house.issue(task, 'sick').catch((error: unknown) => error);
    expect(refused).toMatchObject({ status: 503, code: 'store_failed_over' });
    expect(await unreconciled('sick')).toBe('1');
    await vi.waitFor(async () => expect(await unreconciled('well')).toBe('0'), WAIT);

    await vi.waitFor(() => house.release(grant.id), WAIT);
    await vi.waitFor(async () => expect(await house.standing(grant.id)).toMatchObject({ revocation: 'clean' }), WAIT);
    expect(await house.issue(task, 'sick').catch((error: unknown) => error)).toMatchObject({
      code: 'store_failed_over',
    });

    sick.faults.clear();
    await vi.waitFor(() => house.issue(task, 'sick'), WAIT);
    expect(await failedOver()).toHaveLength(1);
    await vi.waitFor(async () => expect(await unreconciled('sick')).toBe('0'), WAIT);
  });
});

describe('the timeline of a store', () => {
  let server: PostgresServer;
  let store: TestStore;
  let owner: pg.Client;
  let db: Database;
  beforeAll(async () => {
    server = await startPostgres({ version: 18 });
    store = await createStore(server);
    owner = new pg.Client({ connectionString: store.ownerUrl.reveal() });
    await owner.connect();
    db = new Database({ url: store.runtimeUrl, connections: 4, onError: () => {} });
  });
  afterAll(async () => {
    await db?.close();
    await owner?.end();
    await server?.stop();
  });

  const standing = { changed: 0, held: 0, uninspected: 0 };
  const nothing = { listed: 0, orphans: 0, waiting: 0, lost: 0, returned: 0, drifted: 0, unverified: 0, ...standing };
  const done = { outcome: 'done', says: '', ...nothing } as const;
  const change = () => owner.query('UPDATE mayfly.timeline SET timeline = timeline - 1');
  const known = async () => (await owner.query('SELECT changed_at AS changed FROM mayfly.timeline')).rows[0];
  const run = async (target = 'a') => {
    await requestRuns(db, [target]);
    const claim = await claimRun(db, [target], 'one', 30);
    if (claim === undefined) throw new Error('nothing was claimed');
    return claim;
  };

  test('stops every target at the moment of its change, told or not, and only a run that began after it lets one go on', async () => {
    expect(await isReconciled(db, 'a')).toBe(true);
    const before = await run();
    await change();
    expect(await isReconciled(db, 'a')).toBe(false);
    expect(await db.transaction({}, (tx) => noteTimeline(tx))).toEqual({ before: 0, after: 1 });
    expect(await db.transaction({}, (tx) => noteTimeline(tx))).toBeUndefined();
    expect(await isReconciled(db, 'a')).toBe(false);
    // Its claim is lost with the time that it belongs to.
    expect(await db.transaction({}, (tx) => finishRun(tx, before, done, 300, true))).toBeUndefined();
    const after = await run();
    expect(await db.transaction({}, (tx) => finishRun(tx, after, { ...done, waiting: 1 }, 0, false))).toBeNull();
    expect(await isReconciled(db, 'a')).toBe(false);
    const whole = await run();
    await db.transaction({}, (tx) => finishRun(tx, whole, done, 300, true));
    expect(await isReconciled(db, 'a')).toBe(true);
    expect(await isReconciled(db, 'b')).toBe(false);
  });

  test('is noticed once by many', async () => {
    await change();
    const noted = await Promise.all(Array.from({ length: 4 }, () => db.transaction({}, (tx) => noteTimeline(tx))));
    expect(noted.filter((one) => one !== undefined)).toHaveLength(1);
  });

  test('does not let a run of another one count, however the clocks of two servers differ', async () => {
    const claim = await run();
    await owner.query('UPDATE mayfly.reconciliations SET run_timeline = run_timeline - 1');
    await db.transaction({}, (tx) => finishRun(tx, claim, done, 300, true));
    expect(await isReconciled(db, 'a')).toBe(false);
  });

  test('tells by the beats of many targets once that a store was set back on its timeline, and lets each go on when it is reconciled', async () => {
    await db.transaction({}, (tx) => noteTimeline(tx));
    const [a, b] = [randomUUID(), randomUUID()];
    for (const [tenure, target] of [[a, 'a'] as const, [b, 'b'] as const]) {
      await insertTenure(db, tenure, target);
      await raiseBeat(db, tenure, 10, 0);
      const claim = await run(target);
      await db.transaction({}, (tx) => finishRun(tx, claim, done, 300, true));
      expect(await isReconciled(db, target)).toBe(true);
    }
    const setBack = (tenure: string, target: string) =>
      Array.from({ length: 2 }, () => db.transaction({}, (tx) => noteSetBack(tx, tenure, target, 20)));
    const { changed } = await known();
    const noticed = await Promise.all([...setBack(a, 'a'), ...setBack(b, 'b')]);
    expect(noticed.filter((one) => one !== undefined)).toEqual([{ before: 1, after: 1 }]);
    expect((await known()).changed).not.toEqual(changed);
    expect([await isReconciled(db, 'a'), await isReconciled(db, 'b')]).toEqual([false, false]);
    const claim = await run();
    await db.transaction({}, (tx) => finishRun(tx, claim, done, 300, true));
    // The one that notices it later.
    await Promise.all(setBack(b, 'b'));
    expect([await isReconciled(db, 'a'), await isReconciled(db, 'b')]).toEqual([true, false]);
    // Once it knows the beat again, only another one is news.
    await raiseBeat(db, a, 20, 0);
    expect(await Promise.all(setBack(a, 'a'))).toEqual([undefined, undefined]);
    expect(await db.transaction({}, (tx) => noteSetBack(tx, a, 'a', 22))).toBeDefined();
    expect(await isReconciled(db, 'a')).toBe(false);
  });

  describe('knows of a grant that it was intended under a tenure', () => {
    const began = Date.parse('2026-01-01T00:00:00Z');
    const at = (seconds: number) => new Date(began + seconds * 1000);
    /** When they were intended, on each target. Seconds. */
    const intents = [-5, 5, 9, 15, 25];
    const tenures = new Map<string, string>();

    beforeAll(async () => {
      await bear(owner, 5 * intents.length);
      await owner.query(
        `UPDATE mayfly.grants g SET created_at = $1::timestamptz + make_interval(secs => ($2::int[])[place])
         FROM (SELECT id, row_number() OVER (PARTITION BY target ORDER BY id) AS place FROM mayfly.grants) p WHERE p.id = g.id`,
        [at(0), intents],
      );
      const held: readonly (readonly [string, string, number, number, number])[] = [
        ['alone', 'target-0', 0, 30, 9],
        // Moved away, and back.
        ['home', 'target-1', 0, 30, 9],
        ['away', 'target-1', 10, 20, 2],
        // Of two that began at once the target kept one.
        ['kept', 'target-2', 0, 30, 9],
        ['not kept', 'target-2', 10, 10, 1],
        // Moved, and stayed.
        ['earlier', 'target-3', -20, 10, 9],
        ['later', 'target-3', 8, 30, 9],
      ];
      for (const [name, target, begun, seen, beat] of held) {
        const tenure = randomUUID();
        tenures.set(name, tenure);
        await owner.query(
          'INSERT INTO mayfly.tenures (tenure, target, beat, beat_at, begun_at) VALUES ($1, $2, $3, $4, $5)',
          [...[tenure, target, beat], ...[at(seen), at(begun)]],
        );
      }
    });

    test.each([
      ['alone', [5, 9, 15, 25]],
      ['home', []],
      ['away', []],
      ['kept', [5, 9, 15, 25]],
      ['not kept', []],
      ['earlier', []],
      ['later', [15, 25]],
      ['unknown', []],
    ])('%s: those of the seconds %j', async (name, proven) => {
      const { rows } = await owner.query<{ id: GrantId; created_at: Date }>(
        'SELECT g.id, g.created_at FROM mayfly.grants g ORDER BY g.created_at',
      );
      const found = await findGrantsUnder(
        db,
        tenures.get(name) ?? null,
        rows.map(({ id }) => id),
      );
      const seconds = rows.flatMap(({ id, created_at: made }) =>
        found.has(id) ? [(made.getTime() - began) / 1000] : [],
      );
      expect(seconds).toEqual(proven);
    });
  });
});
