import type { FourEyesOperation } from '../domain/four-eyes.ts';
import type { ParamValue } from '../domain/task.ts';
import type { SignalSource } from '../domain/signal-source.ts';
import type { IssuerBase, TaskIssuer, TokenIssuer, WorkloadSource } from '../domain/issuers.ts';

export type * from '../domain/issuers.ts';

export const operatorRoles = ['viewer', 'operator', 'approver', 'auditor', 'admin'] as const;
export type OperatorRole = (typeof operatorRoles)[number];

/** Targets, by what the catalog says of them. All that is said must fit. */
export interface TargetScope {
  readonly owner?: string | undefined;
  readonly environment?: string | undefined;
  readonly labels?: Readonly<Record<string, string>> | undefined;
}

/** A role that holds everywhere, or roles that hold for the targets in a scope. */
export type RoleBinding = OperatorRole | { readonly roles: readonly OperatorRole[]; readonly scope: TargetScope };

/** How operators sign in with a browser: OIDC authorization code flow with PKCE. */
export interface OperatorLogin {
  readonly clientId: string;
  /** `file:` reference in the source's own secrets folder; a public client has none. */
  readonly clientSecret?: string | undefined;
  readonly authorizationEndpoint: string;
  readonly tokenEndpoint: string;
  readonly scopes: readonly string[];
}

/** Where operators come from: tokens of an OIDC issuer, whose claim value maps to roles. */
export interface OperatorSource extends IssuerBase {
  readonly claim: string;
  /** Claim value → roles, and where they hold. */
  readonly roles: Readonly<Record<string, readonly RoleBinding[]>>;
  /** Claim value → groups that approve. Absent: nobody is in one. */
  readonly groups?: Readonly<Record<string, readonly string[]>> | undefined;
  /** Absent: they come with tokens alone. */
  readonly login?: OperatorLogin | undefined;
}

export interface Trust {
  readonly taskIssuers: readonly TaskIssuer[];
  /** Task issuers of `kind: token`. */
  readonly tokenIssuers: readonly TokenIssuer[];
  readonly workloadSources: readonly WorkloadSource[];
  readonly operators: readonly OperatorSource[];
}

/** What stands between agents and tools, and asks before it lets a call through. */
export interface ToolGateway {
  readonly name: string;
  /** Workload ids that are it. */
  readonly workloads: readonly string[];
  /** Thumbprints: each of its calls is proven by one of these keys. Null: its token is enough. */
  readonly keys: readonly string[] | null;
  /** Types of the subjects and resources that it may ask about. */
  readonly subjects: readonly string[];
  readonly resources: readonly string[];
  /** Workload ids whose tasks it may ask about; null: all. */
  readonly agents: readonly string[] | null;
}

export const sensitivities = ['public', 'internal', 'confidential', 'restricted'] as const;
export type Sensitivity = (typeof sensitivities)[number];

export interface TargetDefinition {
  readonly name: string;
  readonly provider: string;
  /** Checked by the provider's `targetSchema`. Holds references, never secrets. */
  readonly connection: unknown;
  readonly environment: string;
  readonly owner: string;
  readonly sensitivity: Sensitivity;
  readonly labels: Readonly<Record<string, string>>;
}

export interface ParamSchema {
  readonly type: 'string' | 'integer' | 'boolean';
  readonly pattern?: string | undefined;
  readonly enum?: readonly ParamValue[] | undefined;
  readonly min?: number | undefined;
  readonly max?: number | undefined;
}

export interface EntitlementDefinition {
  readonly name: string;
  readonly target: string;
  readonly sensitivity: Sensitivity;
  readonly actions: readonly string[];
  /** Kinds of data that it opens, in the catalog's own words. */
  readonly dataClasses: readonly string[];
  /** Data can leave through it: counted in `context.tree.sensitive_sinks`. */
  readonly sink: boolean;
  readonly maxTtlSeconds: number;
  readonly params: Readonly<Record<string, ParamSchema>>;
  /** Checked by the provider's `entitlementSchema`. */
  readonly provider: unknown;
  readonly onOwnedObjects: 'drop' | 'keep';
  /** Whether its credentials are handed over only as JWE, to a key that the signed task names. */
  readonly sealedDelivery: 'required' | 'optional';
}

