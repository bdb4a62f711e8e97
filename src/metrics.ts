import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { ProblemCode } from './domain/problems.ts';

/** What is asked at the moment of a scrape. */
export interface ScrapeSources {
  /** What is in hand or late, a row for each target and state. */
  readonly backlog: () => Promise<readonly BacklogRow[]>;
  /** Seconds since the last whole sweep; infinite before the first. */
  readonly sweepAge: () => number;
  /** Targets of the active catalog, so that one with nothing in hand says 0 instead of nothing. */
  readonly targets: Iterable<string>;
}

interface BacklogRow {
  readonly target: string;
  readonly state: 'due' | 'running' | 'contained';
  readonly count: number;
  readonly overdue: number;
  readonly oldestSeconds: number;
}

/**
 * Everything that the broker counts: what the use cases, the revocation engine and the routes tell an observer. Labels are names
 * from the catalog, route patterns and codes: no id, nothing from a caller. All durations are seconds.
 */
export interface Metrics {
  /** @param route The pattern, never the address. @param status `aborted` when the caller left before the answer. */
  answered(route: string, method: string, status: number | 'aborted', seconds: number): void;
  refused(code: ProblemCode): void;
  decided(action: string, permitted: boolean, failed: boolean): void;
  minted(target: string, seconds: number, outcome: 'ok' | 'failed' | 'too_late'): void;
  /** @param lateSeconds From due to contained. */
  contained(target: string, cause: string, lateSeconds: number): void;
  failed(target: string, errorClass: string): void;
  overdue(target: string): void;
  orphaned(target: string, count: number): void;
  lost(target: string, count: number): void;
  returned(target: string, count: number): void;
  drifted(target: string, count: number): void;
  unverified(target: string, count: number): void;
  reconciled(target: string, outcome: 'done' | 'failed' | 'stranger', seconds: number): void;
  stranger(target: string, is: boolean): void;
  /** The revision that answers now. */
  catalogRevision(number: number): void;
  build(version: string): void;
  /** The text format of Prometheus. Never rejects for a store that is down: it says so. */
  scrape(sources: ScrapeSources): Promise<{ readonly contentType: string; readonly text: string }>;
}

/** From a cache hit to the longest that a person waits. */
const REQUEST_BUCKETS = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60];
const MINT_BUCKETS = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10];
/** From at once to five minutes late. */
const LATENESS_BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300];

/** Methods that we answer to. Others are one label, or a caller could make as many as it likes. */
const methods = new Set(['GET', 'HEAD', 'POST', 'DELETE']);
const states = ['due', 'running', 'contained'] as const;

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
  const overdueEvents = new Counter({
    name: 'mayfly_revocations_overdue_total',
    help: 'Revocations that passed the objective without being contained.',
    labelNames: ['target'],
    registers,
  });

  const findings = new Counter({
    name: 'mayfly_reconcile_findings_total',
    help: 'What comparing a target with the store brought to light: orphaned, lost, returned, drifted, unverified.',
    labelNames: ['target', 'kind'],
    registers,
  });
  const runs = new Counter({
    name: 'mayfly_reconcile_runs_total',
    help: 'Comparisons of a target with the store.',
    labelNames: ['target', 'outcome'],
    registers,
  });
  const runSeconds = new Histogram({
    name: 'mayfly_reconcile_duration_seconds',
    help: 'How long a comparison took.',
    labelNames: ['target'],
    buckets: LATENESS_BUCKETS,
    registers,
  });
  const strangers = new Gauge({
    name: 'mayfly_target_stranger',
    help: '1 where another broker holds the target, so that this one is read-only there.',
    labelNames: ['target'],
    registers,
  });

  const inHand = new Gauge({
    name: 'mayfly_revocations',
    help: 'Revocations in hand, by state.',
    labelNames: ['target', 'state'],
    registers,
  });
  const overdue = new Gauge({
    name: 'mayfly_revocations_overdue',
    help: 'Revocations overdue now.',
    labelNames: ['target'],
    registers,
  });
  const oldestOverdue = new Gauge({
    name: 'mayfly_revocation_oldest_overdue_seconds',
    help: 'How long the oldest overdue revocation has been due; 0 when none is overdue.',
    labelNames: ['target'],
    registers,
  });
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
    const rows = await sources.backlog().catch(() => undefined);
    storeUp.set(rows === undefined ? 0 : 1);
    // What could not be read must not be shown as it was. Nothing is awaited from here on: another scrape may run beside this one.
    for (const gauge of [inHand, overdue, oldestOverdue]) gauge.reset();
    if (rows === undefined) return;
    for (const target of sources.targets) {
      for (const state of states) inHand.set({ target, state }, 0);
      overdue.set({ target }, 0);
      oldestOverdue.set({ target }, 0);
    }
    for (const { target, state, count } of rows) inHand.set({ target, state }, count);
    for (const target of new Set(rows.map((row) => row.target))) {
      const late = rows.filter((row) => row.target === target && row.overdue > 0);
      overdue.set(
        { target },
        late.reduce((sum, row) => sum + row.overdue, 0),
      );
      oldestOverdue.set(
        { target },
        late.reduce((most, row) => Math.max(most, row.oldestSeconds), 0),
      );
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
    contained: (target, cause, lateSeconds) => lateness.observe({ target, cause }, Math.max(0, lateSeconds)),
    failed: (target, errorClass) => failures.inc({ target, class: errorClass }),
    overdue: (target) => overdueEvents.inc({ target }),
    orphaned: (target, count) => findings.inc({ target, kind: 'orphaned' }, count),
    lost: (target, count) => findings.inc({ target, kind: 'lost' }, count),
    returned: (target, count) => findings.inc({ target, kind: 'returned' }, count),
    drifted: (target, count) => findings.inc({ target, kind: 'drifted' }, count),
    unverified: (target, count) => findings.inc({ target, kind: 'unverified' }, count),
    reconciled: (target, outcome, seconds) => {
      runs.inc({ target, outcome });
      runSeconds.observe({ target }, seconds);
    },
    stranger: (target, is) => strangers.set({ target }, is ? 1 : 0),
    catalogRevision: (number) => revision.set(number),
    build: (version) => build.set({ version }, 1),
    scrape: async (sources) => {
      await readSources(sources);
      return { contentType: registry.contentType, text: await registry.metrics() };
    },
  };
}
