import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { foreseeDecisions } from '../../src/broker/foresee-decisions.ts';
import { loadCatalog } from '../../src/catalog/load.ts';
import { loadProviders } from '../../src/catalog/provider-registry.ts';
import type { GrantBody } from '../../src/client/index.ts';
import { checkedBody, whatIfBody } from '../../src/http/what-if-bodies.ts';
import { Database } from '../../src/store/database.ts';
import { ask } from '../support/ask.ts';
import { startCli } from '../support/cli.ts';
import { type House, startHouse } from '../support/house.ts';
import { operatorsOf } from '../support/operators.ts';

const READ = 'ledger-db/read-invoices';
const PAY = 'ledger-db/read-payments';
const POLICIES = 'policies/test.cedar';
const DIFF = '/v1/catalog/diff';
const CHECK = '/v1/catalog/check';

type Files = Readonly<Record<string, string>>;

let house: House;
let db: Database;
let folder: string;
let executing: string;
let planning: string;
let grants: readonly GrantBody[];

beforeAll(async () => {
  house = await startHouse();
  db = new Database({ url: house.store.runtimeUrl, connections: 3, onError: () => {} });
  folder = mkdtempSync(join(tmpdir(), 'mayfly-what-if-'));
  const client = house.client();
  executing = (await client.openTask(await house.sign({ phase: 'execute', entitlements: [READ, PAY] }))).task.id;
  planning = (await client.openTask(await house.sign({ phase: 'plan', entitlements: [READ, PAY] }))).task.id;
  const issued = [READ, READ, PAY].map(async (entitlement) => await client.issue(executing, { entitlement }));
  grants = (await Promise.all(issued)).map(({ grant }) => grant);
  // Denied: payments are for those who execute.
  await client.issue(planning, { entitlement: PAY }).catch(() => {});
});
afterAll(async () => {
  rmSync(folder, { recursive: true, force: true });
  await db?.close();
  await house?.stop();
});

const changed = (by: (policies: string) => string, more: Files = {}): Files => ({
  ...house.files,
  [POLICIES]: by(house.files[POLICIES] ?? ''),
  ...more,
});
/** Payments for those who plan, and no more for those who execute. */
const turned = () =>
  changed((policies) => policies.replace('principal.phase == "execute"', 'principal.phase == "plan"'));
const diff = async (files: Files) => {
  const reply = await operatorsOf(house).post(DIFF, { files });
  expect([reply.status, reply.body['code']]).toEqual([200, undefined]);
  return whatIfBody.parse(reply.body);
};
const unchanging = { newly_denied: 0, newly_permitted: 0, failed: 0, impossible: 0, sampled: false };

