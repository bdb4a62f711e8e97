import type { ParamValue, Workload } from './task.ts';

// Who is believed about tasks and workloads, as trust.yaml says it.

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

/** Where the `sub` of an issuer's tasks names people: without `prefix` it is their `sub` at that source of operators. */
export interface SubjectMapping {
  /** Name of the source of operators. */
  readonly operators: string;
  readonly prefix: string;
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
  /** Absent or of another source: who of the operators is the subject of a task is not known, so that none of them approves for it. */
  readonly subjects?: readonly SubjectMapping[] | undefined;
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
