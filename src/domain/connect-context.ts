import type { Secret } from './secret.ts';

/** What a provider is told of the broker that connects by it. */
export interface ConnectContext {
  /** Name of the target in the catalog. */
  readonly target: string;
  /** This broker's installation id (a UUID): part of the mark on everything that is made. */
  readonly installation: string;
  /** Resolves `env:NAME` or `file:path`. Throws ProviderError('misconfigured') when it cannot. */
  secret(reference: string): Secret<string>;
  /** Structured diagnostics; ids and codes only. */
  log(event: Readonly<Record<string, unknown>>, message: string): void;
  /**
   * Told when it changes whether the broker has what it acts with in the target: that it can not log in, or not keep its login, in a
   * sentence without a secret; null when it can. Shown to operators, also while the login in hand still works.
   */
  troubled?(says: string | null): void;
}
