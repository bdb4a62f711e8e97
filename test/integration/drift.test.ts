import pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { applyCatalog } from '../../src/broker/apply-catalog.ts';
import { loadCatalog } from '../../src/catalog/load.ts';
import { loadProviders } from '../../src/catalog/provider-registry.ts';
import type { GrantBody } from '../../src/client/index.ts';
import type { GrantId } from '../../src/domain/ids.ts';
import { Database } from '../../src/store/database.ts';
import { extendGrant, findGrants } from '../../src/store/grants.ts';
import { Agent, eventOf, outcome } from '../support/delegating.ts';
import { type House, startHouse } from '../support/house.ts';

const READ = 'ledger-db/read-invoices';
const PAY = 'ledger-db/read-payments';
const POLICIES = 'policies/test.cedar';

let house: House;
let owner: Agent;
beforeAll(async () => {
  house = await startHouse({ proofOfPossession: 'required' });
  owner = await Agent.make(house);
});
afterAll(() => house?.stop());
beforeEach(async () => {
  await house.broker.apply(house.files);
});

const open = (entitlements = [READ, PAY]) => owner.open({ entitlements });
const issue = async (task: { id: string }, entitlement = READ, by = owner) =>
  await by.client().issue(task.id, { entitlement, ttl_seconds: 120 });
/** The catalog with these files changed. */
const changed = (change: Readonly<Record<string, (text: string) => string>>): Record<string, string> => ({
  ...house.files,
  ...Object.fromEntries(
    Object.entries(change).map(([path, edit]) => {
      const text = edit(house.files[path] ?? '');
      expect(text).not.toBe(house.files[path]);
      return [path, text];
    }),
  ),
});
const forbid = (when: string) => (text: string) =>
  `${text}\n@id("not-any-more") forbid (principal is Mayfly::Task, action, resource is Mayfly::Entitlement) when { ${when} };`;

/** Revoked in the target, and verified. */
async function untilRevoked(grant: GrantBody, by = owner): Promise<GrantBody> {
  return await vi.waitFor(
    async () => {
      const now = await by.client().grant(grant.id);
      expect(now).toMatchObject({ state: 'revoked' });
      return now;
    },
    { timeout: 60_000, interval: 30 },
  );
}

async function untilDecided(): Promise<void> {
  await vi.waitFor(
    async () => {
      const [row] = await house.onStore<{ behind: number }>(
        `SELECT count(*)::int AS behind FROM mayfly.grants, mayfly.catalog_active a
         WHERE state IN ('minting', 'active') AND coalesce(retained_revision, decided_revision) < a.revision`,
      );
      expect(row?.behind).toBe(0);
    },
    { timeout: 60_000, interval: 30 },
  );
}

const rolesOf = async (...grants: readonly GrantBody[]) =>
  (
    await house.onTarget<{ rolname: string }>('SELECT rolname FROM pg_roles WHERE rolname = ANY($1)', [
      grants.map(({ id }) => `mfy_${id.slice(4).replaceAll('-', '')}`),
    ])
  ).length;

interface End {
  readonly cause: string;
  readonly decision_id: string;
  readonly payload: Readonly<Record<string, unknown>>;
}

/** What the evidence says of a grant's end. */
async function endOf({ id }: GrantBody): Promise<End> {
  const rows = await house.onStore<End & pg.QueryResultRow>(
    `SELECT cause, decision_id, payload FROM mayfly.audit_events WHERE grant_id = $1 AND type = 'grant.ended'`,
    [id.slice(4)],
  );
  const [end] = rows;
  if (end === undefined || rows.length > 1) throw new Error(`it ended ${rows.length} times`);
  return end;
}

