import type { TargetDefinition } from '../catalog/types.ts';
import type { Session } from '../provider.ts';
import type { Database } from '../store/database.ts';
import type { BreakerState } from './breaker.ts';

/** What the engine reports as it happens. */
export interface RevocationObserver {
  /** @param lateSeconds From due to contained. */
  contained(target: string, cause: string, lateSeconds: number): void;
  /** The target said that these were fenced, and they do not look contained. */
  notSeen(target: string, count: number): void;
  failed(target: string, errorClass: string): void;
  /** They were contained or clean, and can be used again. */
  returned(target: string, count: number): void;
  /** At their deadline, while the store could not be asked or took nothing. */
  fencedUnrecorded(target: string, count: number): void;
  overdue(target: string): void;
  /** Whether this replica still tries the target. */
  breaker(target: string, state: BreakerState): void;
}

export interface RevocationDeps {
  readonly db: Database;
  /** The definition of a target, active or as it was at that revision. */
  readonly targetAt: (name: string, revision: number, asGranted: boolean) => Promise<TargetDefinition>;
  readonly session: (target: TargetDefinition) => Session;
  /** Something may be due on this target, and the store lets nothing be claimed; so it may be for that long. */
  readonly unclaimed: (target: string, millis: number) => void;
  /** Digest of the catalog in force, or `none`. */
  readonly policyDigest: () => string;
  readonly observer: RevocationObserver;
  /** Names this process in claims. */
  readonly worker: string;
  readonly random: () => number;
  /** More is due on the target. */
  readonly wake?: (target: string) => void;
  readonly log: (event: Readonly<Record<string, unknown>>, message: string) => void;
}
