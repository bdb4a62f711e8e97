import { describe, expect, test } from 'vitest';
import type { Observer } from './broker/deps.ts';
import { createMetrics, type ScrapeSources } from './metrics.ts';
import type { IdentityObserver } from './identity/index.ts';
import type { RevocationObserver } from './revocation/deps.ts';
import type { Backlog } from './store/revocations.ts';

const nothing: ScrapeSources = {
  queue: async () => ({
    backlog: [],
    paused: new Map(),
    residual: new Map(),
    kills: new Map(),
    killsUnconfirmed: false,
  }),
  drift: async () => ({ undecided: 0, oldestSeconds: 0, left: [] }),
  webhooks: async () => [],
  approvals: async () => ({ pending: 0, oldestSeconds: 0 }),
  signals: async () => [],
  sweepAge: () => 0.25,
  targets: [],
};

async function scrape(
  metrics: ReturnType<typeof createMetrics>,
  sources: Partial<ScrapeSources> = {},
): Promise<string[]> {
  const { text } = await metrics.scrape({ ...nothing, ...sources });
  return text.split('\n').filter((line) => line.startsWith('mayfly_'));
}

describe('the metrics', () => {
  test('are what the use cases and the revocation engine report to', () => {
    const observer: Observer & RevocationObserver & IdentityObserver = createMetrics();
    expect(observer).toBeDefined();
  });

  test('count decisions, and failures of policy apart', async () => {
    const metrics = createMetrics();
    metrics.decided('issue', true, false);
    metrics.decided('issue', false, false);
    metrics.decided('renew', false, true);
    expect(await scrape(metrics)).toEqual(
      expect.arrayContaining([
        'mayfly_decisions_total{action="issue",outcome="permit"} 1',
        'mayfly_decisions_total{action="issue",outcome="deny"} 1',
        'mayfly_decisions_total{action="renew",outcome="deny"} 1',
        'mayfly_policy_failures_total{action="renew"} 1',
      ]),
    );
  });

  test('tell when the keys of each trusted party were fetched, and what failed, until nobody trusts it', async () => {
    const metrics = createMetrics();
    metrics.trusted(['idp', 'cluster']);
    metrics.keysFetched('idp');
    metrics.identityFailed('cluster', 'keys');
    metrics.identityFailed('cluster', 'token_review');
    const lines = await scrape(metrics);
    expect(lines).toEqual(
      expect.arrayContaining([
        'mayfly_identity_failures_total{source="idp",what="keys"} 0',
        'mayfly_identity_failures_total{source="cluster",what="keys"} 1',
        'mayfly_identity_failures_total{source="cluster",what="token_review"} 1',
        expect.stringMatching(/^mayfly_identity_keys_fetched_timestamp_seconds\{source="idp"\} 1\d{9}/),
      ]),
    );
    metrics.trusted(['cluster']);
    expect((await scrape(metrics)).filter((line) => line.includes('idp'))).toEqual([]);
  });

  test('count mints by what became of them, and how long they took', async () => {
    const metrics = createMetrics();
    metrics.minted('ledger-db', 0.004, 'ok');
    metrics.minted('ledger-db', 3, 'failed');
    expect(await scrape(metrics)).toEqual(
      expect.arrayContaining([
        'mayfly_mints_total{target="ledger-db",outcome="ok"} 1',
        'mayfly_mints_total{target="ledger-db",outcome="failed"} 1',
        'mayfly_mint_duration_seconds_bucket{le="0.005",target="ledger-db"} 1',
        'mayfly_mint_duration_seconds_count{target="ledger-db"} 2',
      ]),
    );
  });

  test('tell how late revocations were contained, from 5 ms to 5 minutes', async () => {
    const metrics = createMetrics();
    metrics.contained('ledger-db', 'expired', -0.001);
    metrics.contained('ledger-db', 'expired', 250);
    const lines = await scrape(metrics);
    expect(lines).toEqual(
      expect.arrayContaining([
        'mayfly_revocation_lateness_seconds_bucket{le="0.005",target="ledger-db",cause="expired"} 1',
        'mayfly_revocation_lateness_seconds_bucket{le="120",target="ledger-db",cause="expired"} 1',
        'mayfly_revocation_lateness_seconds_bucket{le="300",target="ledger-db",cause="expired"} 2',
        'mayfly_revocation_lateness_seconds_count{target="ledger-db",cause="expired"} 2',
      ]),
    );
  });

  test('count attempts by what came of them, what did not look done, orphans, and how late alarms rang', async () => {
    const metrics = createMetrics();
    metrics.contained('ledger-db', 'expired', 1);
    metrics.failed('ledger-db', 'denied');
    metrics.failed('ledger-db', 'retryable');
    metrics.notSeen('ledger-db', 3);
    metrics.orphaned('ledger-db', 1);
    metrics.rang('redis', 0.02);
    metrics.notified('failed');
    expect(await scrape(metrics)).toEqual(
      expect.arrayContaining([
        'mayfly_revocation_attempts_total{target="ledger-db",outcome="contained"} 1',
        'mayfly_revocation_attempts_total{target="ledger-db",outcome="failed"} 2',
        'mayfly_revocation_verify_failures_total{target="ledger-db"} 3',
        'mayfly_reconcile_findings_total{target="ledger-db",kind="orphaned"} 1',
        'mayfly_alarm_lag_seconds_bucket{le="0.025",backend="redis"} 1',
        'mayfly_webhooks_total{outcome="failed"} 1',
      ]),
    );
  });

  test('count what failed and what passed the objective', async () => {
    const metrics = createMetrics();
    metrics.failed('ledger-db', 'denied');
    metrics.overdue('ledger-db');
    expect(await scrape(metrics)).toEqual(
      expect.arrayContaining([
        'mayfly_revocation_failures_total{target="ledger-db",class="denied"} 1',
        'mayfly_revocations_overdue_total{target="ledger-db"} 1',
      ]),
    );
  });
});