describe('when policy drifts', () => {
  test('what it does not permit any more is revoked with its session, the policy is named, and the rest goes on', async () => {
    const task = await open();
    const drifting = await issue(task, PAY);
    const staying = await issue(task, READ);
    const session = new pg.Client({ connectionString: String(drifting.credential['url']) });
    session.on('error', () => {});
    const ended = new Promise((resolve) => session.once('end', resolve));
    await session.connect();
    await house.broker.apply(changed({ [POLICIES]: forbid('resource.sensitivity == "restricted"') }));

    expect(await untilRevoked(drifting.grant)).toMatchObject({ ended_by: 'drift' });
    await ended;
    await untilDecided();
    expect(await owner.client().grant(staying.grant.id)).toMatchObject({ state: 'active' });
    expect(await rolesOf(staying.grant)).toBe(1);
    const end = await endOf(drifting.grant);
    expect(end).toMatchObject({
      cause: 'drift',
      payload: { because: 'denied_by_policy', policies: ['not-any-more'], revision: expect.any(Number) },
    });
    const [decision] = await house.onStore(
      'SELECT action, permitted, policies, revision::int FROM mayfly.decisions WHERE id = $1',
      [end.decision_id],
    );
    expect(decision).toEqual({
      ...{ action: 'retain', permitted: false, policies: ['not-any-more'] },
      revision: end.payload['revision'],
    });
  });
});

describe('when a task moves on', () => {
  const tell = async (task: { id: string }, phase: string) =>
    await owner.call('POST', `/v1/tasks/${task.id}/events`, {
      event: await eventOf(house, task.id, { op: 'phase', phase }),
    });

  test('what its new phase does not permit ends, in its children too, and what it permits stays', async () => {
    const [follower, bound] = [await Agent.make(house), await Agent.make(house)];
    const task = await open();
    const following = await owner.beget(task, follower);
    const staying = await owner.beget(task, bound, { phase: 'execute' });
    const pays = (await issue(task, PAY)).grant;
    const reads = [(await issue(task)).grant, (await issue(following, READ, follower)).grant] as const;
    const left = (await issue(staying, READ, bound)).grant;
    expect((await tell(task, 'closing')).status).toBe(200);

    expect(await untilRevoked(pays)).toMatchObject({ ended_by: 'drift' });
    expect(await untilRevoked(left, bound)).toMatchObject({ ended_by: 'drift' });
    await untilDecided();
    expect(await endOf(pays)).toMatchObject({ payload: { because: 'denied_by_policy', policies: [] } });
    expect(await endOf(left)).toMatchObject({ payload: { because: 'not_in_phase' } });
    expect(await rolesOf(...reads)).toBe(2);
    expect(await owner.client().grant(reads[0].id)).toMatchObject({ state: 'active' });
    expect(await follower.client().grant(reads[1].id)).toMatchObject({ state: 'active' });
    // By no revision but the one in force: it is the same.
    expect(
      (
        await house.onStore('SELECT DISTINCT decided_revision FROM mayfly.grants WHERE task_id = $1', [
          task.id.slice(5),
        ])
      ).length,
    ).toBe(1);
  });

  test('what is renewed meanwhile is decided once more, whatever the renewal was decided on', async () => {
    const files = changed({
      [POLICIES]: (text) =>
        text.replace(
          '[Mayfly::Action::"issue", Mayfly::Action::"retain"]',
          '[Mayfly::Action::"issue", Mayfly::Action::"renew"]',
        ),
    });
    await house.broker.apply(files);
    const task = await open();
    const { grant } = await issue(task, PAY);
    await house.onStore(`UPDATE mayfly.tasks SET phase = 'closing' WHERE id = $1`, [task.id.slice(5)]);
    const db = new Database({ url: house.store.runtimeUrl, connections: 1, onError: () => {} });
    try {
      const id = grant.id.slice(4) as GrantId;
      const [found] = await findGrants(db, [id]);
      if (found === undefined) throw new Error('it is gone');
      const { deadline, facts, decisionId, decidedRevision } = found.grant;
      await db.transaction({}, (tx) =>
        extendGrant(tx, id, deadline, facts ?? {}, decisionId, decidedRevision, 'execute'),
      );
    } finally {
      await db.close();
    }
    expect(await untilRevoked(grant)).toMatchObject({ ended_by: 'drift' });
  });
});

