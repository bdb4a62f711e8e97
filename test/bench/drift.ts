import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import pg from 'pg';
import { loadCatalog } from '../../src/catalog/load.ts';
import { loadProviders } from '../../src/catalog/provider-registry.ts';
import { createPolicyEngine } from '../../src/policy/engine.ts';
import { noUses } from '../../src/domain/holdings.ts';
import { historyOf } from '../../src/policy/history.ts';
import { quiet } from '../../src/policy/signals.ts';
import { BENCH_FILES, startBenchHouse } from './lib/bench-house.ts';
import { warmUp } from './lib/grants.ts';
import { call, closeConnections } from './lib/http.ts';
import { seedOutstanding } from './lib/outstanding.ts';
import { quantile, report, type Row } from './lib/report.ts';
import { issue } from './lib/storm.ts';

/**
 * `--count` living grants decided again after an apply that permits them all, while one caller issues as before. Rounds alternate
 * between nothing else and the sweep. The floor is Cedar alone: the same policies, the same task, on one core with nothing beside it.
 */
const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '10000' },
    policies: { type: 'string', default: '10' },
    rounds: { type: 'string', default: '3' },
    json: { type: 'string' },
  },
});
const COUNT = Number(values.count);
const ASK_MILLIS = 20;
const IDLE_ASKS = 200;

/** Policies that say nothing about these grants, beside the one that permits them. */
const others = Array.from(
  { length: Number(values.policies) - 1 },
  (
    _,
    n,
  ) => `@id("other-${n}") permit (principal is Mayfly::Task, action, resource == Mayfly::Entitlement::"ledger-db/read-payments")
when { principal.purpose == "reconcile.invoices" && principal.subject == "user:${n}" && context.ttl <= duration("${n + 1}s") };`,
);
const policy = `${BENCH_FILES['policies/test.cedar']}\n${others.join('\n')}`;

const house = await startBenchHouse({ also: async () => ({ files: { 'policies/test.cedar': policy } }) });
const store = new pg.Client({ connectionString: house.store.ownerUrl.reveal() });
try {
  await store.connect();
  const token = await house.token();
  await warmUp(house, token, 100);
  await seedOutstanding(house, COUNT);
  const cedar = await decisionsPerSecond();
  const opened = await call('POST', `${house.url}/v1/tasks`, token, { request: await house.sign({ ttl: 3_000 }) });
  const { id: task } = opened.body['task'] as { id: string };

  const idle: number[] = [];
  const busy: number[] = [];
  const seconds: number[] = [];
  for (let round = 1; round <= Number(values.rounds); round++) {
    idle.push(...(await ask(token, task, (asked) => asked < IDLE_ASKS)));
    let over = false;
    const asking = ask(token, task, () => !over);
    seconds.push(
      await sweep(round).finally(() => {
        over = true;
      }),
    );
    busy.push(...(await asking));
  }
  const rate = COUNT / quantile(seconds, 0.5);
  const row = (name: string, millis: readonly number[]): Row => ({
    case: name,
    value: quantile(millis, 0.95),
    unit: 'ms',
    p50_ms: quantile(millis, 0.5),
    p99_ms: quantile(millis, 0.99),
  });
  const before = row('issuing p95, idle', idle);
  const during = row('issuing p95, in the sweep', busy);
  report('drift', [
    { case: `all ${COUNT} decided`, value: quantile(seconds, 0.5), unit: 's' },
    { case: 'decided', value: rate, unit: 'grants/s', ratio: rate / cedar, of: 'Cedar alone' },
    { case: 'Cedar alone', value: cedar, unit: 'decisions/s' },
    before,
    { ...during, ratio: during.value / before.value, of: before.case },
  ]);
} finally {
  closeConnections();
  await store.end();
  await house.stop();
}

/** Applies another revision and waits until nothing is behind it. Seconds from its commit, by the store's clock. */
async function sweep(round: number): Promise<number> {
  await house.broker.apply({ ...house.files, 'policies/test.cedar': `${policy}\n// ${round}` });
  for (;;) {
    const { rows } = await store.query<{ behind: boolean; seconds: number }>(
      `SELECT EXISTS (SELECT FROM mayfly.grants WHERE state IN ('minting', 'active') AND coalesce(retained_revision, decided_revision) < c.number) AS behind,
         extract(epoch FROM clock_timestamp() - c.applied_at)::float8 AS seconds
       FROM mayfly.catalog_active a JOIN mayfly.catalog_revisions c ON c.number = a.revision`,
    );
    const [now] = rows;
    if (now?.behind === false) return now.seconds;
    await pause(20);
  }
}

async function ask(token: string, task: string, goOn: (asked: number) => boolean): Promise<number[]> {
  const millis: number[] = [];
  while (goOn(millis.length)) {
    const before = performance.now();
    await issue(house, token, task, 'ledger-db');
    millis.push(performance.now() - before);
    await pause(ASK_MILLIS);
  }
  return millis;
}

async function decisionsPerSecond(): Promise<number> {
  const providers = await loadProviders(['postgres']);
  const catalog = loadCatalog(house.files, { providers, allowDev: true });
  const entitlement = catalog.entitlements.get('ledger-db/read-invoices');
  const target = catalog.targets.get('ledger-db');
  if (entitlement === undefined || target === undefined) throw new Error('the catalog lacks it');
  const engine = createPolicyEngine(catalog.policySet, catalog.digest);
  const now = new Date();
  const none = {
    ...{ live_grants: 0, grants: 0, own_live_grants: 0, own_grants: 0 },
    sensitive_sinks: 0,
    held: {},
    touched: [],
    given: {},
    uses: noUses,
  };
  const decide = () =>
    engine.decide({
      action: 'retain',
      now,
      task: {
        ...{ id: 'task', purpose: 'reconcile.invoices', phase: null, issuer: 'i', subject: 's', depth: 0, params: {} },
        ...{ workload: { source: 'dev', subject: 'agent-recon' }, instance: null, proofOfPossession: true },
        ...{ createdAt: now, notAfter: now },
      },
      entitlement,
      target,
      ttlSeconds: 60,
      guarantee: 'immediate',
      history: historyOf(none, 0, entitlement.name, catalog),
      signals: quiet,
    });
  for (let n = 0; n < 500; n++) if (!decide().permitted) throw new Error('it is not permitted');
  const began = performance.now();
  for (let n = 0; n < 2_000; n++) decide();
  engine.close();
  return (2_000 / (performance.now() - began)) * 1000;
}
