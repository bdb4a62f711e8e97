import type { ActiveCatalog } from '../catalog/active.ts';
import type { EntitlementDefinition } from '../catalog/types.ts';
import type { Grant } from '../domain/grant.ts';
import type { Ids } from '../domain/ids.ts';
import type { Identity } from '../identity/types.ts';
import type { Session } from '../provider.ts';
import type { Changes } from '../store/changes.ts';
import type { Database } from '../store/database.ts';
import type { Issuing } from '../store/issuing.ts';
import type { Kill } from '../store/kills.ts';
import type { Nonces } from '../store/nonces.ts';
import type { OwnedGrants } from '../store/owned-grants.ts';
import type { Proofs } from '../store/proofs.ts';
import type { OwnedRoots } from '../store/owned-roots.ts';
import type { TaskEvaluations } from '../store/task-evaluations.ts';
import type { TasksAlive } from '../store/tasks-alive.ts';
import type { Proposals } from './proposals.ts';

/** Wakes whoever ends grants. Never throws, never blocks: what an alarm misses the sweeper finds. */
export interface Alarms {
  /** Something on this target falls due in `millis` milliseconds. */
  in(target: string, millis: number): void;
  /** Something on this target is due. */
  now(target: string): void;
}

/** What is known here to live, so that its deadline is kept even without the store. Never throws, never blocks. */
export interface Living {
  remember(grant: Grant): void;
}

/** Whoever decides living grants again. Never throws, never blocks: what it misses it finds by itself. */
export interface Drift {
  /** Something moved that decisions hang on. */
  wake(): void;
  /** The same, on every replica. */
  spread(): void;
}

/** What stands stopped, remembered beside the store. Never throws, never blocks. */
export interface KeptKills {
  remember(kill: Kill): void;
}

/** What the use cases report as they happen. */
export interface Observer {
  decided(action: string, permitted: boolean, failed: boolean): void;
  minted(target: string, seconds: number, outcome: 'ok' | 'failed' | 'too_late'): void;
  /** @param source Of the catalog. */
  signalled(source: string, kind: string, outcome: 'taken' | 'superseded' | 'refused'): void;
}

/** What a use case needs to know of a target: the session and the entitlement's own terms for it. */
export interface TargetAccess {
  readonly session: Session;
  readonly config: unknown;
}

export interface ApprovalTimes {
  /** How long one may be decided. */
  readonly pendingSeconds: number;
  /** How long one that was approved may be collected. */
  readonly unusedSeconds: number;
  /** That one task may wait for at once. */
  readonly perTask: number;
}

export interface BrokerDeps {
  readonly db: Database;
  readonly issuing: Issuing;
  readonly ownedGrants: OwnedGrants;
  readonly proofs: Proofs;
  /** Null: proofs need none. */
  readonly nonces: Nonces | null;
  readonly changes: Pick<Changes, 'publish' | 'wait'>;
  readonly catalog: Pick<ActiveCatalog, 'current' | 'ready' | 'refresh'>;
  readonly identity: Identity;
  readonly access: (entitlement: EntitlementDefinition) => TargetAccess;
  readonly alarms: Alarms;
  readonly living: Living;
  readonly drift: Drift;
  readonly kept: KeptKills;
  readonly observer: Observer;
  readonly ids: Ids;
  /** Our own name: the audience that tokens must name. */
  readonly audience: string;
  readonly mintSeconds: number;
  /** Credentials made for one task in its life, at most. */
  readonly mintsPerTask: number;
  readonly approvals: ApprovalTimes;
  /** How long an operator who signed in with a browser stays so. */
  readonly sessionSeconds: number;
  readonly proposals: Proposals;
  readonly taskEvaluations: Pick<TaskEvaluations, 'hasRoom'>;
  readonly ownedRoots: Pick<OwnedRoots, 'find'>;
  readonly tasksAlive: Pick<TasksAlive, 'hasRoom'>;
  /** Uncaught trouble with a public answer: for the log. */
  readonly log: (event: Readonly<Record<string, unknown>>, message: string) => void;
}

/** What every call brings. */
export interface CallContext {
  readonly requestId: string;
  /** Fires when the caller is gone. */
  readonly gone: AbortSignal;
}
