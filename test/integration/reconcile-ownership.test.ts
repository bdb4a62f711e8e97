import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { prepare } from '../../providers/postgres/index.ts';
import type { Session } from '../../src/provider.ts';
import { Ownership } from '../../src/revocation/ownership.ts';
import { Database } from '../../src/store/database.ts';
import { isReconciled } from '../../src/store/store-timeline.ts';
import { insertTenure, readStoreIdentity } from '../../src/store/tenures.ts';
import { entitlementName, type Ledger, makeLedger, soon } from '../contract/postgres-fixture.ts';
import { type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { createStore, type TestStore } from '../support/store.ts';

const BEAT = 0.1;
const SILENCE = 1.5;

describe('who holds a target', () => {
  let server: PostgresServer;
  let ledger: Ledger;
  let store: TestStore;
  let made = 0;
  const closing: (() => Promise<void> | void)[] = [];
  beforeAll(async () => {
    server = await startPostgres({ version: 18 });
  });
  afterEach(async () => {
    for (const close of closing.splice(0).reverse()) await close();
  });
  afterAll(async () => {
    await server?.stop();
  });

  async function fresh(): Promise<void> {
    ledger = await makeLedger(server, `held${++made}`);
    closing.push(() => ledger.close());
    store = await createStore(server);
  }

  /** A broker on that store: what it holds the target with, and what it said. */
  async function broker(at: TestStore = store, identity?: string, beatSeconds = BEAT, silenceSeconds = SILENCE) {
    const db = new Database({ url: at.runtimeUrl, connections: 4, onError: () => {} });
    closing.push(() => db.close());
    const said: string[] = [];
    let stranger: boolean | undefined;
    const ownership = new Ownership({
      deps: {
        ...{ policyDigest: () => 'none', worker: 'test', log: (_event, message) => said.push(message) },
        found: { stranger: (_target, is) => (stranger = is) },
      },
      ...{ db, installation: ledger.installation, store: identity ?? (await readStoreIdentity(db)) },
      ...{ beatSeconds, silenceSeconds },
    });
    closing.push(() => ownership.stop());
    const session = ledger.connect();
    return {
      ...{ db, ownership, said, guarded: ownership.guard('ledger', session) },
      isStranger: () => stranger,
      start: () => ownership.start(() => [['ledger', session] as const]),
    };
  }

  async function beats(): Promise<{ beat: number; tenure: string; epoch: number }> {
    const [row] = await ledger.admin('SELECT beat::int, tenure, epoch::int FROM mayfly.installation');
    return { beat: Number(row?.['beat']), tenure: String(row?.['tenure']), epoch: Number(row?.['epoch']) };
  }

  async function goesOn(): Promise<void> {
    const { beat } = await beats();
    await vi.waitFor(async () => expect((await beats()).beat).toBeGreaterThan(beat), { timeout: 60_000, interval: 20 });
  }

  const mint = (session: Session) => {
    const ref = ledger.ref();
    return session.mint(ref, ledger.request(ref), soon());
  };
  const noticesOf = async (db: Database) =>
    (
      await db.query<{ says: string }>({
        text: `SELECT payload->>'says' AS says FROM mayfly.audit_events WHERE type = 'store.failed_over'`,
        values: [],
      })
    ).map(({ says }) => says);
  const owner = async (text: string, values: unknown[] = []) => {
    const db = new Database({ url: store.ownerUrl, connections: 1, onError: () => {} });
    try {
      return await db.query({ text, values });
    } finally {
      await db.close();
    }
  };

  test('replicas of one store hold it together, also after a restart', async () => {
    await fresh();
    const [one, two] = [await broker(), await broker()];
    await Promise.all([mint(one.guarded), mint(two.guarded)]);
    one.start();
    two.start();
    await goesOn();
    await mint((await broker()).guarded);
    await one.ownership.stop();
    await goesOn();
    expect([one.isStranger(), two.isStranger(), ...one.said, ...two.said]).toEqual([false, false]);
    expect(await isReconciled(one.db, 'ledger')).toBe(true);
  });

  test('another database with the same contents is a stranger at once, whether or not the holder lives', async () => {
    await fresh();
    await mint((await broker()).guarded);
    const copy = await broker(store, 'another:1');
    const live = await ledger.mint();
    await expect(mint(copy.guarded)).rejects.toMatchObject({ errorClass: 'misconfigured', message: /copy.*adopt/ });
    await expect(copy.guarded.fence([live.ref], soon())).rejects.toMatchObject({ name: 'Stranger' });
    await expect(copy.guarded.reap([live.ref], soon())).rejects.toMatchObject({ name: 'Stranger' });
    expect(await copy.guarded.verify([live.ref], soon())).toMatchObject([{ ok: true, contained: false }]);
    expect(
      await copy.db.query({
        text: `SELECT resource FROM mayfly.audit_events WHERE type = 'target.held_elsewhere'`,
        values: [],
      }),
    ).toEqual([{ resource: 'ledger' }]);
  });

  test('a physical copy finds that another is alive, and stays a stranger when that one is down for a while', async () => {
    await fresh();
    const production = await broker();
    await mint(production.guarded);
    production.start();
    await goesOn();
    const { tenure } = await beats();
    // The copy: a store that knows of the tenure up to some moment, and calls itself by the same identity.
    const other = await createStore(server);
    const identity = await readStoreIdentity(production.db);
    const copy = await broker(other, identity);
    await insertTenure(copy.db, tenure, 'ledger');
    await goesOn();
    const live = await ledger.mint();
    await expect(copy.guarded.fence([live.ref], soon())).rejects.toMatchObject({ errorClass: 'retryable' });
    copy.start();
    await vi.waitFor(() => expect(copy.isStranger()).toBe(true), { timeout: 60_000, interval: 20 });
    await expect(copy.guarded.fence([live.ref], soon())).rejects.toMatchObject({ name: 'Stranger' });
    await production.ownership.stop();
    const still = await beats();
    const again = await broker(other, identity);
    again.start();
    await vi.waitFor(() => expect(again.isStranger()).toBe(true), { timeout: 60_000, interval: 20 });
    await expect(mint(again.guarded)).rejects.toMatchObject({ name: 'Stranger' });
    expect(await beats()).toEqual(still);
    await mint((await broker()).guarded);
  });

  test('a copy that knows all that the target shows acts until the next beat; who has held it for long stays the holder', async () => {
    await fresh();
    // A beat may be late on a busy machine, and is still no silence.
    const silence = 5;
    const production = await broker(store, undefined, 1, silence);
    await mint(production.guarded);
    production.start();
    const begun = performance.now();
    while (performance.now() - begun < silence * 1000) await goesOn();
    const other = await createStore(server);
    // It writes at once, and then not so often that the two keep meeting.
    const copy = await broker(other, await readStoreIdentity(production.db), 4, silence);
    const { tenure } = await beats();
    await insertTenure(copy.db, tenure, 'ledger');
    await goesOn();
    const { beat } = await beats();
    await copy.db.query({
      text: `UPDATE mayfly.tenures SET beat = $1, beat_at = clock_timestamp() - interval '1 minute'`,
      values: [beat],
    });
    copy.start();
    await vi.waitFor(() => expect(copy.isStranger()).toBe(true), { timeout: 60_000, interval: 20 });
    expect(copy.said).not.toContainEqual(expect.stringContaining('nobody else holds'));
    await goesOn();
    await goesOn();
    expect(production.isStranger()).toBe(false);
    await mint(production.guarded);
    await expect(mint(copy.guarded)).rejects.toMatchObject({ name: 'Stranger' });
  });

  test.each([
    ['its last moments', 'UPDATE mayfly.tenures SET beat = beat - 2'],
    ['that it held the target', 'DELETE FROM mayfly.tenures'],
  ])(
    'a store that was set back and lost %s goes on at once with a process that lived through it, and is reconciled',
    async (_, setBack) => {
      await fresh();
      const living = await broker();
      await mint(living.guarded);
      living.start();
      await goesOn();
      expect(await isReconciled(living.db, 'ledger')).toBe(true);
      // Between two of its beats, not within one.
      await living.ownership.stop();
      await owner(setBack);
      living.start();
      await mint(living.guarded);
      await goesOn();
      await goesOn();
      expect([living.isStranger(), ...living.said]).toEqual([false, expect.stringContaining('may have forgotten')]);
      expect(await isReconciled(living.db, 'ledger')).toBe(false);
      expect(await noticesOf(living.db)).toEqual([expect.stringContaining('last beats of ledger')]);
      await mint((await broker()).guarded);
    },
  );

  test('if no process lived through it, the target is taken up again once nobody is seen to hold it', async () => {
    await fresh();
    const before = await broker();
    await mint(before.guarded);
    before.start();
    await goesOn();
    await before.ownership.stop();
    await owner('UPDATE mayfly.tenures SET beat = 1');
    const after = await broker();
    const { beat } = await beats();
    await expect(mint(after.guarded)).rejects.toMatchObject({ errorClass: 'retryable' });
    expect((await beats()).beat).toBe(beat);
    after.start();
    await vi.waitFor(() => expect(after.isStranger()).toBe(false), { timeout: 60_000, interval: 20 });
    await mint(after.guarded);
    await goesOn();
    expect(after.said).toContainEqual(expect.stringContaining('nobody else holds'));
    expect(await isReconciled(after.db, 'ledger')).toBe(false);
    expect(await noticesOf(after.db)).toHaveLength(1);
  });

  test('a target that went back to an earlier moment is still ours', async () => {
    await fresh();
    const one = await broker();
    await mint(one.guarded);
    one.start();
    await goesOn();
    await ledger.admin('UPDATE mayfly.installation SET beat = 1');
    await mint((await broker()).guarded);
    await goesOn();
    expect(one.isStranger()).toBe(false);
  });

  test('a target that an earlier release prepared keeps no record, and is worked on all the same', async () => {
    await fresh();
    await ledger.admin('DROP FUNCTION mayfly.hold(uuid, text, uuid, bigint)');
    const { guarded } = await broker();
    const live = await ledger.mint();
    await mint(guarded);
    expect(await guarded.fence([live.ref], soon())).toMatchObject([{ ok: true }]);
  });

  test('adopted by another, connections that slept through it do nothing, and the holder before is a stranger', async () => {
    await fresh();
    const before = await broker();
    const live = await ledger.mint();
    await before.guarded.fence([(await ledger.mint()).ref], soon());
    expect(await ledger.session.fence([(await ledger.mint()).ref], soon())).toMatchObject([{ ok: true }]);
    const other = await createStore(server);
    const adopter = await broker(other);
    await expect(mint(adopter.guarded)).rejects.toMatchObject({ name: 'Stranger' });
    const by = { store: await readStoreIdentity(adopter.db), tenure: randomUUID() };
    const entitlements = [{ name: entitlementName, maxTtlSeconds: 900, config: ledger.entitlement }];
    const { password } = ledger;
    const admin = server.superuserUrl(ledger.config.database);
    await expect(
      prepare(admin, ledger.config, entitlements, ledger.installation, { password, by: { store: by.store } }),
    ).rejects.toMatchObject({ message: /another store/ });
    await insertTenure(adopter.db, by.tenure, 'ledger');
    await prepare(admin, ledger.config, entitlements, ledger.installation, { password, by });
    // Not guarded at all: the target itself refuses.
    await expect(ledger.session.fence([live.ref], soon())).resolves.toMatchObject([
      { ok: false, error: { errorClass: 'misconfigured' } },
    ]);
    expect(await beats()).toMatchObject({ epoch: 2, tenure: by.tenure });
    await mint(adopter.guarded);
    before.start();
    await vi.waitFor(() => expect(before.isStranger()).toBe(true), { timeout: 60_000, interval: 20 });
    await expect(mint(before.guarded)).rejects.toMatchObject({ name: 'Stranger' });
    expect(await adopter.guarded.fence([live.ref], soon())).toMatchObject([{ ok: true }]);
  });
});