describe('what a catalog would change', () => {
  test('nothing, where it is the one in force', async () => {
    const seen = await diff(house.files);
    expect(seen).toMatchObject({
      changes: [],
      drift: { living: 3, would_end: 0 },
      decisions: { looked: 4, unchanged: 4, ...unchanging },
    });
    expect(seen.from).toBe(seen.to);
  });

  test('is told by decision, task and owner, and by living grant', async () => {
    const { drift, decisions, changes } = await diff(turned());
    expect(changes).toMatchObject([{ kind: 'policy', name: 'payments-while-executing', change: 'changed' }]);
    expect(drift).toMatchObject({
      living: 3,
      would_end: 1,
      told: 1,
      tasks: [{ task: executing, grants: [{ entitlement: PAY }] }],
    });
    expect(decisions).toMatchObject({ ...unchanging, looked: 4, unchanged: 2, newly_denied: 1, newly_permitted: 1 });
    expect(decisions.changed).toEqual([
      expect.objectContaining({
        task: planning,
        action: 'issue',
        resource: PAY,
        decision: 'permit',
        because: null,
        policies: ['payments-while-executing'],
      }),
      expect.objectContaining({
        task: executing,
        workload: 'dev:agent-recon',
        resource: PAY,
        decision: 'deny',
        because: 'denied_by_policy',
        policies: [],
      }),
    ]);
    expect(decisions.changed[1]?.id).toBe(grants[2]?.decision_id);
    expect(decisions.tasks).toEqual({
      total: 2,
      items: expect.arrayContaining([
        { task: planning, workload: 'dev:agent-recon', newly_denied: 0, newly_permitted: 1 },
        { task: executing, workload: 'dev:agent-recon', newly_denied: 1, newly_permitted: 0 },
      ]),
    });
    expect(decisions.workloads).toEqual({
      total: 1,
      items: [{ workload: 'dev:agent-recon', newly_denied: 1, newly_permitted: 1 }],
    });
  });

  test('what the catalog says is the proposed one’s: attributes, data classes, entitlements, issuers', async () => {
    const bySensitivity = (policies: string) =>
      `${policies}\n@id("no-secrets") forbid (principal is Mayfly::Task, action, resource is Mayfly::Entitlement) when { resource.sensitivity == "restricted" };`;
    const entitlements = house.files['entitlements/ledger-db.yaml'] ?? '';
    const raised = entitlements.replace('sensitivity: confidential', 'sensitivity: restricted');
    const secret = await diff(changed(bySensitivity, { 'entitlements/ledger-db.yaml': raised }));
    expect(secret.decisions).toMatchObject({ newly_denied: 3, unchanged: 1 });
    expect(secret.decisions.changed.map(({ policies }) => policies)).toEqual([
      ['no-secrets'],
      ['no-secrets'],
      ['no-secrets'],
    ]);

    const dropped = entitlements.slice(0, entitlements.indexOf('- name: ledger-db/read-payments'));
    const without = (policies: string) => policies.slice(0, policies.indexOf('@id("payments-while-executing")'));
    const gone = await diff(changed(without, { 'entitlements/ledger-db.yaml': dropped }));
    expect(gone.decisions).toMatchObject({ newly_denied: 1, newly_permitted: 0 });
    expect(gone.decisions.changed).toMatchObject([{ because: 'entitlement_gone', policies: [] }]);
    expect(gone.drift.tasks).toMatchObject([{ grants: [{ because: 'entitlement_gone' }] }]);

    const trust = (house.files['trust.yaml'] ?? '').replace(
      '[reconcile.invoices, answer.customer]',
      '[answer.customer]',
    );
    const distrusted = await diff({ ...house.files, 'trust.yaml': trust });
    expect(distrusted.decisions).toMatchObject({ newly_denied: 3, unchanged: 1 });
    expect(new Set(distrusted.decisions.changed.map(({ because }) => because))).toEqual(
      new Set(['issuer_may_not_state']),
    );
  });

  test('a policy that fails is counted apart', async () => {
    const failing = (policies: string) =>
      `${policies}\n@id("bad") forbid (principal is Mayfly::Task, action, resource is Mayfly::Entitlement) when { principal.depth - 9223372036854775807 - 9223372036854775807 < 0 };`;
    expect(await diff(changed(failing))).toMatchObject({
      drift: { would_end: 0, undecidable: 3 },
      decisions: { failed: 4, newly_denied: 0, newly_permitted: 0, unchanged: 0 },
    });
  });

  test('the newest are looked at where there are too many, and it says so', async () => {
    const options = { providers: await loadProviders(['postgres']), allowDev: true };
    const [active, next] = [house.files, turned()].map((files) => loadCatalog(files, options));
    if (active === undefined || next === undefined) throw new Error('no catalogs');
    expect(await foreseeDecisions(db, active, next, undefined, 4)).toMatchObject({ looked: 4, sampled: false });
    expect(await foreseeDecisions(db, active, next, undefined, 1)).toMatchObject({
      looked: 1,
      sampled: true,
      newlyPermitted: 1,
      newlyDenied: 0,
    });
    // Of before the last day nothing is told.
    await house.onStore(
      `UPDATE mayfly.decisions SET decided_at = decided_at - interval '25 hours' WHERE NOT permitted`,
    );
    expect(await foreseeDecisions(db, active, next)).toMatchObject({ looked: 3, newlyPermitted: 0, newlyDenied: 1 });
    await house.onStore(
      `UPDATE mayfly.decisions SET decided_at = decided_at + interval '25 hours' WHERE NOT permitted`,
    );
    const gone = AbortSignal.abort();
    await expect(foreseeDecisions(db, active, next, gone)).rejects.toThrow('abort');
  });
});

