import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { ProblemCode } from './domain/problems.ts';
import { type ApprovalsSeen, createApprovalMetrics } from './metrics/approvals.ts';
import { createDriftMetrics, type DriftMetrics, type DriftSeen } from './metrics/drift.ts';
import { createIdentityMetrics, type IdentityMetrics } from './metrics/identity.ts';
import { createQueueMetrics, type QueueSeen } from './metrics/queue.ts';
import { createReconcileMetrics, type ReconcileMetrics } from './metrics/reconcile.ts';
import { createSignalMetrics, type SignalMetrics, type SourceSeen } from './metrics/signals.ts';
import { createWebhookMetrics, type WebhookMetrics, type WebhookSeen } from './metrics/webhooks.ts';

/** What is asked at the moment of a scrape. */
export interface ScrapeSources {
  readonly queue: () => Promise<QueueSeen>;
  readonly drift: () => Promise<DriftSeen>;
  readonly signals: () => Promise<readonly SourceSeen[]>;
  readonly webhooks: () => Promise<readonly WebhookSeen[]>;
  readonly approvals: () => Promise<ApprovalsSeen>;
  /** Seconds since the last whole sweep; infinite before the first. */
  readonly sweepAge: () => number;
  /** Targets of the active catalog, so that one with nothing in hand says 0 instead of nothing. */
  readonly targets: readonly string[];
}

/**
 * Everything that the broker counts: what the use cases, the revocation engine and the routes tell an observer. Labels are names
 * from the catalog, route patterns and codes: no id, nothing from a caller. All durations are seconds.
 */
export interface Metrics extends ReconcileMetrics, IdentityMetrics, DriftMetrics, SignalMetrics, WebhookMetrics {
  /** @param route The pattern, never the address. @param status `aborted` when the caller left before the answer. */
  answered(route: string, method: string, status: number | 'aborted', seconds: number): void;
  refused(code: ProblemCode): void;
  decided(action: string, permitted: boolean, failed: boolean): void;
  minted(target: string, seconds: number, outcome: 'ok' | 'failed' | 'too_late'): void;
  /** @param lateSeconds From due to contained. */
  contained(target: string, cause: string, lateSeconds: number): void;
  failed(target: string, errorClass: string): void;
  fencedUnrecorded(target: string, count: number): void;
  overdue(target: string): void;
  breaker(target: string, state: 'closed' | 'open' | 'probing'): void;
  /** The revision that answers now. */
  catalogRevision(number: number): void;
  build(version: string): void;
  /** The target did what it was told to, and does not show it. */
  notSeen(target: string, count: number): void;
  /** @param lagSeconds From the moment that an alarm was set for to its ring. */
  rang(backend: string, lagSeconds: number): void;
  /** A webhook was sent: taken, to be sent again, or given up. */
  notified(outcome: 'taken' | 'failed' | 'dropped'): void;
  /** The text format of Prometheus. Never rejects for a store that is down: it says so. */
  scrape(sources: ScrapeSources): Promise<{ readonly contentType: string; readonly text: string }>;
}

/** From a cache hit to the longest that a person waits. */
const REQUEST_BUCKETS = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60];
const MINT_BUCKETS = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10];
const LAG_BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30];
/** From at once to five minutes late. */
const LATENESS_BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300];

const BREAKER = { closed: 0, probing: 1, open: 2 } as const;

/** Methods that we answer to. Others are one label, or a caller could make as many as it likes. */
const methods = new Set(['GET', 'HEAD', 'POST', 'DELETE']);

