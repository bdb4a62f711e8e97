import { Counter, Gauge, type Registry } from 'prom-client';

/** What believing tokens tells of the parties that the catalog trusts. */
export interface IdentityMetrics {
  /** The parties of the active catalog: others are forgotten. */
  trusted(sources: readonly string[]): void;
  keysFetched(source: string): void;
  /** Keys could not be fetched, or a cluster not be asked about a token. */
  identityFailed(source: string, what: 'keys' | 'token_review'): void;
}

export function createIdentityMetrics(registers: Registry[]): IdentityMetrics {
  const fetched = new Gauge({
    name: 'mayfly_identity_keys_fetched_timestamp_seconds',
    help: 'When the keys of an issuer or source were last fetched from their URL. They are believed for an hour.',
    labelNames: ['source'],
    registers,
  });
  const failures = new Counter({
    name: 'mayfly_identity_failures_total',
    help: 'Times that keys could not be fetched, or that a cluster could not be asked about a token.',
    labelNames: ['source', 'what'],
    registers,
  });
  let known: readonly string[] = [];
  return {
    trusted(sources) {
      for (const source of known.filter((name) => !sources.includes(name))) {
        fetched.remove({ source });
        for (const what of ['keys', 'token_review']) failures.remove({ source, what });
      }
      // An increase is seen only of what was there before it.
      for (const source of sources) failures.inc({ source, what: 'keys' }, 0);
      known = sources;
    },
    keysFetched: (source) => fetched.set({ source }, Date.now() / 1000),
    identityFailed: (source, what) => failures.inc({ source, what }),
  };
}