export interface Purpose {
  readonly name: string;
  readonly description: string;
  /** In order. Empty: the purpose has no phases. */
  readonly phases: readonly string[];
  readonly maxLifeSeconds: number;
}

export interface PolicySource {
  /** `@id` of the policy. */
  readonly id: string;
  readonly file: string;
  readonly line: number;
  readonly text: string;
  readonly annotations: Readonly<Record<string, string>>;
}

export interface PolicySet {
  /** The catalog's own types; the broker's `Mayfly` namespace comes with the broker. */
  readonly schema: string;
  readonly policies: readonly PolicySource[];
  /** What policies may know of things of the catalog's own types. */
  readonly entities: readonly StoredEntity[];
}

/** Something of one of the catalog's own types: a user, a tool, a record. Values as they stand in `entities.yaml`. */
export interface StoredEntity {
  readonly type: string;
  readonly id: string;
  readonly attrs: Readonly<Record<string, unknown>>;
  readonly parents: readonly { readonly type: string; readonly id: string }[];
  readonly tags: Readonly<Record<string, unknown>>;
}

/** Entitlements that no task tree holds at once, one of each side. */
export interface ToxicRule {
  readonly name: string;
  readonly one: readonly string[];
  readonly other: readonly string[];
  /** What the refused agent is told. */
  readonly reason: string | null;
}

/** How many grants not yet contained there are at most, so that releasing and asking again does not get round it. */
export interface AtMostRule {
  readonly name: string;
  readonly grants: number;
  readonly per: 'tree' | 'workload' | 'target';
  /** Entitlements that count; null: all. */
  readonly of: readonly string[] | null;
  readonly reason: string | null;
}

/** Grants of these entitlements wait until somebody of the group approves them, whatever policy permits them. */
export interface ApprovalRule {
  readonly name: string;
  readonly of: readonly string[];
  readonly group: string;
}

export interface Limits {
  readonly toxic: readonly ToxicRule[];
  readonly atMost: readonly AtMostRule[];
  /** Absent: none. */
  readonly approvals?: readonly ApprovalRule[] | undefined;
}

/** How a catalog in force is replaced by another, and what takes two people while it is. */
export interface ChangeControl {
  /** What replaces it must have a higher one. Null: anything may. */
  readonly serial: number | null;
  readonly fourEyes: readonly FourEyesOperation[];
}

/** Where people, or what wakes them, are told of news: docs/webhooks.md. */
export interface Webhook {
  readonly name: string;
  readonly dev: boolean;
  /** https, or a reference to it where the URL itself is the secret; in dev mode, http on loopback. */
  readonly url: string;
  readonly format: 'standard' | 'slack';
  readonly events: readonly string[];
  /** References to `whsec_…`: each signs, so that one can be replaced. Only Slack's may have none. */
  readonly secrets: readonly string[];
  /** Null: whatever it is about. */
  readonly targets: readonly string[] | null;
  /** CIDR blocks that it may resolve to; null: any but those of machines and of link-local services. */
  readonly addresses: readonly string[] | null;
}

/** Everything the platform team decided, valid as a whole. */
export interface Catalog {
  /** `sha256:<hex>` over the files: path and content, sorted by path. */
  readonly digest: string;
  /** Path below the catalog folder → content. What a revision stores. */
  readonly files: Readonly<Record<string, string>>;
  readonly trust: Trust;
  readonly targets: ReadonlyMap<string, TargetDefinition>;
  readonly entitlements: ReadonlyMap<string, EntitlementDefinition>;
  readonly purposes: ReadonlyMap<string, Purpose>;
  readonly limits: Limits;
  readonly toolGateways: readonly ToolGateway[];
  readonly signalSources: readonly SignalSource[];
  readonly webhooks: readonly Webhook[];
  readonly policySet: PolicySet;
  readonly changeControl: ChangeControl;
}
