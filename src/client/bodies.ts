/** What the broker answers, as far as an agent needs it. The whole is in `/openapi.json`. */

/** A task without what it holds: that is for its owner. */
export interface TaskStanding {
  readonly id: string;
  readonly external_id: string;
  readonly state: string;
  readonly purpose: string;
  readonly phase: string | null;
  readonly subject: string;
  readonly workload: string;
  readonly parent_id: string | null;
  readonly created_at: string;
  readonly not_after: string;
  readonly ended_by?: string;
}

export interface TaskBody extends TaskStanding {
  readonly grants: readonly GrantBody[];
  /** All that hangs on it, parents before their children. */
  readonly children: readonly TaskStanding[];
}

/** Whatever became of it. One that waits for its approval, or was denied, has neither `deadline` nor `revocation`. */
export interface GrantBody {
  readonly id: string;
  readonly task_id: string;
  readonly entitlement: string;
  readonly target: string;
  readonly state: string;
  readonly deadline?: string;
  readonly decision_id: string;
  /** Made for one call: a minute at most, one connection, and never renewed. */
  readonly per_call?: true;
  readonly created_at: string;
  readonly ended_by?: string;
  readonly revocation?: RevocationBody;
}

/** One of which something was made: it ends at its deadline, and is taken back. */
export interface MintedBody extends GrantBody {
  readonly deadline: string;
  readonly revocation: RevocationBody;
}

/** One of which nothing was made yet. */
export type UnmintedBody = Omit<GrantBody, 'deadline' | 'revocation'>;

/** It is to be approved, and then collected. */
export interface PendingBody {
  readonly grant: UnmintedBody;
  readonly approval: {
    readonly id: string;
    /** Somebody of each must approve it. */
    readonly groups: readonly string[];
    /** Until when it can be approved; once it is, collected. */
    readonly expires_at: string;
  };
}

export interface RevocationBody {
  readonly id: string;
  readonly grant_id?: string;
  readonly target?: string;
  readonly state: string;
  readonly evidence?: Readonly<Record<string, unknown>>;
}

export interface EventBody {
  readonly ts: string;
  readonly type: string;
  readonly resource: string;
  readonly cause: string;
  readonly payload: Readonly<Record<string, unknown>>;
}

/** As whom the broker believes the caller. */
export interface WhoAmI {
  readonly kind: 'workload' | 'operator';
  readonly workload?: string;
  /** Of the key that was proven with the call. */
  readonly key_thumbprint?: string | null;
  readonly token_expires_at: string;
}

export type Credential = Readonly<Record<string, unknown>>;

/** What was cut from the life that was asked for, and by which bound. */
export interface Cut {
  readonly by: string;
  readonly asked_seconds: number;
  readonly granted_seconds: number;
}

export interface Ended {
  readonly task: TaskBody;
  readonly revocations: readonly RevocationBody[];
}

/** One entitlement asked for. */
export interface Ask {
  readonly entitlement: string;
  readonly ttl_seconds?: number;
  readonly justification?: string;
}

export interface Issued {
  readonly grant: MintedBody;
  readonly credential: Credential;
  readonly cut?: Cut;
}

export interface Renewed {
  readonly grant: MintedBody;
  /** Only where the target could not extend the one in hand. */
  readonly credential?: Credential;
  readonly cut?: Cut;
}
