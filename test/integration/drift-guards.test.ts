import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { applyCatalog } from '../../src/broker/apply-catalog.ts';
import { foreseeDrift, type Guard, requireLittleDrift } from '../../src/broker/foresee-drift.ts';
import { loadCatalog } from '../../src/catalog/load.ts';
import { loadProviders } from '../../src/catalog/provider-registry.ts';
import type { GrantBody } from '../../src/client/index.ts';
import { MayflyError } from '../../src/domain/errors.ts';
import { Database } from '../../src/store/database.ts';
import { ask } from '../support/ask.ts';
import { type Ended, startCli } from '../support/cli.ts';
import { type House, startHouse } from '../support/house.ts';
import { operatorsOf } from '../support/operators.ts';

const READ = 'ledger-db/read-invoices';
const PAY = 'ledger-db/read-payments';
const POLICIES = 'policies/test.cedar';

let house: House;
let db: Database;
let providers: Awaited<ReturnType<typeof loadProviders>>;
let task: string;
let grants: readonly { readonly grant: GrantBody }[];
let folder: string;

beforeAll(async () => {
  house = await startHouse();
  db = new Database({ url: house.store.runtimeUrl, connections: 3, onError: () => {} });
  providers = await loadProviders(['postgres']);
  folder = mkdtempSync(join(tmpdir(), 'mayfly-guards-'));
});
afterAll(async () => {
  rmSync(folder, { recursive: true, force: true });
  await db?.close();
  await house?.stop();
});
/** Nine that stay, and one that would not. */
beforeEach(async () => {
  await house.broker.apply(house.files);
  if (task !== undefined) await house.client().complete(task, { wait: 20 });
  const client = house.client();
  task = (await client.openTask(await house.sign({ phase: 'execute', entitlements: [READ, PAY] }))).task.id;
  grants = await Promise.all(
    Array.from({ length: 10 }, (_, n) => client.issue(task, { entitlement: n === 0 ? PAY : READ })),
  );
});

const forbidding = (when: string): Record<string, string> => ({
  ...house.files,
  [POLICIES]: `${house.files[POLICIES] ?? ''}
@id("not-any-more") forbid (principal is Mayfly::Task, action, resource is Mayfly::Entitlement) when { ${when} };`,
});
const noPayments = () => forbidding('resource.sensitivity == "restricted"');
const nothing = () => forbidding('true');
const load = (files: Readonly<Record<string, string>>) => loadCatalog(files, { providers, allowDev: true });
const apply = async (files: Readonly<Record<string, string>>, guard: Guard) =>
  await applyCatalog({ db, published: async () => {} }, load(files), 'test', 'test', { guard });
const guard = (maxDriftShare: number, expectRevoked: number | null = null): Guard => ({ maxDriftShare, expectRevoked });

async function refusalOf(work: Promise<unknown>): Promise<MayflyError> {
  const error: unknown = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof MayflyError)) throw new Error(`it was not refused: ${String(error)}`);
  return error;
}
const activeRevision = async () =>
  (await house.onStore<{ revision: string }>('SELECT revision FROM mayfly.catalog_active'))[0]?.revision;

describe('before an apply commits', () => {
  test('what would end is told by grant, task and owner, with the policies', async () => {
    const foreseen = await foreseeDrift(db, load(noPayments()));
    expect(foreseen).toEqual({
      living: new Map([['ledger-db', 10]]),
      failed: 0,
      reported: 0,
      approvals: new Map(),
      ends: [
        {
          grantId: grants[0]?.grant.id.slice(4),
          taskId: task.slice(5),
          workload: 'dev:agent-recon',
          entitlement: PAY,
          target: 'ledger-db',
          because: 'denied_by_policy',
          policies: ['not-any-more'],
          groups: [],
        },
      ],
    });
    expect((await foreseeDrift(db, load(house.files))).ends).toEqual([]);
    const fails = forbidding('principal.depth - 9223372036854775807 - 9223372036854775807 < 0');
    expect(await foreseeDrift(db, load(fails))).toMatchObject({ ends: [], failed: 10 });
  });

  test('a tenth may end unasked, and not more', async () => {
    const before = await activeRevision();
    const refused = await refusalOf(apply(nothing(), guard(10)));
    expect(refused).toMatchObject({
      code: 'too_much_drift',
      members: { living: 10, would_end: 10, targets: [{ target: 'ledger-db', living: 10, would_end: 10 }] },
    });
    expect(refused.detail).toContain('10 of 10 on ledger-db');
    expect(await refusalOf(apply(noPayments(), guard(9)))).toMatchObject({ code: 'too_much_drift' });
    expect(await activeRevision()).toBe(before);
    expect(await apply(noPayments(), guard(10))).not.toBeNull();
  });

  test('of each target, however few it has of all', async () => {
    const foreseen = await foreseeDrift(db, load(noPayments()));
    const living = new Map([
      ['ledger-db', 5],
      ['other', 995],
    ]);
    expect(() => requireLittleDrift({ ...foreseen, living }, guard(10))).toThrow(MayflyError);
    expect(() => requireLittleDrift({ ...foreseen, living: new Map([['ledger-db', 10]]) }, guard(10))).not.toThrow();
    expect(() =>
      requireLittleDrift({ ends: [], living, failed: 0, reported: 0, approvals: new Map() }, guard(0)),
    ).not.toThrow();
  });

  test('whoever says the number may end so many, and exactly so many', async () => {
    expect((await refusalOf(apply(nothing(), guard(100, 9)))).detail).toContain('9 were expected');
    expect(await refusalOf(apply(noPayments(), guard(10, 0)))).toMatchObject({ code: 'too_much_drift' });
    expect(await apply(nothing(), guard(10, 10))).not.toBeNull();
    const [told] = await house.onStore<{ payload: unknown }>(
      `SELECT payload FROM mayfly.audit_events WHERE type = 'catalog.applied' ORDER BY ts DESC LIMIT 1`,
    );
    expect(told?.payload).toMatchObject({ living: 10, would_end: 10 });
  });
});

