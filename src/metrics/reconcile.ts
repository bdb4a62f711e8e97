import { Counter, Gauge, Histogram, type Registry } from 'prom-client';

/** What comparing targets with the store tells. */
export interface ReconcileMetrics {
  orphaned(target: string, count: number): void;
  lost(target: string, count: number): void;
  returned(target: string, count: number): void;
  drifted(target: string, count: number): void;
  changed(target: string, count: number): void;
  unverified(target: string, count: number): void;
  reconciled(target: string, outcome: 'done' | 'failed' | 'stranger' | 'unlisted', seconds: number): void;
  unreconciled(those: ReadonlySet<string>, all: readonly string[]): void;
  stranger(target: string, is: boolean): void;
  /** Whether the broker can not log in to that target, or not keep its login. */
  readonly loginFailing: (target: string, is: boolean) => void;
}

const KINDS = ['orphaned', 'lost', 'returned', 'drifted', 'changed', 'unverified'] as const;
/** Of a few roles, or of fifty thousand. */
const RUN_BUCKETS = [0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300];

export function createReconcileMetrics(registers: Registry[]): {
  readonly tell: ReconcileMetrics;
  /** Makes that target's findings 0, where there were none. */
  begin(target: string): void;
} {
  const findings = new Counter({
    name: 'mayfly_reconcile_findings_total',
    help: 'What comparing a target with the store brought to light: orphaned, lost, returned, drifted, changed (drifted and ended by it), unverified.',
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
    buckets: RUN_BUCKETS,
    registers,
  });
  const strangers = new Gauge({
    name: 'mayfly_target_stranger',
    help: '1 where another broker holds the target, so that this one is read-only there.',
    labelNames: ['target'],
    registers,
  });

  const logins = new Gauge({
    name: 'mayfly_target_login_failing',
    help: '1 where this broker can not log in, or not keep its login: when the one in hand ends, nothing is issued or revoked there.',
    labelNames: ['target'],
    registers,
  });

  const unreconciled = new Gauge({
    name: 'mayfly_target_unreconciled',
    help: '1 where nothing is issued, since the store failed over and the target was not reconciled after that.',
    labelNames: ['target'],
    registers,
  });

  const find = (kind: (typeof KINDS)[number]) => (target: string, count: number) =>
    findings.inc({ target, kind }, count);
  return {
    tell: {
      orphaned: find('orphaned'),
      lost: find('lost'),
      returned: find('returned'),
      drifted: find('drifted'),
      changed: find('changed'),
      unverified: find('unverified'),
      reconciled: (target, outcome, seconds) => {
        runs.inc({ target, outcome });
        runSeconds.observe({ target }, seconds);
      },
      loginFailing: (target, is) => logins.set({ target }, is ? 1 : 0),
      stranger: (target, is) => strangers.set({ target }, is ? 1 : 0),
      unreconciled: (those, all) => {
        // A target that is dropped from the catalog must not stay as it was.
        unreconciled.reset();
        for (const target of all) unreconciled.set({ target }, those.has(target) ? 1 : 0);
      },
    },
    begin: (target) => {
      for (const kind of KINDS) findings.inc({ target, kind }, 0);
    },
  };
}
