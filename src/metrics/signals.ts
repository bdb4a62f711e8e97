import { Counter, Gauge, type Registry } from 'prom-client';

/** What taking signals tells. */
export interface SignalMetrics {
  signalled(source: string, kind: string, outcome: 'taken' | 'superseded' | 'refused'): void;
}

/** A source of the active catalog, as it stands now. */
export interface SourceSeen {
  readonly name: string;
  /** Since it was last heard, by its own time; infinite: never. */
  readonly ageSeconds: number;
  readonly stale: boolean;
  readonly required: boolean;
}

export function createSignalMetrics(registers: Registry[]): {
  readonly tell: SignalMetrics;
  /** @param seen Undefined: the store did not say, and nothing is shown. */
  show(seen: readonly SourceSeen[] | undefined): void;
} {
  const signals = new Counter({
    name: 'mayfly_signals_total',
    help: 'Signals by their source and kind: taken (or said again), superseded by a newer one, or refused.',
    labelNames: ['source', 'kind', 'outcome'],
    registers,
  });
  const age = new Gauge({
    name: 'mayfly_signal_source_age_seconds',
    help: 'Since a source of signals was last heard, by its own time.',
    labelNames: ['source'],
    registers,
  });
  const stale = new Gauge({
    name: 'mayfly_signal_source_stale',
    help: '1 where a source that owes a heartbeat is silent for longer than it may be; `required`: nothing is issued meanwhile.',
    labelNames: ['source', 'required'],
    registers,
  });
  return {
    tell: { signalled: (source, kind, outcome) => signals.inc({ source, kind, outcome }) },
    show: (seen = []) => {
      for (const gauge of [age, stale]) gauge.reset();
      for (const { name, ageSeconds, stale: is, required } of seen) {
        age.set({ source: name }, ageSeconds);
        stale.set({ source: name, required: String(required) }, is ? 1 : 0);
      }
    },
  };
}
