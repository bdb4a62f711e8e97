import type { ParamValue, Workload } from '../domain/task.ts';

/** Where an issuer's public keys come from. Exactly one. */
export type JwksSource =
  | { readonly url: string }
  /** Relative to the catalog's folder; read when the catalog is loaded. */
  | { readonly file: string }
  | { readonly inline: { readonly keys: readonly Readonly<Record<string, unknown>>[] } };

export interface IssuerBase {
  readonly name: string;
  /** Made by `mayfly dev`. Refused by every store without the dev marker. */
  readonly dev: boolean;
  readonly issuer: string;
  readonly jwks: JwksSource;
  /** Asymmetric JWS algorithms, e.g. `ES256`. */
  readonly algorithms: readonly string[];
}

/** A party entitled to state tasks. */
export interface TaskIssuer extends IssuerBase {
  readonly purposes: readonly string[];
  /** Workload ids it may name: `<source>:<subject>`, exact, or a SPIFFE path prefix that ends with `/*`. */
  readonly workloads: readonly string[];
  readonly maxTaskSeconds: number;
  /** May state tasks whose `sub` is the agent itself. */
  readonly autonomous: boolean;
  /** `none`: its tasks may name no key; then a stolen workload token and an id are enough to act for them. */
  readonly proofOfPossession: 'required' | 'none';
  /** Its tasks' `sub` without `prefix` is the `sub` of that source's operators. Of any other source it is not known who it is: nobody there approves. */
  readonly subjects?: readonly { readonly operators: string; readonly prefix: string }[] | undefined;
}

/** What stands in a claim of the token, or is always the same. */
export type FromToken<T> = { readonly claim: string } | { readonly value: T };

/** A party whose verified tokens are themselves the statements of tasks. Who it is, is the workload source's to say. */
export interface TokenIssuer extends TaskIssuer {
  readonly statement: {
    /** Name of the workload source whose tokens they are. */
    readonly source: string;
    readonly purpose: FromToken<string>;
    /** The claim that says on whose behalf. */
    readonly subjectClaim: string;
    /** Who must present it; null: the token's own workload. */
    readonly workload: Workload | { readonly source: string; readonly claim: string } | null;
    readonly entitlements: readonly string[];
    readonly params: Readonly<Record<string, FromToken<ParamValue>>>;
    readonly maxTtlSeconds: number | null;
    /** From the token's `iat`; null: the task ends with the token. */
    readonly notAfterSeconds: number | null;
    /** Their values name the task; none: the token's `jti`. */
    readonly externalIdClaims: readonly string[];
  };
}

/** Access tokens of an OIDC provider. */
export interface OidcSource extends IssuerBase {
  readonly kind: 'oidc';
  /** The claim that is the workload's subject. Default: `sub`. */
  readonly subjectClaim?: string | undefined;
  /** Claims that must be there with exactly these values. */
  readonly require?: Readonly<Record<string, string | number | boolean>> | undefined;
  /** Set: only RFC 9068 access tokens. */
  readonly tokenType?: 'at+jwt' | undefined;
}

/** JWT-SVIDs of one SPIFFE trust domain. `issuer` is the domain's own SPIFFE ID, `jwks` its bundle. */
export interface SpiffeJwtSource extends IssuerBase {
  readonly kind: 'spiffe-jwt';
  readonly trustDomain: string;
}

/** X.509-SVIDs of one SPIFFE trust domain, shown by mutual TLS. `jwks` is its bundle; of `algorithms` there are none. */
export interface SpiffeX509Source extends IssuerBase {
  readonly kind: 'spiffe-x509';
  readonly trustDomain: string;
}

/** Where a cluster answers whether a token still holds. The references lie in the source's own secrets folder. */
export interface TokenReview {
  /** Of the API server. */
  readonly url: string;
  /** `file:` reference to the cluster's certificate authority, PEM. */
  readonly ca: string;
  /** `file:` reference to a token that may create TokenReviews. */
  readonly credential: string;
}

/** Service-account tokens that a cluster's pods hold. */
export interface KubernetesSource extends IssuerBase {
  readonly kind: 'kubernetes';
  readonly tokenReview?: TokenReview | undefined;
}

/** What a workflow run must be to be taken for one workload. What is absent does not count. */
export interface GithubRepository {
  readonly repositoryId: string;
  readonly repositoryOwnerId: string;
  readonly jobWorkflowRef?: string | undefined;
  readonly environment?: string | undefined;
  readonly ref?: string | undefined;
  /** Tells workloads of one repository apart. */
  readonly as?: string | undefined;
}

/** Tokens of GitHub Actions workflow runs. */
export interface GithubActionsSource extends IssuerBase {
  readonly kind: 'github-actions';
  /** The first one that fits says which workload it is. */
  readonly repositories: readonly GithubRepository[];
}

/** A source of workload identity by tokens of one kind. */
export type TokenSource = OidcSource | SpiffeJwtSource | KubernetesSource | GithubActionsSource;

/** A source of workload identity, by the kind of what its workloads show. */
export type WorkloadSource = TokenSource | SpiffeX509Source;

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
  readonly policySet: PolicySet;
}
