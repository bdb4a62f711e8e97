import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Session } from '../../src/provider.ts';
import type { ReconcileDeps } from '../../src/revocation/reconcile-deps.ts';
import { ReconcileRun, RunLost } from '../../src/revocation/reconcile-run.ts';
import { Database } from '../../src/store/database.ts';
import type { RunClaim } from '../../src/store/reconciliations.ts';
import { type House, startHouse } from '../support/house.ts';
import { eventsOf, grantState, mintKnown, mintUnknown, rolesOf, sessionOf } from '../support/reconcile.ts';

const TARGET = 'ledger-db';

describe('a run that is overtaken', () => {
  let house: House;
  let db: Database;
  let session: Session;
  let deps: ReconcileDeps;
  beforeAll(async () => {
    house = await startHouse({ env: { MAYFLY_RECONCILE_SECONDS: '86400' } });
    db = new Database({ url: house.store.runtimeUrl, connections: 4, onError: () => {} });
    session = await sessionOf(house);
    const observer = {
      ...{ contained: () => {}, failed: () => {}, overdue: () => {}, breaker: () => {}, notSeen: () => {} },
      ...{ returned: () => {}, fencedUnrecorded: () => {} },
    };
    const found = {
      ...{ orphaned: () => {}, lost: () => {}, drifted: () => {}, changed: () => {}, unverified: () => {} },
      ...{ reconciled: () => {}, stranger: () => {}, unreconciled: () => {} },
    };
    deps = {
      ...{ db, observer, found, worker: 'test', random: () => 0.5, log: () => {}, policyDigest: () => 'none' },
      ...{ targets: () => [], revision: () => 1, maxChangedShare: 10, entitlement: () => undefined, wake: () => {} },
      unclaimed: () => {},
      session: () => session,
      targetAt: async () => {
        throw new Error('not asked for here');
      },
    };
  });
  afterAll(async () => {
    await session?.close();
    await db?.close();
    await house?.stop();
  });

  /** A claim of the test's own, whoever had one before. */
  async function takeOver(): Promise<RunClaim> {
    const [row] = await house.onStore<{ number: string; at: Date }>(
      `INSERT INTO mayfly.reconciliations AS r (target, next_at, claim_number, claimed_until, started_at)
       VALUES ('${TARGET}', 'infinity', nextval('mayfly.claim_numbers'), now() + interval '1 minute', clock_timestamp())
       ON CONFLICT (target) DO UPDATE SET claim_number = excluded.claim_number, claimed_until = excluded.claimed_until,
         started_at = excluded.started_at, next_at = 'infinity' RETURNING claim_number AS number, started_at AS at`,
    );
    if (row === undefined) throw new Error('no claim');
    return { target: TARGET, number: BigInt(row.number), startedAt: row.at };
  }

  /** A run of the test's own, in whose first list `meanwhile` happens before the answer is here. */
  async function start(meanwhile: () => Promise<void>) {
    const claim = await takeOver();
    let first = true;
    const slow: Session = {
      ...session,
      list: async (...args) => {
        const page = (await session.list?.(...args)) ?? [];
        if (first) {
          first = false;
          await meanwhile();
        }
        return page;
      },
    };
    const options = { installation: house.broker.installation, graceSeconds: 0 };
    return new ReconcileRun(deps, claim, slow, options, AbortSignal.timeout(60_000));
  }

  test('by an end takes what was listed and then cleaned for gone, not for back', async () => {
    const { taskId, ids } = await mintKnown(house, 1);
    const [id = ''] = ids;
    const run = await start(async () => {
      await house.client().cancel(taskId, { wait: 20 });
      await expect.poll(() => grantState(house, id), { timeout: 60_000 }).toMatchObject({ revocation: 'clean' });
    });
    await run.run();
    expect(run.counts).toMatchObject({ listed: 1, returned: 0 });
    expect(await grantState(house, id)).toMatchObject({ state: 'revoked', revocation: 'clean' });
  });

  test('by a birth does not call lost what it could not list yet', async () => {
    let ids: string[] = [];
    let taskId = '';
    const run = await start(async () => {
      ({ ids, taskId } = await mintKnown(house, 2));
    });
    await run.run();
    expect(run.counts).toMatchObject({ listed: 0, lost: 0 });
    for (const id of ids) expect(await eventsOf(house, id)).not.toContain('grant.lost');
    await house.client().cancel(taskId, { wait: 20 });
  });

  test('by a list that leaves out what is there does not call that lost', async () => {
    const { ids, taskId } = await mintKnown(house, 1);
    const short = { ...session, list: async () => [] };
    const blind = new ReconcileRun(
      deps,
      await takeOver(),
      short,
      { installation: house.broker.installation, graceSeconds: 0 },
      AbortSignal.timeout(30_000),
    );
    await blind.run();
    expect(blind.counts).toMatchObject({ listed: 0, lost: 0 });
    expect(await eventsOf(house, ids[0] ?? '')).not.toContain('grant.lost');
    await house.client().cancel(taskId, { wait: 20 });
  });

  test('by another replica writes nothing more', async () => {
    const orphan = await mintUnknown(house);
    const run = await start(async () => {
      await takeOver();
    });
    await expect(run.run()).rejects.toBeInstanceOf(RunLost);
    expect(await house.onStore('SELECT FROM mayfly.orphan_sightings')).toEqual([]);
    expect(await grantState(house, orphan)).toBeUndefined();
    expect(await rolesOf(house, [orphan])).toHaveLength(1);
  });
});
