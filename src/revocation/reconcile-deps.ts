import type { TargetDefinition } from '../catalog/types.ts';
import type { ReconcileResult } from '../store/reconciliations.ts';
import type { RevocationDeps } from './deps.ts';

/** What comparing a target with the store brings to light. */
export interface ReconcileObserver {
  /** Unknown here, and now being revoked. */
  orphaned(target: string, count: number): void;
  /** Alive here, gone there. */
  lost(target: string, count: number): void;
  drifted(target: string, count: number): void;
  /** Changed in the target, and ended by that. */
  changed(target: string, count: number): void;
  /** Bears our mark's form without being verifiably ours: left alone. */
  unverified(target: string, count: number): void;
  reconciled(target: string, outcome: ReconcileResult['outcome'], seconds: number): void;
  /** On which of all targets nothing may be issued, since the store failed over. */
  unreconciled(those: ReadonlySet<string>, all: readonly string[]): void;
  /** Whether another holds the target. */
  stranger(target: string, is: boolean): void;
}

export interface ReconcileDeps extends RevocationDeps {
  readonly found: ReconcileObserver;
  /** The targets of the active catalog. */
  readonly targets: () => Iterable<TargetDefinition>;
  /** Percent of a target's living grants that one run may end because their credentials were changed there; 0: none. */
  readonly maxChangedShare: number;
  /** The number of the active revision. */
  readonly revision: () => number;
  /** An entitlement's terms for its provider as the active catalog has them. */
  readonly entitlement: (name: string) => unknown;
  /** Something is due on this target now. */
  readonly wake: (target: string) => void;
}
