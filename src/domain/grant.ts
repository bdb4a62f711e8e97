import type { DecisionId, GrantId, TaskId } from './ids.ts';
import type { Machine } from './machine.ts';
import type { EndedBy, ParamValue } from './task.ts';

export type GrantState = 'pending_approval' | 'approved' | 'denied' | 'minting' | 'active' | 'revoking' | 'revoked';

/** DESIGN §1, States. */
export const grantMachine: Machine<GrantState> = {
  name: 'grant',
  births: ['minting', 'pending_approval', 'denied'],
  transitions: {
    pending_approval: ['approved', 'denied'],
    approved: ['minting', 'denied'],
    denied: [],
    minting: ['active', 'revoking'],
    active: ['revoking'],
    revoking: ['revoked'],
    // Only when its credential is found in the target again.
    revoked: ['revoking'],
  },
};

/** What a provider promises about ending a credential early. DESIGN §5. */
export interface Guarantee {
  readonly revocation: 'immediate' | 'propagating' | 'expiry-only' | 'irrevocable';
  /** How long an early end takes to reach every part of the target, where it is not at once. */
  readonly propagation_seconds?: number | undefined;
  /** The target itself refuses the credential after its deadline. */
  readonly native_expiry: boolean;
  /** Ending the credential also ends the sessions opened with it. */
  readonly ends_sessions: boolean;
  /** What bears our mark in the target can be listed. */
  readonly enumerable: boolean;
  /** The target holds a credential to one connection at a time, where that is asked of it. */
  readonly one_connection?: boolean | undefined;
  readonly min_ttl_seconds: number;
  readonly max_ttl_seconds: number;
  /** The sentence a person reads. */
  readonly says: string;
}

/** What the provider learned while minting and needs later (role OID, accessor, …). Never a secret. */
export type Facts = Readonly<Record<string, string | number | boolean | null>>;

export interface Grant {
  readonly id: GrantId;
  readonly taskId: TaskId;
  readonly rootId: TaskId;
  readonly entitlement: string;
  readonly target: string;
  readonly params: Readonly<Record<string, ParamValue>>;
  readonly state: GrantState;
  readonly handle: string;
  readonly facts: Facts | null;
  readonly guarantee: Guarantee;
  readonly deadline: Date;
  /** Policy permitted it for one call: a minute at most, one connection, and never renewed. */
  readonly perCall: boolean;
  readonly decisionId: DecisionId;
  /** The catalog revision by which it was issued or last renewed: it tells where the credential was made. */
  readonly decidedRevision: number;
  readonly createdAt: Date;
  readonly endedAt: Date | null;
  readonly endedBy: EndedBy | null;
}
