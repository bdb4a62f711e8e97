import type { EntitlementDefinition, TargetDefinition } from '../catalog/types.ts';
import type { Guarantee } from '../domain/grant.ts';
import type { Ceiling, Workload } from '../domain/task.ts';

export type PolicyAction = 'issue' | 'renew' | 'retain';

/** Everything a decision is made from. The broker knows all of it; nothing comes from the agent but `ttlSeconds`. */
export interface DecisionRequest {
  readonly action: PolicyAction;
  readonly now: Date;
  readonly task: {
    readonly id: string;
    readonly purpose: string;
    readonly phase: string | null;
    readonly issuer: string;
    readonly subject: string;
    readonly workload: Workload;
    /** One running copy of the workload; null: its source does not tell copies apart. */
    readonly instance: string | null;
    /** Whether it names the agent's key, so that each call was proven by it. */
    readonly proofOfPossession: boolean;
    readonly depth: number;
    readonly createdAt: Date;
    readonly notAfter: Date;
    readonly params: Ceiling['params'];
  };
  readonly entitlement: EntitlementDefinition;
  readonly target: TargetDefinition;
  /** What the grant would live by every bound but policy's own. */
  readonly ttlSeconds: number;
  readonly guarantee: Guarantee['revocation'];
  readonly history: History;
  readonly signals: SignalFacts;
}

/** Something that is asked about, in the asker's words. */
export interface Asked {
  readonly type: string;
  readonly id: string;
  /** What the asker says of it. */
  readonly properties: Readonly<Record<string, unknown>>;
}

/** Whether somebody may do something to something now, by types and actions of the catalog's own. */
export interface EvaluationRequest {
  readonly now: Date;
  readonly signals: SignalFacts;
  readonly subject:
    | { readonly kind: 'task'; readonly task: DecisionRequest['task']; readonly history: History }
    | { readonly kind: 'workload'; readonly workload: Workload }
    | { readonly kind: 'other'; readonly asked: Asked };
  readonly action: { readonly name: string; readonly properties: Readonly<Record<string, unknown>> };
  readonly resource: Asked;
  /** The asker's context. It never stands where the broker's own facts do. */
  readonly said: Readonly<Record<string, unknown>>;
}

export interface Evaluation extends PolicyDecision {
  /** It could not be put to policy, and why: a type or action that the catalog does not have, a property of the wrong kind. Then no policy was asked. */
  readonly unfit: string | null;
  /** A determining permit has `@single_use`. */
  readonly singleUse: boolean;
}

interface Counts {
  readonly liveGrants: number;
  readonly grants: number;
  /** All that there ever were of the entitlement that it is about; 0 when it is about a call. */
  readonly grantsOfThis: number;
  /** Evaluations: asked before a call, and permitted. */
  readonly uses: { readonly asked: number; readonly permitted: number };
}

/** What a task and its tree have, and had. To renew and to retain: beside the grant itself. */
export interface History {
  /** Grants of the task that are not yet contained, and all that it ever had. */
  readonly own: Counts;
  readonly tree: Counts & {
    /** Of the live ones, on entitlements with `sink: true` and sensitivity confidential or restricted. */
    readonly sensitiveSinks: number;
    /** Entitlements of the live ones, and the data classes that the catalog gives these. */
    readonly held: readonly string[];
    readonly dataClasses: readonly string[];
    /** Targets on which it ever had a grant. */
    readonly touched: readonly string[];
    /** How long it has held something, all grants together. */
    readonly heldSeconds: number;
  };
}

/** What signals come to for one decision: of several sources the worst word counts. */
export interface SignalFacts {
  /** `unknown`: nobody says anything that counts. */
  readonly risk: string;
  readonly device: string;
  readonly user: string;
  readonly incident: boolean;
  readonly changeFreeze: boolean;
  readonly staleSources: readonly string[];
  readonly staleKinds: readonly string[];
}

export interface PolicyDecision {
  readonly permitted: boolean;
  /** `@id`s of the policies that determined it. */
  readonly policies: readonly string[];
  /** Least `@max_ttl` of the determining permits. */
  readonly maxTtlSeconds: number | null;
  /** Whether a determining permit has `@per_call`: a credential for one call. `maxTtlSeconds` is then a minute at most. */
  readonly perCall: boolean;
  /** Whether a determining permit has `@require_sealed_delivery`: who asks must take the credential sealed. */
  readonly sealedDelivery: boolean;
  /** From `@require_approval` of the determining permits, each group once: one that asks for none takes nothing from the others. */
  readonly approvalGroups: readonly string[];
  /** `@reason` texts of the determining forbids, shown to the caller. */
  readonly reasons: readonly string[];
  /** Of a permit: forbids with `@enforce("report")` that would have denied it, and what failed in them. Absent: there are none. */
  readonly reported?: readonly string[];
  /** Non-empty: something in a policy failed; `permitted` is then false and an alarm is due. */
  readonly errors: readonly string[];
  /** The Cedar request and entities, as JSON without secrets: what a replay needs. */
  readonly inputs: Readonly<Record<string, unknown>>;
}

export interface PolicyEngine {
  readonly digest: string;
  decide(request: DecisionRequest): PolicyDecision;
  evaluate(request: EvaluationRequest): Evaluation;
}
