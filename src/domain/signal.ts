/** The values of each kind, from the best to the worst. Levels and states are those of CAEP where it has them. */
export const signalValues = {
  workload_risk: ['low', 'medium', 'high', 'critical'],
  incident: ['closed', 'open'],
  change_freeze: ['off', 'on'],
  device: ['compliant', 'not-compliant'],
  user: ['enabled', 'disabled'],
} as const;

export type SignalKind = keyof typeof signalValues;

export const signalKinds = [
  'workload_risk',
  'incident',
  'change_freeze',
  'device',
  'user',
] as const satisfies readonly SignalKind[];

/** What a source said last of a subject. */
export interface StandingSignal {
  readonly source: string;
  readonly kind: SignalKind;
  /** `workload:<source>:<subject>`, `user:<issuer> <subject>`, `all`, `environment:<name>`, `target:<name>`. */
  readonly subject: string;
  readonly value: string;
}

/** How bad it is among the values of its kind: 0 is the best. */
export function severity({ kind, value }: Pick<StandingSignal, 'kind' | 'value'>): number {
  return signalValues[kind].findIndex((one) => one === value);
}

/** It tells of trouble: of risks the two highest, of all others the one that is not as it should be. */
export function isBad(signal: Pick<StandingSignal, 'kind' | 'value'>): boolean {
  return severity(signal) >= signalValues[signal.kind].length / 2;
}

/** Of these what is not open or on is as if nothing were said. */
export function isBroad(kind: SignalKind): boolean {
  return kind === 'incident' || kind === 'change_freeze';
}

/** All about the subject that a workload is. */
export function workloadSubject(workload: string): string {
  return `workload:${workload}`;
}

/** @param issuer The URL of the task issuer, as tasks bear it. */
export function userSubject(issuer: string, subject: string): string {
  return `user:${issuer} ${subject}`;
}
