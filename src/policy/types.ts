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
  readonly tree: {
    /** Grants of this task's tree that are not yet contained. */
    readonly liveGrants: number;
    /** Of those, on entitlements with `sink: true` and sensitivity confidential or restricted. */
    readonly sensitiveSinks: number;
  };
}

export interface PolicyDecision {
  readonly permitted: boolean;
  /** `@id`s of the policies that determined it. */
  readonly policies: readonly string[];
  /** Least `@max_ttl` of the determining permits. */
  readonly maxTtlSeconds: number | null;
  /** `@reason` texts of the determining forbids, shown to the caller. */
  readonly reasons: readonly string[];
  /** Non-empty: something in a policy failed; `permitted` is then false and an alarm is due. */
  readonly errors: readonly string[];
  /** The Cedar request and entities, as JSON without secrets: what a replay needs. */
  readonly inputs: Readonly<Record<string, unknown>>;
}

export interface PolicyEngine {
  readonly digest: string;
  decide(request: DecisionRequest): PolicyDecision;
}
