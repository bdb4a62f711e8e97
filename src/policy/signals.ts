import type { SignalSource } from '../domain/signal-source.ts';
import type { TargetDefinition } from '../catalog/types.ts';
import { isBad, severity, type SignalKind, type StandingSignal } from '../domain/signal.ts';
import type { SignalFacts } from './types.ts';

/** No source says anything that counts. */
export const UNKNOWN = 'unknown';

/** Nobody says anything, and nobody is stale. */
export const quiet: SignalFacts = {
  ...{ risk: UNKNOWN, device: UNKNOWN, user: UNKNOWN, incident: false, changeFreeze: false },
  ...{ staleSources: [], staleKinds: [] },
};

/** What the store knows. */
export interface KnownSignals {
  /** About the workload, the user, and whatever is open or on anywhere. */
  readonly standing: readonly StandingSignal[];
  /** Up to when each source was heard, in milliseconds since 1970. */
  readonly heard: Readonly<Record<string, number>>;
}

/** A source that owes a heartbeat, and was not heard for longer than it may be silent; or never. */
export function isStale(source: SignalSource, heard: KnownSignals['heard'], now: Date): boolean {
  if (!source.heartbeat) return false;
  const last = Object.hasOwn(heard, source.name) ? heard[source.name] : undefined;
  return last === undefined || now.getTime() - last > source.maxAgeSeconds * 1000;
}

/**
 * What counts of it for a decision. Sources that the catalog does not name, or not for that kind, say nothing. Of several the worst word
 * counts; of a stale one only what is bad.
 * @param target What it is about; null: nothing that the catalog places, and then only what is so everywhere counts.
 * @param lenient As if no source were stale: of what lives already, silence alone ends nothing.
 */
export function signalFacts(
  sources: readonly SignalSource[],
  { standing, heard }: KnownSignals,
  target: Pick<TargetDefinition, 'name' | 'environment'> | null,
  now: Date,
  lenient = false,
): SignalFacts {
  if (sources.length === 0) return quiet;
  const stale = lenient ? [] : sources.filter((source) => isStale(source, heard, now));
  const staleNames = new Set(stale.map(({ name }) => name));
  const counting = standing.filter(
    (signal) =>
      sources.some(({ name, kinds }) => name === signal.source && kinds.includes(signal.kind)) &&
      (!staleNames.has(signal.source) || isBad(signal)),
  );
  const worst = (kind: SignalKind): string =>
    counting.filter((signal) => signal.kind === kind).toSorted((a, b) => severity(b) - severity(a))[0]?.value ??
    UNKNOWN;
  const places = new Set([
    'all',
    ...(target === null ? [] : [`target:${target.name}`, `environment:${target.environment}`]),
  ]);
  const stands = (kind: SignalKind): boolean =>
    counting.some((signal) => signal.kind === kind && places.has(signal.subject) && isBad(signal));
  return {
    ...{ risk: worst('workload_risk'), device: worst('device'), user: worst('user') },
    ...{ incident: stands('incident'), changeFreeze: stands('change_freeze') },
    staleSources: [...staleNames].sort(),
    staleKinds: [...new Set(stale.flatMap(({ kinds }) => kinds))].sort(),
  };
}

/** Whether a standing word of a source suspends by itself, and who said it. */
export function suspending(
  sources: readonly SignalSource[],
  standing: readonly StandingSignal[],
): StandingSignal | undefined {
  return standing.find(
    (signal) =>
      isBad(signal) && sources.some(({ name, suspends }) => name === signal.source && suspends.includes(signal.kind)),
  );
}
