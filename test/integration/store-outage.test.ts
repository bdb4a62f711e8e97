import { Writable } from 'node:stream';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { loadCatalog } from '../../src/catalog/load.ts';
import { loadProviders } from '../../src/catalog/provider-registry.ts';
import type { Session } from '../../src/provider.ts';
import { OutageFencer } from '../../src/revocation/outage-fencer.ts';
import { Database, type Statement } from '../../src/store/database.ts';
import { plain } from '../crash/world.ts';
import type { RunningBroker } from '../support/broker-process.ts';
import { type House, startHouse } from '../support/house.ts';
import { type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { eventsOf, grantState, roleOf } from '../support/reconcile.ts';

const WAIT = { timeout: 60_000, interval: 50 };
const ENTITLEMENT = 'ledger-db/read-invoices';

interface Held {
  readonly id: string;
  readonly task: string;
  isOpen(): boolean;
  end(): Promise<void>;
}

describe('a broker whose store is in trouble', () => {
  let storeServer: PostgresServer;
  let targetServer: PostgresServer;
  let house: House;
  let replica: RunningBroker;
  const logged: string[] = [];
  beforeAll(async () => {
    storeServer = await startPostgres({ version: 18 });
    targetServer = await startPostgres({ version: 18 });
    house = await startHouse({
      ...{ server: storeServer, targetServer },
      env: { MAYFLY_SWEEP_SECONDS: '1', MAYFLY_SHUTDOWN_SECONDS: '2', MAYFLY_LOG_LEVEL: 'warn' },
      logTo: new Writable({
        write: (line: Buffer, _encoding, done) => {
          logged.push(line.toString());
          done();
        },
      }),
    });
    replica = await house.startReplica();
  });
  afterAll(async () => {
    await house?.stop();
    await targetServer?.stop();
    await storeServer?.stop();
  });

  async function hold(ttl: number): Promise<Held> {
    const { task } = await house.client().openTask(await house.sign());
    const { grant, credential } = await house.client().issue(task.id, { entitlement: ENTITLEMENT, ttl_seconds: ttl });
    const session = new pg.Client({ connectionString: String(credential['url']) });
    let open = true;
    session.on('error', () => {});
    session.on('end', () => {
      open = false;
    });
    await session.connect();
    await session.query('SELECT count(*) FROM billing.invoices');
    return { id: plain(grant.id), task: task.id, isOpen: () => open, end: () => session.end().catch(() => {}) };
  }

  const isContained = async (id: string) =>
    expect(await grantState(house, id)).toMatchObject({ state: 'revoked', ended_by: 'expired' });
  const toldOf = async () =>
    (
      await house.onStore<{ id: string }>(
        `SELECT g->>'grant_id' AS id FROM mayfly.audit_events e, jsonb_array_elements(e.payload->'grants') g WHERE type = 'target.fenced_unrecorded'`,
      )
    ).map(({ id }) => plain(id));

  describe('keeps a deadline that comes while the store is stopped', () => {
    let due: Held;
    let later: Held;
    let reader: Awaited<ReturnType<typeof startReader>>;
    beforeAll(async () => {
      [due, later] = [await hold(4), await hold(300)];
      reader = await startReader(house);
      await storeServer.halt();
    });
    afterAll(async () => {
      await reader?.stop();
      await due?.end();
      await later?.end();
    });

    test('the session of the agent ends, and no other', async () => {
      await vi.waitFor(() => expect(due.isOpen()).toBe(false), WAIT);
      expect(later.isOpen()).toBe(true);
      const [role] = await house.onTarget<{ can: boolean }>(
        'SELECT rolcanlogin AS can FROM pg_roles WHERE rolname = $1',
        [roleOf(due.id)],
      );
      expect(role).toEqual({ can: false });
    });

    test('so does who has only read of the grant', async () => {
      await vi.waitFor(() => expect(reader.fenced).toEqual([roleOf(due.id)]), WAIT);
    });

    test('it is recorded in the ordinary way once the store is back, and what was done without it is told', async () => {
      await storeServer.restart();
      await vi.waitFor(() => isContained(due.id), WAIT);
      await vi.waitFor(async () => expect(await toldOf()).toContain(due.id), WAIT);
      expect(await eventsOf(house, due.id)).toEqual(
        expect.arrayContaining(['grant.activated', 'grant.ended', 'revocation.contained']),
      );
      expect(await toldOf()).not.toContain(later.id);
      expect(later.isOpen()).toBe(true);
    });
  });

  test('does not cut what another replica renewed: the target says that it lives on', async () => {
    const [renewed, after] = [await hold(6), await hold(7)];
    try {
      await house.client(undefined, replica.url).renew(`grt_${renewed.id}`, 200);
      await storeServer.halt();
      await vi.waitFor(() => expect(after.isOpen()).toBe(false), WAIT);
      expect(renewed.isOpen()).toBe(true);
    } finally {
      await storeServer.restart();
      await renewed.end();
      await after.end();
    }
    await vi.waitFor(() => isContained(after.id), WAIT);
    expect(await grantState(house, renewed.id)).toMatchObject({ state: 'active' });
  });

  test('keeps a deadline with a store that takes nothing, though it can be read', async () => {
    const due = await hold(3);
    try {
      await house.onStore(`CREATE FUNCTION mayfly.full() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'full' USING ERRCODE = '53100'; END $$;
        CREATE TRIGGER disk_full BEFORE INSERT OR UPDATE ON mayfly.grants FOR EACH STATEMENT EXECUTE FUNCTION mayfly.full()`);
      await vi.waitFor(() => expect(due.isOpen()).toBe(false), WAIT);
      expect(await grantState(house, due.id)).toMatchObject({ state: 'active' });
    } finally {
      await house.onStore('DROP FUNCTION mayfly.full() CASCADE');
      await due.end();
    }
    await vi.waitFor(() => isContained(due.id), WAIT);
  });

  test('keeps a deadline with a store whose commits never return: before any of them is given up', async () => {
    const due = await hold(4);
    logged.length = 0;
    try {
      await settings(storeServer, `ALTER SYSTEM SET synchronous_standby_names = 'nobody'`);
      await vi.waitFor(() => expect(due.isOpen()).toBe(false), WAIT);
      expect(logged.filter((line) => line.includes('nothing can be claimed now'))).toEqual([]);
      expect(await grantState(house, due.id)).toMatchObject({ state: 'active' });
    } finally {
      await settings(storeServer, 'ALTER SYSTEM RESET synchronous_standby_names');
      await due.end();
    }
    await vi.waitFor(() => isContained(due.id), WAIT);
    await vi.waitFor(async () => expect(await toldOf()).toContain(due.id), WAIT);
  });

  test('neither issues nor renews from the moment on at which that failed over, whoever has noticed it', async () => {
    const held = await hold(60);
    const owner = new pg.Client({ connectionString: house.store.ownerUrl.reveal() });
    await owner.connect();
    const refused = { status: 503, code: 'store_failed_over' };
    try {
      // Nobody can note it, nor record a comparison.
      await owner.query('BEGIN; LOCK TABLE mayfly.reconciliations IN EXCLUSIVE MODE');
      await house.onStore('UPDATE mayfly.timeline SET timeline = timeline - 1');
      await expect(house.client().issue(held.task, { entitlement: ENTITLEMENT })).rejects.toMatchObject(refused);
      await expect(house.client().renew(`grt_${held.id}`, 200)).rejects.toMatchObject(refused);
      await owner.query('ROLLBACK');
      await vi.waitFor(() => house.client().renew(`grt_${held.id}`, 200), WAIT);
      await vi.waitFor(() => house.client().issue(held.task, { entitlement: ENTITLEMENT }), WAIT);
    } finally {
      await owner.end();
      await held.end();
    }
  });

  test('keeps no deadline where it finds that another holds the target', async () => {
    const due = await hold(14);
    const [before] = await house.onTarget<{ store: string }>('SELECT store FROM mayfly.installation');
    logged.length = 0;
    try {
      await storeServer.halt();
      await house.onTarget(`UPDATE mayfly.installation SET store = 'another:1'`);
      const refused = () => logged.filter((line) => line.includes('has reached its deadline can not be fenced'));
      await vi.waitFor(() => expect(refused().length).toBeGreaterThan(1), WAIT);
      expect(refused().join()).toContain('another store of this installation holds the target');
      expect(due.isOpen()).toBe(true);
    } finally {
      await house.onTarget('UPDATE mayfly.installation SET store = $1', [before?.store]);
      await storeServer.restart();
    }
    await vi.waitFor(() => isContained(due.id), WAIT);
    await due.end();
  });
});

async function settings(server: PostgresServer, text: string): Promise<void> {
  const client = new pg.Client({ connectionString: server.superuserUrl() });
  await client.connect();
  try {
    await client.query(text);
    await client.query('SELECT pg_reload_conf()');
  } finally {
    await client.end();
  }
}

class CountingDatabase extends Database {
  answered = 0;

  override async query<R extends Record<string, unknown>>(statement: Statement): Promise<R[]> {
    const rows = await super.query<R>(statement);
    this.answered += 1;
    return rows;
  }
}

/** A process that has made nothing itself, once it has read what lives. Its target is of paper. */
async function startReader(house: House): Promise<{ readonly fenced: readonly string[]; stop(): Promise<void> }> {
  const fenced: string[] = [];
  const unasked = () => Promise.reject(new Error('not asked for here'));
  const session: Session = {
    ...{ guarantee: unasked, reserve: () => '', mint: unasked, verify: unasked, reap: unasked, check: unasked },
    fence: async (refs) => {
      fenced.push(...refs.map(({ handle }) => handle));
      return refs.map(() => ({ ok: true, evidence: {} }));
    },
    close: async () => {},
  };
  const db = new CountingDatabase({ url: house.store.runtimeUrl, connections: 2, onError: () => {} });
  const definition = loadCatalog(house.files, {
    providers: await loadProviders(['postgres']),
    allowDev: true,
  }).targets.get('ledger-db');
  const reader = new OutageFencer({
    ...{
      db,
      session: () => session,
      policyDigest: () => 'none',
      unclaimed: () => {},
      worker: 'reader',
      random: () => 0,
    },
    targetAt: async () => definition ?? (await unasked()),
    observer: {
      ...{ contained: () => {}, notSeen: () => {}, failed: () => {}, returned: () => {}, fencedUnrecorded: () => {} },
      ...{ overdue: () => {}, breaker: () => {} },
    },
    log: () => {},
  });
  reader.start();
  await vi.waitFor(() => expect(db.answered).toBeGreaterThan(0), WAIT);
  return {
    fenced,
    stop: async () => {
      await reader.stop();
      await db.close();
    },
  };
}
