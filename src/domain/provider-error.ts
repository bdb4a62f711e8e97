import type { ErrorClass } from './revocation.ts';

/**
 * A classified failure. `retryable`: try again later. `denied`: the target refuses us, a person must act.
 * `misconfigured`: the target is not what the catalog says. `gone`: what was asked for is not there.
 * The message is for operators; it must hold no secret (drop driver messages that might).
 */
export class ProviderError extends Error {
  readonly errorClass: ErrorClass;
  /**
   * The target as a whole did not serve us (unreachable, no answer in time, login refused, throttled), whatever was asked: others
   * need not be tried now. A call that throws means the same.
   */
  readonly wholeTarget: boolean;

  constructor(errorClass: ErrorClass, message: string, options?: { cause?: unknown; wholeTarget?: boolean }) {
    super(message, options);
    this.name = 'ProviderError';
    this.errorClass = errorClass;
    this.wholeTarget = options?.wholeTarget ?? false;
  }
}
