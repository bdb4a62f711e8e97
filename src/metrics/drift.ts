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
  return {
    tell: {
      driftDecided: (outcome, count) => decided.inc({ outcome }, count),
      driftStopped: (is) => stopped.set(is ? 1 : 0),
    },
    show: (seen) => {
      undecided.set(seen?.undecided ?? Number.NaN);
      oldest.set(seen?.oldestSeconds ?? Number.NaN);
    },
  };
}