describe('a scrape', () => {
  const rows: readonly Backlog[] = [
    { target: 'ledger-db', state: 'due', count: 5, overdue: 2, oldestSeconds: 90, attempts: 1 },
    { target: 'ledger-db', state: 'running', count: 3, overdue: 1, oldestSeconds: 120, attempts: 1 },
    { target: 'ledger-db', state: 'contained', count: 7, overdue: 0, oldestSeconds: 5_000, attempts: 1 },
    { target: 'crm-db', state: 'due', count: 1, overdue: 0, oldestSeconds: 3, attempts: 1 },
  ];

  test('tells what is in hand, what is overdue, and since when', async () => {
    const metrics = createMetrics();
    metrics.catalogRevision(7);
    metrics.build('1.2.3');
    expect(
      await scrape(metrics, {
        queue: async () => ({
          backlog: rows,
          paused: new Map(),
          residual: new Map(),
          kills: new Map(),
          killsUnconfirmed: false,
        }),
      }),
    ).toEqual(
      expect.arrayContaining([
        'mayfly_revocations{target="ledger-db",state="due"} 5',
        'mayfly_revocations{target="ledger-db",state="contained"} 7',
        'mayfly_revocations_overdue{target="ledger-db"} 3',
        'mayfly_revocations_overdue{target="crm-db"} 0',
        'mayfly_revocation_oldest_overdue_seconds{target="ledger-db"} 120',
        'mayfly_revocation_oldest_overdue_seconds{target="crm-db"} 0',
        'mayfly_sweep_age_seconds 0.25',
        'mayfly_store_up 1',
        'mayfly_catalog_revision 7',
        'mayfly_build_info{version="1.2.3"} 1',
      ]),
    );
  });

  test('tells what waits, what was written off, what was tried most often, and what is paused', async () => {
    const queue: Awaited<ReturnType<ScrapeSources['queue']>> = {
      backlog: [
        { target: 'ledger-db', state: 'waiting', count: 4, overdue: 0, oldestSeconds: 9, attempts: 12 },
        { target: 'ledger-db', state: 'written_off', count: 2, overdue: 0, oldestSeconds: 9_000, attempts: 300 },
      ],
      paused: new Map([['crm-db', { deadlinesHeld: false }]]),
      residual: new Map([['kv', 3]]),
      kills: new Map([['agent', 2]]),
      killsUnconfirmed: true,
    };
    expect(await scrape(createMetrics(), { queue: async () => queue })).toEqual(
      expect.arrayContaining([
        'mayfly_revocations{target="ledger-db",state="waiting"} 4',
        'mayfly_revocations{target="ledger-db",state="written_off"} 2',
        'mayfly_revocation_most_attempts{target="ledger-db"} 12',
        'mayfly_target_paused{target="crm-db",deadlines="run"} 1',
        'mayfly_grants_residual{target="kv"} 3',
        'mayfly_kills_standing{scope="agent"} 2',
        'mayfly_kills_standing{scope="all"} 0',
        'mayfly_kills_unconfirmed 1',
      ]),
    );
  });

  test('shows a target with nothing in hand as 0', async () => {
    expect(await scrape(createMetrics(), { targets: ['quiet-db'] })).toEqual(
      expect.arrayContaining([
        'mayfly_revocations{target="quiet-db",state="due"} 0',
        'mayfly_revocations_overdue{target="quiet-db"} 0',
        'mayfly_reconcile_findings_total{target="quiet-db",kind="orphaned"} 0',
        'mayfly_revocation_verify_failures_total{target="quiet-db"} 0',
      ]),
    );
  });

  test('shows nothing old: what is done is gone, and what can not be read is not told', async () => {
    const metrics = createMetrics();
    await scrape(metrics, {
      queue: async () => ({
        backlog: rows,
        paused: new Map(),
        residual: new Map(),
        kills: new Map(),
        killsUnconfirmed: false,
      }),
    });
    expect((await scrape(metrics, { targets: ['ledger-db'] })).join('\n')).toContain(
      'mayfly_revocations{target="ledger-db",state="due"} 0',
    );
    await scrape(metrics, {
      queue: async () => ({
        backlog: rows,
        paused: new Map(),
        residual: new Map(),
        kills: new Map(),
        killsUnconfirmed: false,
      }),
    });
    const down = (await scrape(metrics, { queue: () => Promise.reject(new Error('down')) })).join('\n');
    expect(down).toContain('mayfly_store_up 0');
    expect(down).not.toContain('mayfly_revocations{');
  });

  test('beside another one loses nothing', async () => {
    const metrics = createMetrics();
    const both = await Promise.all([
      scrape(metrics, {
        queue: async () => ({
          backlog: rows,
          paused: new Map(),
          residual: new Map(),
          kills: new Map(),
          killsUnconfirmed: false,
        }),
      }),
      scrape(metrics, {
        queue: async () => ({
          backlog: rows,
          paused: new Map(),
          residual: new Map(),
          kills: new Map(),
          killsUnconfirmed: false,
        }),
      }),
    ]);
    for (const lines of both) expect(lines).toContain('mayfly_revocations{target="ledger-db",state="due"} 5');
  });

  test('before the first sweep says that there was none', async () => {
    expect(await scrape(createMetrics(), { sweepAge: () => Infinity })).toContain('mayfly_sweep_age_seconds +Inf');
  });
});