/** The metrics of one broker, in a registry of their own. */
export function createMetrics(): Metrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const registers = [registry];

  const requests = new Counter({
    name: 'mayfly_http_requests_total',
    help: 'Requests answered; status `aborted` when the caller left before the answer.',
    labelNames: ['route', 'method', 'status'],
    registers,
  });
  const requestSeconds = new Histogram({
    name: 'mayfly_http_request_duration_seconds',
    help: 'From the request’s arrival to the end of its answer, long polls included.',
    labelNames: ['route', 'method'],
    buckets: REQUEST_BUCKETS,
    registers,
  });
  const refusals = new Counter({
    name: 'mayfly_refusals_total',
    help: 'Refusals by problem code.',
    labelNames: ['code'],
    registers,
  });
  const decisions = new Counter({
    name: 'mayfly_decisions_total',
    help: 'Policy decisions.',
    labelNames: ['action', 'outcome'],
    registers,
  });
  const policyFailures = new Counter({
    name: 'mayfly_policy_failures_total',
    help: 'Decisions that were denials because something in a policy failed.',
    labelNames: ['action'],
    registers,
  });
  const mints = new Counter({
    name: 'mayfly_mints_total',
    help: 'Credentials made, or not.',
    labelNames: ['target', 'outcome'],
    registers,
  });
  const mintSeconds = new Histogram({
    name: 'mayfly_mint_duration_seconds',
    help: 'How long targets took to make a credential.',
    labelNames: ['target'],
    buckets: MINT_BUCKETS,
    registers,
  });
  const lateness = new Histogram({
    name: 'mayfly_revocation_lateness_seconds',
    help: 'From due to contained and verified. Its count is the number of revocations contained.',
    labelNames: ['target', 'cause'],
    buckets: LATENESS_BUCKETS,
    registers,
  });
  const failures = new Counter({
    name: 'mayfly_revocation_failures_total',
    help: 'Attempts to revoke that failed; each is tried again.',
    labelNames: ['target', 'class'],
    registers,
  });
  const attempts = new Counter({
    name: 'mayfly_revocation_attempts_total',
    help: 'Attempts to revoke, by what came of them.',
    labelNames: ['target', 'outcome'],
    registers,
  });
  const notSeen = new Counter({
    name: 'mayfly_revocation_verify_failures_total',
    help: 'Revocations that a target said were done, and that did not look so.',
    labelNames: ['target'],
    registers,
  });
  const lag = new Histogram({
    name: 'mayfly_alarm_lag_seconds',
    help: 'From the moment that an alarm was set for to its ring, by the queue’s backend.',
    labelNames: ['backend'],
    buckets: LAG_BUCKETS,
    registers,
  });
  const webhooks = new Counter({
    name: 'mayfly_webhooks_total',
    help: 'Webhooks sent: taken, failed and to be sent again, or dropped after a day.',
    labelNames: ['outcome'],
    registers,
  });
  for (const outcome of ['taken', 'failed', 'dropped']) webhooks.inc({ outcome }, 0);
  const unrecorded = new Counter({
    name: 'mayfly_fenced_unrecorded_total',
    help: 'Grants fenced at their deadline while the store could not be asked or took nothing. Their record follows.',
    labelNames: ['target'],
    registers,
  });
  const overdueEvents = new Counter({
    name: 'mayfly_revocations_overdue_total',
    help: 'Revocations that passed the objective without being contained.',
    labelNames: ['target'],
    registers,
  });

  const breakers = new Gauge({
    name: 'mayfly_breaker_state',
    help: 'Whether this replica still tries a target: 0 closed, 1 probing, 2 open.',
    labelNames: ['target'],
    registers,
  });

  const queueGauges = createQueueMetrics(registers);
  const reconciling = createReconcileMetrics(registers);
  const drift = createDriftMetrics(registers);
  const signals = createSignalMetrics(registers);
  const declared = createWebhookMetrics(registers);
  const approvals = createApprovalMetrics(registers);
  const sweepAge = new Gauge({ name: 'mayfly_sweep_age_seconds', help: 'Since the last whole sweep.', registers });
  const storeUp = new Gauge({
    name: 'mayfly_store_up',
    help: '1 when the backlog could be read at this scrape.',
    registers,
  });
  const revision = new Gauge({
    name: 'mayfly_catalog_revision',
    help: 'The catalog revision that answers now; 0 before the first.',
    registers,
  });
  const build = new Gauge({ name: 'mayfly_build_info', help: 'Always 1.', labelNames: ['version'], registers });

  async function readSources(sources: ScrapeSources): Promise<void> {
    sweepAge.set(sources.sweepAge());
    const [queue, behind, waiting, heard, told] = await Promise.all([
      sources.queue().catch(() => undefined),
      sources.drift().catch(() => undefined),
      sources.approvals().catch(() => undefined),
      sources.signals().catch(() => undefined),
      sources.webhooks().catch(() => undefined),
    ]);
    drift.show(behind);
    approvals.show(waiting);
    signals.show(heard);
    declared.show(told);
    storeUp.set(queue === undefined ? 0 : 1);
    queueGauges.show(queue, sources.targets);
    // An increase is seen only of what was there before it.
    for (const target of queue === undefined ? [] : sources.targets) {
      for (const counter of [notSeen, overdueEvents]) counter.inc({ target }, 0);
      reconciling.begin(target);
    }
  }

  return {
    answered: (route, method, status, seconds) => {
      const known = methods.has(method) ? method : 'other';
      requests.inc({ route, method: known, status });
      requestSeconds.observe({ route, method: known }, seconds);
    },
    refused: (code) => refusals.inc({ code }),
    decided: (action, permitted, failed) => {
      decisions.inc({ action, outcome: permitted ? 'permit' : 'deny' });
      if (failed) policyFailures.inc({ action });
    },
    minted: (target, seconds, outcome) => {
      mints.inc({ target, outcome });
      mintSeconds.observe({ target }, seconds);
    },
    contained: (target, cause, lateSeconds) => {
      lateness.observe({ target, cause }, Math.max(0, lateSeconds));
      attempts.inc({ target, outcome: 'contained' });
    },
    failed: (target, errorClass) => {
      failures.inc({ target, class: errorClass });
      attempts.inc({ target, outcome: 'failed' });
    },
    fencedUnrecorded: (target, count) => unrecorded.inc({ target }, count),
    overdue: (target) => overdueEvents.inc({ target }),
    breaker: (target, state) => breakers.set({ target }, BREAKER[state]),
    ...reconciling.tell,
    ...drift.tell,
    ...signals.tell,
    ...declared.tell,
    ...createIdentityMetrics(registers),
    catalogRevision: (number) => revision.set(number),
    build: (version) => build.set({ version }, 1),
    notSeen: (target, count) => notSeen.inc({ target }, count),
    rang: (backend, lagSeconds) => lag.observe({ backend }, Math.max(0, lagSeconds)),
    notified: (outcome) => webhooks.inc({ outcome }),
    scrape: async (sources) => {
      await readSources(sources);
      return { contentType: registry.contentType, text: await registry.metrics() };
    },
  };
}