test('a replica that has not heard of the next revision ends nothing by the one it has in hand', async () => {
  const task = await open();
  const { grant } = await issue(task, PAY);
  const files = changed({ [POLICIES]: (text) => text.replace('principal.phase == "execute"', 'true') });
  const db = new Database({ url: house.store.runtimeUrl, connections: 1, onError: () => {} });
  try {
    const catalog = loadCatalog(files, { providers: await loadProviders(['postgres']), allowDev: true });
    await applyCatalog({ db, published: async () => {} }, catalog, 'another', 'test');
  } finally {
    await db.close();
  }
  await house.onStore(
    `WITH moved AS (UPDATE mayfly.tasks SET phase = 'closing' WHERE id = $1)
     UPDATE mayfly.grants SET retained_revision = 0 WHERE task_id = $1`,
    [task.id.slice(5)],
  );
  await untilDecided();
  expect(await owner.client().grant(grant.id)).toMatchObject({ state: 'active' });
});

describe('when the catalog takes away what a grant stands on', () => {
  const withoutPayments = (text: string) => text.slice(0, text.indexOf('- name: ledger-db/read-payments'));
  const onlyReading = (text: string) => text.slice(0, text.indexOf('@id("payments-while-executing")'));

  test('an entitlement that is withdrawn ends, and its neighbour stays', async () => {
    const task = await open();
    const [pays, reads] = [(await issue(task, PAY)).grant, (await issue(task)).grant];
    await house.broker.apply(changed({ 'entitlements/ledger-db.yaml': withoutPayments, [POLICIES]: onlyReading }));
    expect(await untilRevoked(pays)).toMatchObject({ ended_by: 'drift' });
    await untilDecided();
    expect(await endOf(pays)).toMatchObject({ payload: { because: 'entitlement_gone' } });
    expect(await owner.client().grant(reads.id)).toMatchObject({ state: 'active' });
  });

  test('a target that is dropped keeps its connection until all of it is clean', async () => {
    const task = await open();
    const grants = [(await issue(task)).grant, (await issue(task, PAY)).grant];
    const files = changed({ [POLICIES]: () => '@id("nothing") forbid (principal, action, resource);' });
    delete files['targets/ledger-db.yaml'];
    delete files['entitlements/ledger-db.yaml'];
    await house.broker.apply(files);
    for (const grant of grants) {
      expect(await untilRevoked(grant)).toMatchObject({ ended_by: 'drift' });
      expect(await endOf(grant)).toMatchObject({ payload: { because: 'entitlement_gone' } });
    }
    await vi.waitFor(async () => expect(await rolesOf(...grants)).toBe(0), { timeout: 60_000, interval: 50 });
  });

  test('tasks of an issuer that is distrusted are revoked with all below them, holding something or not', async () => {
    const child = await Agent.make(house);
    const [task, idle] = [await open(), await open()];
    const below = await owner.beget(task, child);
    const [own, theirs] = [(await issue(task)).grant, (await issue(below, READ, child)).grant];
    await house.broker.apply(changed({ 'trust.yaml': (text) => text.replaceAll('/orchestrator,', '/another,') }));
    expect(await untilRevoked(own)).toMatchObject({ ended_by: 'drift' });
    expect(await untilRevoked(theirs, child)).toMatchObject({ state: 'revoked' });
    await vi.waitFor(
      async () => {
        expect(await owner.client().task(task.id)).toMatchObject({ state: 'revoked', ended_by: 'drift' });
        expect(await owner.client().task(idle.id)).toMatchObject({ state: 'revoked', ended_by: 'drift' });
        expect(await child.client().task(below.id)).toMatchObject({ state: 'revoked', ended_by: 'parent_ended' });
      },
      { timeout: 60_000, interval: 50 },
    );
    const revoked = (await owner.client().timeline(idle.id)).find(({ type }) => type === 'task.revoked');
    expect(revoked?.payload).toMatchObject({ because: 'issuer_distrusted' });
  });

  test('what its issuer may not state any more ends, and is not to be had again', async () => {
    const task = await open();
    const { grant } = await issue(task);
    await house.broker.apply(
      changed({ 'trust.yaml': (text) => text.replace('[reconcile.invoices, answer.customer]', '[answer.customer]') }),
    );
    expect(await untilRevoked(grant)).toMatchObject({ ended_by: 'drift' });
    expect(await endOf(grant)).toMatchObject({ payload: { because: 'issuer_may_not_state' } });
    const again = await owner.call('POST', `/v1/tasks/${task.id}/grants`, { entitlement: READ });
    expect(outcome(again)).toEqual([403, 'issuer_may_not_state']);
    expect(await owner.client().task(task.id)).toMatchObject({ state: 'active' });
  });
});

