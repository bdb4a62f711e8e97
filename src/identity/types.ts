import type { X509Certificate } from 'node:crypto';
import type { OperatorSource, RoleBinding, TaskIssuer, Trust } from '../catalog/types.ts';
import type { MayflyError } from '../domain/errors.ts';
import type { TaskId } from '../domain/ids.ts';
import type { Ceiling, Owner, Task, Workload } from '../domain/task.ts';

export interface VerifyContext {
  readonly trust: Trust;
  /** Our own name: the only acceptable `aud`, and the address that proofs must name. */
  readonly audience: string;
  readonly now: Date;
}

/** One running copy of a workload. */
export interface WorkloadInstance {
  /** Unique within its source for ever: a pod's uid, a workflow run with its attempt. */
  readonly id: string;
  /** What else its source says of it, for the record: node, service-account uid. */
  readonly details: Readonly<Record<string, string>>;
}

/** A task request whose signature, times and claims hold. Not yet checked against a workload or the registry. */
export interface TaskStatement {
  readonly issuer: TaskIssuer;
  readonly jti: string;
  readonly txn: string | null;
  /** `task.id`, the issuer's own name for the task. */
  readonly externalId: string;
  readonly subject: string;
  /** `act.sub`: the subject of the workload that must present it. */
  readonly actor: string;
  /**
   * Names of the workload sources whose workload of that subject the issuer may name (and, where `act.iss` stands there,
   * whose issuer it is). The presenting workload's source must be one of them.
   */
  readonly actorSources: readonly string[];
  /** `cnf.jkt`: the key that the presenting workload must prove. Null: the issuer is exempt, and named none. */
  readonly keyThumbprint: string | null;
  /** `delivery_jkt`: another key that credentials may be sealed to. */
  readonly deliveryThumbprint: string | null;
  readonly purpose: string;
  readonly phase: string | null;
  readonly notAfter: Date;
  readonly maxDepth: number;
  readonly intentHash: string | null;
  readonly ceiling: Ceiling;
  /** SHA-256 of the decoded payload bytes: another spelling of the signature is the same request. */
  readonly payloadDigest: Buffer;
}

/** What an issuer says of a task after it was opened. Whether the task is its own is not yet checked. */
export type TaskEvent = {
  readonly issuer: TaskIssuer;
  readonly jti: string;
  readonly payloadDigest: Buffer;
  readonly taskId: TaskId;
  readonly reason: string | null;
} & ({ readonly op: 'complete' | 'cancel' } | { readonly op: 'phase'; readonly phase: string });

/** The task that is to have a child. */
export type Delegating = Pick<Task, 'id' | 'issuer' | 'subject' | 'keyThumbprint'>;

/** A delegation whose signature, times and claims hold. What of it the parent can give is not yet checked. */
export interface Delegation {
  /** The parent's own id, or its issuer's name: who signed it. */
  readonly iss: string;
  readonly jti: string;
  readonly payloadDigest: Buffer;
  /** The offer can be claimed until then. */
  readonly expiresAt: Date;
  /** The workload that is to claim it. */
  readonly workload: Workload;
  /** The key that the workload must prove. Null: the task's issuer is exempt. */
  readonly keyThumbprint: string | null;
  /** Another key that its credentials may be sealed to. */
  readonly deliveryThumbprint: string | null;
  readonly purpose: string;
  /** Null: it follows its parent's. */
  readonly phase: string | null;
  readonly notAfter: Date;
  readonly maxDepth: number;
  readonly ceiling: Ceiling;
}

/** An agent; its `keyThumbprint` is of the key that it has proven to hold in this very call. */
export interface WorkloadCaller extends Owner {
  readonly kind: 'workload';
  /** The catalog revision whose trust believed it. What is born for a caller is born under that revision or not at all. */
  readonly revision?: number;
  /** What else its source says of the instance. */
  readonly instanceDetails?: WorkloadInstance['details'];
  /** The token's own end; long polls end with it. */
  readonly expiresAt: Date;
}

