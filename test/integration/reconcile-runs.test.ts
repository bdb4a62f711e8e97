import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import type { TargetDefinition } from '../../src/catalog/types.ts';
import { onStep } from '../../src/domain/step.ts';
import { ProviderError, type Session } from '../../src/provider.ts';
import { Reconciler } from '../../src/revocation/reconciler.ts';
import { Database } from '../../src/store/database.ts';
import { requestRuns } from '../../src/store/reconciliations.ts';
import { type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { createStore } from '../support/store.ts';

const WAIT = { timeout: 60_000, interval: 25 };

describe('a run', () => {
  let server: PostgresServer;
  let db: Database;
  let owner: pg.Client;
  let target: string;
  const running: Reconciler[] = [];
  beforeAll(async () => {
    server = await startPostgres({ version: 18 });
    const store = await createStore(server);
    db = new Database({ url: store.runtimeUrl, connections: 6, onError: () => {} });
    owner = new pg.Client({ connectionString: store.ownerUrl.reveal() });
    await owner.connect();
  });
  afterAll(async () => {
    await db?.close();
    await owner?.end();
    await server?.stop();
  });
  beforeEach(() => {
    target = `t-${randomUUID()}`;
  });
  afterEach(async () => {
    onStep(() => {});
    await Promise.all(running.splice(0).map((one) => one.stop()));
  });

  function start(list: Session['list'] | undefined, leaseSeconds = 30): Reconciler {
    const unasked = () => Promise.reject(new Error('not asked for here'));
    const session: Session = {
      ...{ guarantee: unasked, reserve: () => '', mint: unasked, fence: unasked, verify: unasked, reap: unasked },
      ...{ check: unasked, close: async () => {}, ...(list && { list }) },
    };
    const definition: TargetDefinition = {
      ...{
        name: target,
        provider: 'paper',
        connection: {},
        environment: 'test',
        owner: 'team',
        sensitivity: 'internal',
      },
      labels: {},
    };
    const reconciler = new Reconciler({
      deps: {
        ...{ db, session: () => session, targetAt: unasked, unclaimed: () => {}, policyDigest: () => 'none' },
        ...{
          worker: randomUUID(),
          random: () => 0.5,
          log: () => {},
          wake: () => {},
          revision: () => 1,
          maxChangedShare: 10,
        },
        ...{ targets: () => [definition], entitlement: () => undefined },
        observer: {
          ...{ contained: () => {}, notSeen: () => {}, failed: () => {}, returned: () => {}, overdue: () => {} },
          ...{ fencedUnrecorded: () => {}, breaker: () => {} },
        },
        found: {
          ...{
            orphaned: () => {},
            lost: () => {},
            drifted: () => {},
            changed: () => {},
            unverified: () => {},
            reconciled: () => {},
          },
          ...{ unreconciled: () => {}, stranger: () => {} },
        },
      },
      ...{ ownership: { prove: async () => {} }, installation: randomUUID(), everySeconds: 3_600, graceSeconds: 3 },
      leaseSeconds,
    });
    running.push(reconciler);
    reconciler.start();
    return reconciler;
  }

  async function row() {
    const { rows } = await owner.query<{
      number: string;
      age: number;
      held: boolean;
      outcome: string | null;
      runs: string;
    }>(
      `SELECT claim_number AS number, extract(epoch FROM clock_timestamp() - started_at)::float8 AS age,
         coalesce(claimed_until > clock_timestamp(), false) AS held, result->>'outcome' AS outcome, finished_at::text AS runs
       FROM mayfly.reconciliations WHERE target = $1`,
      [target],
    );
    return rows[0];
  }
  const events = async () =>
    (
      await owner.query<{ outcome: string; says: string }>(
        `SELECT payload->>'outcome' AS outcome, payload->>'says' AS says FROM mayfly.audit_events
         WHERE type = 'target.reconciled' AND resource = $1 ORDER BY ts, id`,
        [target],
      )
    ).rows;
  /** One more run, and its end. */
  async function again(): Promise<void> {
    const before = (await row())?.runs;
    await requestRuns(db, [target]);
    await vi.waitFor(async () => expect((await row())?.runs).not.toBe(before), WAIT);
  }
  const finished = () => vi.waitFor(async () => expect((await row())?.outcome).toMatch(/./), WAIT);

  /** A list that answers when it is let. */
  function held() {
    let release = () => {};
    const gate = new Promise<void>((resolve) => {
      release = resolve;
    });
    const asked: number[] = [];
    const list: Session['list'] = async () => {
      asked.push(asked.length);
      await gate;
      return [];
    };
    return { list, asked, release: () => release() };
  }

  test('keeps its claim while a target is slower than that lasts', async () => {
    const slow = held();
    start(slow.list, 2);
    await vi.waitFor(() => expect(slow.asked).toHaveLength(1), WAIT);
    const claim = (await row())?.number;
    const other = held();
    start(other.list, 2);
    await vi.waitFor(async () => expect((await row())?.age).toBeGreaterThan(4), WAIT);
    expect(await row()).toMatchObject({ held: true, number: claim });
    expect(other.asked).toEqual([]);
    slow.release();
    await finished();
    other.release();
  });

  test('that lost its claim does not run beside the next one in the same process', async () => {
    const slow = held();
    let ticks = 0;
    onStep((name) => {
      if (name === 'claim-run.before') ticks += 1;
    });
    start(slow.list, 120);
    await vi.waitFor(() => expect(slow.asked).toHaveLength(1), WAIT);
    await owner.query(
      'UPDATE mayfly.reconciliations SET claimed_until = NULL, claimed_by = NULL, next_at = clock_timestamp() WHERE target = $1',
      [target],
    );
    const before = ticks;
    await vi.waitFor(() => expect(ticks).toBeGreaterThan(before + 2), WAIT);
    expect(slow.asked).toHaveLength(1);
    slow.release();
    await finished();
  });

  test('of a target that can not be listed says so, once', async () => {
    start(undefined);
    await finished();
    await again();
    expect((await row())?.outcome).toBe('unlisted');
    expect(await events()).toEqual([{ outcome: 'unlisted', says: expect.stringContaining('can not be listed') }]);
  });

  test('that fails is told in the evidence when it fails otherwise than before, and when it is done again', async () => {
    let says = 'away';
    start(async () => {
      if (says !== '') throw new ProviderError('retryable', says);
      return [];
    });
    await finished();
    await again();
    await again();
    expect(await events()).toEqual([{ outcome: 'failed', says: 'away' }]);
    says = 'refused';
    await again();
    await again();
    says = '';
    await again();
    await again();
    expect(await events()).toEqual([
      { outcome: 'failed', says: 'away' },
      { outcome: 'failed', says: 'refused' },
      { outcome: 'done', says: '' },
    ]);
  });
});