describe('when policy fails', () => {
  /** It overflows for whom this holds. */
  const failing = (when: string) =>
    forbid(`${when} && principal.depth - 9223372036854775807 - 9223372036854775807 < 0`);
  const FAILED = 'mayfly_drift_decisions_total\\{outcome="failed"\\}';
  const metric = async (name: string) => {
    const text = await (await fetch(`${house.url}/metrics`)).text();
    return Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(text)?.[1] ?? Number.NaN);
  };

  test('for too many it revokes nothing and cries, and goes on by the next revision', async () => {
    const task = await open();
    const [first, second] = [(await issue(task)).grant, (await issue(task, PAY)).grant];
    await house.broker.apply(changed({ [POLICIES]: failing('principal.depth == 0') }));
    await vi.waitFor(async () => expect(await metric('mayfly_drift_stopped')).toBe(1), {
      timeout: 60_000,
      interval: 50,
    });
    expect(await metric(FAILED)).toBeGreaterThanOrEqual(2);
    expect(await rolesOf(first, second)).toBe(2);
    expect(await owner.client().grant(first.id)).toMatchObject({ state: 'active' });
    // Half of them fail: what the others would come to is not believed.
    const before = await metric(FAILED);
    const half = failing('resource.sensitivity == "confidential"');
    await house.broker.apply(
      changed({
        [POLICIES]: (text) =>
          forbid('resource.sensitivity == "restricted"')(half(text).replace('not-any-more', 'fails')),
      }),
    );
    await vi.waitFor(async () => expect(await metric(FAILED)).toBeGreaterThan(before), {
      timeout: 60_000,
      interval: 50,
    });
    expect(await owner.client().grant(second.id)).toMatchObject({ state: 'active' });
    await house.broker.apply(changed({ [POLICIES]: forbid('resource.sensitivity == "restricted"') }));
    expect(await untilRevoked(second)).toMatchObject({ ended_by: 'drift' });
    await untilDecided();
    await vi.waitFor(async () => expect(await metric('mayfly_drift_stopped')).toBe(0), { timeout: 60_000 });
    expect(await owner.client().grant(first.id)).toMatchObject({ state: 'active' });
  });

  test('for a few, those are left as they are and the others decided', async () => {
    const task = await open();
    const failed = (await issue(task, PAY)).grant;
    const staying = await Promise.all(Array.from({ length: 12 }, () => issue(task)));
    await house.broker.apply(changed({ [POLICIES]: failing('resource.sensitivity == "restricted"') }));
    await vi.waitFor(
      async () => {
        const rows = await house.onStore<{ id: string }>(
          `SELECT g.id FROM mayfly.grants g, mayfly.catalog_active a
           WHERE g.task_id = $1 AND g.state = 'active' AND coalesce(g.retained_revision, g.decided_revision) < a.revision`,
          [task.id.slice(5)],
        );
        expect(rows).toEqual([{ id: failed.id.slice(4) }]);
      },
      { timeout: 60_000, interval: 50 },
    );
    expect(await metric('mayfly_drift_stopped')).toBe(0);
    expect(await rolesOf(failed, ...staying.map(({ grant }) => grant))).toBe(13);
  });
});