export interface OperatorCaller {
  readonly kind: 'operator';
  /** `<source>:<subject>`. */
  readonly operator: string;
  /** At least one. */
  readonly roles: readonly RoleBinding[];
  /** That it approves for. Absent: none. */
  readonly groups?: readonly string[];
  /** The catalog revision whose trust gave them. */
  readonly revision?: number;
  readonly expiresAt: Date;
}

export type Caller = WorkloadCaller | OperatorCaller;

/** What a call brings of its caller. */
export interface Presented {
  /** The `Authorization` header. */
  readonly authorization: string | undefined;
  /** Every `DPoP` header. */
  readonly proofs: readonly string[];
  /** What the other end of this very connection proved by TLS to hold the key of, and what came with it. What a header says of one counts for nothing. */
  readonly certificates?: readonly X509Certificate[];
  readonly method: string;
  /** Path of the call as it came, without its query. */
  readonly path: string;
}

/** A proof that holds. Whether it was seen before is not known yet. */
export interface Proof {
  /** Of its key, RFC 7638 by SHA-256. */
  readonly jkt: string;
  readonly jti: string;
  /** Ours, it says. Null: it carries none. Whether one is demanded, and this one taken, is not known here (§4.3, 10). */
  readonly nonce: string | null;
}

export interface Believed {
  readonly caller: Caller;
  /** The proof that came with the call and holds. It counts once: spend it before anything is done for the caller. */
  readonly proof: Proof | null;
}

/** What an issuer sent a browser back with, and what only whoever began that knows. */
export interface SignInCode {
  readonly code: string;
  /** RFC 7636. */
  readonly verifier: string;
  readonly nonce: string;
  readonly redirectUri: string;
}

export interface SignedIn {
  readonly subject: string;
  /** Those that say which roles. */
  readonly claims: Readonly<Record<string, unknown>>;
}

export interface Identity {
  /** Steps 1–5 and 10, 13 of the order of checks. Throws MayflyError with the failing step's own code. */
  verifyTaskRequest(compact: string, context: VerifyContext): Promise<TaskStatement>;
  /** An issuer's later word about one task, verified like a request. */
  verifyTaskEvent(compact: string, context: VerifyContext): Promise<TaskEvent>;
  /** The word by which the parent's owner, or its issuer, makes a child. */
  verifyDelegation(compact: string, parent: Delegating, context: VerifyContext): Promise<Delegation>;
  /** Believes a token and the proof beside it, or throws MayflyError (401, or 503 when keys cannot be fetched). */
  authenticate(presented: Presented, context: VerifyContext): Promise<Believed>;
  /** Why a token would be believed or not, for operators alone. */
  explain(token: string, context: VerifyContext): Promise<TokenExplanation>;
  /** Who signed in with a browser. Throws MayflyError `login_failed`, `operator_only` or `keys_unavailable`. */
  signIn(source: OperatorSource, code: SignInCode, now: Date): Promise<SignedIn>;
}

/** What is checked of a caller's token, in this order but for rules of its source's kind, which come last. */
export const tokenChecks = [
  'grammar',
  'type',
  'issuer',
  'algorithm',
  'header',
  'key',
  'signature',
  'audience',
  'claims',
  'time',
  'binding',
  'role',
] as const;
export type TokenCheckName = (typeof tokenChecks)[number];

export interface TokenCheck {
  readonly check: TokenCheckName;
  /** `unknown`: another check failed before it, or it may have been passed over. */
  readonly outcome: 'held' | 'failed' | 'unknown';
  /** What stands in the token. Absent where it could not be read. */
  readonly found?: unknown;
  /** What the catalog, or this broker, wants there. */
  readonly expected?: unknown;
}

/** Why a token is believed or not, for operators: it tells what the catalog trusts. */
export interface TokenExplanation {
  readonly checks: readonly TokenCheck[];
  /** The first check that failed; null: it is believed. */
  readonly refusal: MayflyError | null;
  /** What it is believed as; null when it is not. */
  readonly caller: Caller | null;
  /** Thumbprints of what the token itself is bound to. */
  readonly boundTo: { readonly key: string | null; readonly certificate: string | null };
  /** Name of the catalog's source that judges it. */
  readonly source: string | null;
  /** Task issuers that may name this workload. */
  readonly taskIssuers: readonly string[];
}
