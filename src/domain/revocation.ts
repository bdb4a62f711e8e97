import type { GrantId, RevocationId } from './ids.ts';
import type { Machine } from './machine.ts';

export type RevocationState = 'scheduled' | 'due' | 'running' | 'contained' | 'clean' | 'written_off';

/** DESIGN §1, States. `overdue` is not a state but a mark on a row that stays `due`. */
export const revocationMachine: Machine<RevocationState> = {
  name: 'revocation',
  births: ['scheduled'],
  transitions: {
    scheduled: ['due'],
    due: ['running', 'written_off'],
    running: ['contained', 'due'],
    // To `due` only when the credential is found to live in the target again.
    contained: ['clean', 'due'],
    clean: ['due'],
    // Only when the credential is found to live in the target.
    written_off: ['due'],
  },
};

/** How an attempt failed, as the provider classified it. DESIGN §5. */
export type ErrorClass = 'retryable' | 'denied' | 'misconfigured' | 'gone';

/** What was seen in the target: counts, OIDs, times. Never a secret. */
export type Evidence = Readonly<Record<string, unknown>>;

/** The durable obligation to end a grant. Ends only when verified. */
export interface Revocation {
  readonly id: RevocationId;
  readonly grantId: GrantId;
  readonly target: string;
  readonly state: RevocationState;
  /** When its end is owed. Ahead of now in one that is `due`: its target can only let it expire, and has not yet. */
  readonly dueAt: Date;
  /** Not claimed before this. */
  readonly tryAt: Date;
  readonly attempts: number;
  readonly lastError: ErrorClass | null;
  readonly overdueAt: Date | null;
  readonly evidence: Evidence | null;
  readonly containedAt: Date | null;
  readonly cleanAt: Date | null;
}

/** How far a target's clock may be behind the store's when a credential expires there by itself. */
export const EXPIRY_SKEW_SECONDS = 5;

/**
 * Seconds to wait after a failed attempt: capped exponential with full jitter above half, and no limit on
 * attempts. 0.5 s, 1 s, 2 s, … 60 s.
 * @param attempts Attempts made so far, at least 1.
 * @param random Uniform in [0, 1).
 */
export function retryDelaySeconds(attempts: number, random: number): number {
  const ceiling = Math.min(60, 0.5 * 2 ** Math.min(attempts - 1, 20));
  return ceiling * (0.5 + random / 2);
}