/** Payments once somebody of that group has approved them. */
const approvedBy = (group: string) => {
  const trust = (house.files['trust.yaml'] ?? '').replace(
    /\n {6}roles: \{[^}]*\}/,
    '$&,\n      groups: { viewer: [finance, security] }',
  );
  const once = `@require_approval("${group}") @id("payments-while-executing")`;
  return changed((policies) => policies.replace('@id("payments-while-executing")', once), { 'trust.yaml': trust });
};

describe('whom a catalog would ask for approval', () => {
  test('is told of what was decided and of what lives, by group', async () => {
    const { drift, decisions } = await diff(approvedBy('finance'));
    const byFinance = [{ group: 'finance', newly_needed: 1, no_longer_needed: 0 }];
    expect(drift).toMatchObject({ would_end: 1, approvals: byFinance });
    expect(drift.tasks).toMatchObject([
      { grants: [{ because: 'approval_required (payments-while-executing)', groups: ['finance'] }] },
    ]);
    expect(decisions).toMatchObject({ ...unchanging, newly_to_be_approved: 1, no_longer_to_be_approved: 0 });
    expect([decisions.unchanged, decisions.approvals]).toEqual([3, byFinance]);
    expect(decisions.changed).toMatchObject([
      { decision: 'permit', because: 'approval_required', newly_approved_by: ['finance'], resource: PAY },
    ]);
    // Whatever permits it, and where the rule of the limits says so.
    const files = approvedBy('finance');
    const limits = 'approvals: [{ name: reading, of: { sensitivities: [confidential] }, group: security }]';
    const both = await diff({ ...files, 'limits.yaml': limits });
    expect(both.drift).toMatchObject({ would_end: 3 });
    expect(both.decisions.newly_to_be_approved).toBe(3);
    expect(both.decisions.approvals).toContainEqual({ group: 'security', newly_needed: 2, no_longer_needed: 0 });
  });
});

