import type { X509Certificate } from 'node:crypto';
import type { OperatorRole, TaskIssuer, Trust } from '../catalog/types.ts';
import type { Ceiling, Owner } from '../domain/task.ts';

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
  readonly purpose: string;
  readonly phase: string | null;
  readonly notAfter: Date;
  readonly maxDepth: number;
  readonly intentHash: string | null;
  readonly ceiling: Ceiling;
  /** SHA-256 of the decoded payload bytes: another spelling of the signature is the same request. */
  readonly payloadDigest: Buffer;
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
  readonly roles: ReadonlySet<OperatorRole>;
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

export interface Identity {
  /** Steps 1–5 and 10, 13 of the order of checks. Throws MayflyError with the failing step's own code. */
  verifyTaskRequest(compact: string, context: VerifyContext): Promise<TaskStatement>;
  /** Believes a token and the proof beside it, or throws MayflyError (401, or 503 when keys cannot be fetched). */
  authenticate(presented: Presented, context: VerifyContext): Promise<Believed>;
}
