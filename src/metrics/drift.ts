import { Counter, Gauge, type Registry } from 'prom-client';

/** What deciding living grants again tells. */
export interface DriftMetrics {
  driftDecided(outcome: 'stays' | 'ended' | 'reported' | 'failed', count: number): void;
  driftStopped(stopped: boolean): void;
}

/** What the store says of it. */
export interface DriftSeen {
  readonly undecided: number;
  readonly oldestSeconds: number;
  /** What the last comparison of each target left as it is, where it left anything. */
  readonly left: readonly { readonly target: string; readonly held: number; readonly uninspected: number }[];
}

export function createDriftMetrics(registers: Registry[]): {
  readonly tell: DriftMetrics;
  /** @param seen Undefined: the store did not say, and nothing is shown. */
  show(seen: DriftSeen | undefined): void;
} {
  const decided = new Counter({
    name: 'mayfly_drift_decisions_total',
    help: 'Living grants decided again: they stay, or ended, or would have and it was only told, or policy failed and they were left as they are.',
    labelNames: ['outcome'],
    registers,
  });
  for (const outcome of ['stays', 'ended', 'reported', 'failed']) decided.inc({ outcome }, 0);
  const stopped = new Gauge({
    name: 'mayfly_drift_stopped',
    help: '1 where policy failed for so many living grants that this replica decides none of them again until its next try.',
    registers,
  });
  const undecided = new Gauge({
    name: 'mayfly_drift_undecided',
    help: 'Living grants that are still to be decided again.',
    registers,
  });
  const oldest = new Gauge({
    name: 'mayfly_drift_oldest_seconds',
    help: 'Since the first catalog revision was applied that a living grant was not decided under; 0 when there is none.',
    registers,
  });
  const held = new Gauge({
    name: 'mayfly_target_changes_held',
    help: 'Living grants whose credentials were changed in the target, and that are left alone: too many at once to be believed.',
    labelNames: ['target'],
    registers,
  });
  const uninspected = new Gauge({
    name: 'mayfly_target_uninspected',
    help: 'Living grants of which the target did not say what they can do there.',
    labelNames: ['target'],
    registers,
  });
  return {
    tell: {
      driftDecided: (outcome, count) => decided.inc({ outcome }, count),
      driftStopped: (is) => stopped.set(is ? 1 : 0),
    },
    show: (seen) => {
      undecided.set(seen?.undecided ?? Number.NaN);
      oldest.set(seen?.oldestSeconds ?? Number.NaN);
      for (const gauge of [held, uninspected]) gauge.reset();
      for (const { target, ...left } of seen?.left ?? []) {
        held.set({ target }, left.held);
        uninspected.set({ target }, left.uninspected);
      }
    },
  };
}