describe('over HTTP', () => {
  test('the same is told as in the terminal', { timeout: 60_000 }, async () => {
    const to = mkdtempSync(join(folder, 'catalog-'));
    for (const [path, text] of Object.entries(turned())) {
      mkdirSync(dirname(join(to, path)), { recursive: true });
      writeFileSync(join(to, path), text);
    }
    const env = { MAYFLY_DATABASE_URL: house.store.runtimeUrl.reveal(), MAYFLY_PROVIDERS: 'postgres' };
    const asJson = await startCli(['catalog', 'diff', to, '--json'], { env }).ended;
    const seen = whatIfBody.parse(JSON.parse(asJson.stdout));
    const { decisions, ...others } = await diff(turned());
    const since = { since: expect.any(String) };
    expect({ ...seen, decisions: { ...seen.decisions, ...since } }).toEqual({
      ...others,
      decisions: { ...decisions, ...since },
    });
    const { stdout } = await startCli(['catalog', 'diff', to], { env }).ended;
    expect(stdout).toContain('~ policy payments-while-executing');
    expect(stdout).toContain('Of 3 living grants 1 would end.');
    expect(stdout).toContain('Of 4 decisions of the last day: 1 newly denied, 1 newly permitted, 2 as they were.');
    expect(stdout).toMatch(new RegExp(`- issue +${PAY} +dev:agent-recon +${executing} +denied_by_policy`));
    expect(stdout).toMatch(
      new RegExp(`\\+ issue +${PAY} +dev:agent-recon +${planning} +\\(payments-while-executing\\)`),
    );
  });

  test('a catalog is checked whole, and no reference is resolved', async () => {
    const operators = operatorsOf(house);
    const check = async (files: Files) => checkedBody.parse((await operators.post(CHECK, { files })).body);
    expect(await check(house.files)).toEqual({
      ok: true,
      digest: expect.stringMatching(/^sha256:/),
      errors: [],
      policy_tests: [],
    });
    const target = (house.files['targets/ledger-db.yaml'] ?? '').replace(
      'file:password',
      'env:MAYFLY_TARGET_LEDGER_DB_NOWHERE',
    );
    expect(await check({ ...house.files, 'targets/ledger-db.yaml': target })).toMatchObject({ ok: true });
    expect(await check({})).toMatchObject({
      ok: false,
      errors: [{ path: 'purposes.yaml:1 ' }, { path: 'trust.yaml:1 ' }].map(() => expect.anything()),
    });
  });

  const bad: readonly (readonly [string, () => Files, string])[] = [
    ['does not parse', () => changed(() => '@id("x") permit (principal'), POLICIES],
    [
      'names an unknown entitlement',
      () => changed((p) => p.replaceAll('read-payments"', 'read-nothing"')),
      'read-nothing',
    ],
    ['reads what is not there', () => changed((p) => p.replace('principal.phase', 'principal.phases')), 'phases'],
    ['is a megabyte of policies', () => changed((p) => p + `// ${'x'.repeat(78)}\n`.repeat(13_000)), 'larger than'],
    ['is no file of a catalog', () => ({ ...house.files, '../../etc/passwd': 'x' }), '../../etc/passwd'],
  ];
  test.each(bad)('one that %s is refused by name', async (_, files, named) => {
    const operators = operatorsOf(house);
    const checked = checkedBody.parse((await operators.post(CHECK, { files: files() })).body);
    expect(checked.ok).toBe(false);
    expect(JSON.stringify(checked.errors)).toContain(named);
    const refused = await operators.post(DIFF, { files: files() });
    expect([refused.status, refused.body['code'], refused.body['errors']]).toEqual([
      422,
      'catalog_invalid',
      checked.errors,
    ]);
  });

  test('what is larger than a catalog may be is refused, and read for nobody but operators', async () => {
    const files = { 'policies/a.cedar': 'x'.repeat(5 * 1024 * 1024) };
    const refused = await operatorsOf(house).post(DIFF, { files });
    expect([refused.status, refused.body['code']]).toEqual([413, 'body_too_large']);
    for (const path of [CHECK, DIFF]) {
      const agent = await ask(house.url, 'POST', path, { token: await house.token(), body: { files } });
      expect([agent.status, agent.body['code']]).toEqual([403, 'operator_only']);
      const nobody = await ask(house.url, 'POST', path, { body: { files } });
      expect([nobody.status, nobody.body['code']]).toEqual([401, 'workload_token_missing']);
      const viewer = await operatorsOf(house).post(path, { files: house.files }, 'viewer');
      expect([viewer.status, viewer.body['code']]).toEqual([403, 'operator_only']);
    }
  });

  test('of several at once one is answered, and the others are told when to come again', async () => {
    const replies = await Promise.all(
      Array.from({ length: 6 }, () => operatorsOf(house).post(DIFF, { files: turned() })),
    );
    const ok = replies.filter(({ status }) => status === 200);
    const busy = replies.filter(({ status }) => status !== 200);
    expect(ok.length).toBeGreaterThan(0);
    for (const one of busy)
      expect([one.status, one.body['code'], one.headers['retry-after']]).toEqual([429, 'comparison_running', '5']);
  });
});

test('what was foreseen is what happens', async () => {
  const { drift } = await diff(turned());
  const foreseen = drift.tasks.flatMap((task) => task.grants.map(({ id }) => id));
  await house.broker.apply(turned());
  const client = house.client();
  await vi.waitFor(
    async () => {
      const [row] = await house.onStore<{ behind: number }>(
        `SELECT count(*)::int AS behind FROM mayfly.grants, mayfly.catalog_active a
         WHERE state IN ('minting', 'active') AND coalesce(retained_revision, decided_revision) < a.revision`,
      );
      expect(row?.behind).toBe(0);
    },
    { timeout: 30_000, interval: 50 },
  );
  const now = await Promise.all(grants.map(async ({ id }) => await client.grant(id)));
  expect(now.filter(({ ended_by: by }) => by === 'drift').map(({ id }) => id)).toEqual(foreseen);
  // And what was newly denied and newly permitted is.
  await expect(client.issue(executing, { entitlement: PAY })).rejects.toMatchObject({ code: 'denied_by_policy' });
  expect((await client.issue(planning, { entitlement: PAY })).grant.state).toBe('active');
  await house.broker.apply(house.files);
});