describe('of two applies at once', () => {
  test('one wins, and the other is told: no revision is half of either', async () => {
    const before = Number(await activeRevision());
    const outcomes = await Promise.allSettled(
      [noPayments(), forbidding('resource.sensitivity == "public"')].map((files) =>
        applyCatalog({ db, published: async () => {} }, load(files), 'test', 'test', { expected: before }),
      ),
    );
    expect(outcomes.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    const lost = outcomes.find((outcome) => outcome.status === 'rejected');
    expect(lost?.reason).toMatchObject({ code: 'catalog_changed' });
    await house.broker.apply(house.files);
  });

  test('that both mean what they say, living grants are decided by the one that stands', async () => {
    await Promise.all([house.broker.apply(nothing()), house.broker.apply(noPayments())]);
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
    const rows = await house.onStore<{ standing: number; forbids: boolean; active: number }>(
      `SELECT r.number::int AS standing, r.files::text LIKE '%when { true }%' AS forbids,
         (SELECT count(*)::int FROM mayfly.grants WHERE state = 'active' AND entitlement = '${READ}') AS active
       FROM mayfly.catalog_revisions r JOIN mayfly.catalog_active a ON a.revision = r.number`,
    );
    const [now] = rows;
    // What the first one ended stays ended; under the one that forbids all nothing lives.
    expect(now?.forbids === false || now?.active === 0).toBe(true);
  });
});

test('a revision that is applied twice is one revision, and nothing is decided again by it', async () => {
  await house.broker.apply(noPayments());
  const before = await activeRevision();
  await house.broker.apply(noPayments());
  expect(await activeRevision()).toBe(before);
});

test('a rollback is a revision of its own: what is denied by the one before it stays ended, and is to be had again', async () => {
  await house.broker.apply(noPayments());
  const [drifting] = grants;
  const client = house.client();
  await vi.waitFor(
    async () => expect(await client.grant(drifting?.grant.id ?? '')).toMatchObject({ state: 'revoked' }),
    { timeout: 60_000, interval: 30 },
  );
  await house.broker.apply(house.files);
  expect((await client.issue(task, { entitlement: PAY })).grant.state).toBe('active');
  expect(await client.grant(drifting?.grant.id ?? '')).toMatchObject({ state: 'revoked', ended_by: 'drift' });
});

test('a revision that is enforced by report ends nothing and tells what it would, until it is applied in earnest', async () => {
  const report = (enforce: 'report' | 'revoke') =>
    applyCatalog({ db, published: async () => {} }, load(noPayments()), 'test', 'test', { enforce });
  const revision = (await report('report'))?.number;
  expect(await report('report')).toBeNull();
  const [drifting] = grants;
  const id = drifting?.grant.id.slice(4);
  await vi.waitFor(
    async () => {
      const told = await house.onStore(
        `SELECT decision, payload FROM mayfly.audit_events WHERE type = 'decision.made' AND action = 'retain' AND grant_id = $1`,
        [id],
      );
      expect(told).toEqual([
        {
          decision: 'deny',
          payload: expect.objectContaining({ enforce: 'report', policies: ['not-any-more'], revision }),
        },
      ]);
    },
    { timeout: 60_000, interval: 50 },
  );
  const client = house.client();
  expect(await client.grant(drifting?.grant.id ?? '')).toMatchObject({ state: 'active' });
  expect((await operatorsOf(house).get('/v1/catalog')).body).toMatchObject({ revision, enforce: 'report' });
  expect((await report('revoke'))?.number).toBeGreaterThan(revision ?? 0);
  await vi.waitFor(
    async () =>
      expect(await client.grant(drifting?.grant.id ?? '')).toMatchObject({ state: 'revoked', ended_by: 'drift' }),
    { timeout: 60_000, interval: 50 },
  );
});

test('a forbid that is only told ends and refuses nothing, and says what it would', async () => {
  const files = {
    ...house.files,
    [POLICIES]: `${house.files[POLICIES] ?? ''}
@id("soon") @enforce("report") forbid (principal is Mayfly::Task, action, resource is Mayfly::Entitlement) when { resource.sensitivity == "restricted" };`,
  };
  expect(await foreseeDrift(db, load(files))).toMatchObject({ ends: [], failed: 0, reported: 1 });
  await house.broker.apply(files);
  const told = async (action: string) =>
    await house.onStore<{ grant_id: string; decision: string; payload: Record<string, unknown> }>(
      `SELECT grant_id, decision, payload FROM mayfly.audit_events WHERE type = 'decision.made' AND action = $1 AND task_id = $2 AND policy_digest = $3`,
      [action, task.slice(5), load(files).digest],
    );
  const [paying] = grants;
  await vi.waitFor(
    async () =>
      expect(await told('retain')).toEqual([
        {
          ...{ grant_id: paying?.grant.id.slice(4), decision: 'deny' },
          payload: expect.objectContaining({ enforce: 'report', policies: ['soon'] }),
        },
      ]),
    { timeout: 20_000, interval: 50 },
  );
  const client = house.client();
  expect(await client.grant(paying?.grant.id ?? '')).toMatchObject({ state: 'active' });
  expect((await client.issue(task, { entitlement: PAY })).grant.state).toBe('active');
  expect(await told('issue')).toMatchObject([{ decision: 'permit', payload: { reported: ['soon'] } }]);
});

describe('in the terminal', () => {
  vi.setConfig({ testTimeout: 180_000 });
  const mayfly = async (...args: string[]): Promise<Ended> =>
    await startCli(args, {
      env: { MAYFLY_DATABASE_URL: house.store.runtimeUrl.reveal(), MAYFLY_PROVIDERS: 'postgres' },
    }).ended;
  const write = (files: Readonly<Record<string, string>>): string => {
    const to = mkdtempSync(join(folder, 'catalog-'));
    for (const [path, text] of Object.entries(files)) {
      mkdirSync(dirname(join(to, path)), { recursive: true });
      writeFileSync(join(to, path), text);
    }
    return to;
  };

  test('diff shows what would end, apply refuses it until its number is said, and status how far it is', async () => {
    const to = write(nothing());
    const diff = await mayfly('catalog', 'diff', to);
    expect(diff.stdout).toContain('Of 10 living grants 10 would end.');
    expect(diff.stdout).toMatch(new RegExp(`${task} +dev:agent-recon +${PAY} +denied_by_policy \\(not-any-more\\)`));
    const asJson = JSON.parse((await mayfly('catalog', 'diff', to, '--json')).stdout);
    expect(asJson.drift).toMatchObject({ living: 10, would_end: 10, undecidable: 0, tasks: [{ task }] });

    const refused = await mayfly('catalog', 'apply', to);
    expect([refused.code, refused.stdout]).toEqual([1, '']);
    expect(refused.stderr).toContain('10 of 10 on ledger-db');
    expect(refused.stderr).toContain('--expect-revoked');
    expect((await mayfly('catalog', 'apply', to, '--expect-revoked', 'all')).code).not.toBe(0);
    const applied = await mayfly('catalog', 'apply', to, '--expect-revoked', '10');
    expect(applied.stdout).toMatch(
      /^Revision \d+ is active\. \d+ living grants? (is|are) yet to be decided by it\.\n$/,
    );
    await vi.waitFor(
      async () => {
        const reply = await operatorsOf(house).get('/v1/catalog');
        expect(reply.body).toMatchObject({ drift: { undecided: 0, oldest_seconds: 0 } });
      },
      { timeout: 60_000, interval: 50 },
    );
    const status = await mayfly('catalog', 'status');
    expect(status.stdout).toContain('All living grants are decided by it.');
    expect(JSON.parse((await mayfly('catalog', 'status', '--json')).stdout)).toMatchObject({ drift: { undecided: 0 } });
    expect((await ask(house.url, 'GET', '/v1/catalog', { token: await house.token() })).status).toBe(403);
  });
});
