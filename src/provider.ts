import type { z } from 'zod';
import type { ConnectContext } from './domain/connect-context.ts';
import type { Drift, DriftCode } from './domain/drift.ts';
import type { Facts, Guarantee } from './domain/grant.ts';
import { ProviderError } from './domain/provider-error.ts';
import type { ErrorClass, Evidence } from './domain/revocation.ts';
import { Secret } from './domain/secret.ts';
import type { Beat, Holder, PreparedBy } from './domain/tenure.ts';
import { within } from './domain/within.ts';

export type { Beat, ConnectContext, Drift, DriftCode, ErrorClass, Evidence, Facts, Guarantee, Holder, PreparedBy };
export { ProviderError, Secret, within };

/**
 * The contract between the broker and one kind of system (DESIGN §5). A provider knows nothing of HTTP, tasks,
 * policy, queue or store; it imports this file and nothing else of ours.
 *
 * Every call that touches the target gets an `AbortSignal`; the call must end soon after it fires. Failures are
 * thrown as {@link ProviderError}; batch calls report per ref and throw only when nothing could be tried.
 */
export interface Provider<TargetConfig = unknown, EntitlementConfig = unknown> {
  /** The name used in the catalog, e.g. `postgres`. */
  readonly type: string;
  /** Strict schema of a target's `connection`. Secrets only as references (see {@link SecretRef}). */
  readonly targetSchema: z.ZodType<TargetConfig>;
  /** Strict schema of an entitlement's `provider` section. */
  readonly entitlementSchema: z.ZodType<EntitlementConfig>;
  /**
   * Whether `mint` binds the request's params into the credential itself. Without it a catalog whose entitlements declare
   * params for this provider is refused; `mint` must refuse params all the same.
   */
  readonly bindsParams?: boolean;
  /** What of an entitlement can not be, and its section alone does not show: sentences for `catalog check`. None: an empty list. */
  faults?(entitlement: Omit<PreparedEntitlement<EntitlementConfig>, 'maxTtlSeconds'>): readonly string[];
  /** What all targets of this type in a catalog can not be, e.g. for what they share: by name, sentences for `catalog check`. */
  targetFaults?(targets: ReadonlyMap<string, TargetConfig>): ReadonlyMap<string, readonly string[]>;
  /**
   * Opens what is needed to work on one target. Must not fail because the target is down: connections are made
   * when needed. `context.secret` resolves a reference each time it is called, so a rotated file is read again.
   */
  connect(target: TargetConfig, context: ConnectContext): Session<EntitlementConfig>;
  /** Makes a target ready for its entitlements, where a person with more rights than the broker must do that once. */
  readonly preparation?: Preparation<TargetConfig, EntitlementConfig>;
}

/** What `mayfly target prepare` prints or applies. Idempotent: run again after every change of the entitlements. */
export interface Preparation<TargetConfig = unknown, EntitlementConfig = unknown> {
  /** What `script` can print besides its usual form. */
  readonly formats?: readonly string[];
  /** A script for an administrator, without any secret in clear. `secret` is the broker's own, if it is to be set. */
  script(
    target: TargetConfig,
    entitlements: readonly PreparedEntitlement<EntitlementConfig>[],
    installation: string,
    secret: Secret<string> | null,
    by?: PreparedBy,
    format?: string,
  ): Promise<string>;
  /** Absent where no administrator has a URL. @throws ProviderError with what the target said. */
  apply?(
    adminUrl: Secret<string>,
    target: TargetConfig,
    entitlements: readonly PreparedEntitlement<EntitlementConfig>[],
    installation: string,
    secret: Secret<string>,
    by?: PreparedBy,
  ): Promise<void>;
  /**
   * A Kubernetes manifest, without secrets, of what ends sessions past their deadline with the whole broker down.
   * @param name Of the target in the catalog. @throws ProviderError
   */
  expireJob?(name: string, target: TargetConfig): string;
}

export interface PreparedEntitlement<EntitlementConfig = unknown> {
  readonly name: string;
  readonly maxTtlSeconds: number;
  readonly config: EntitlementConfig;
  /** What the entitlement declares; undefined where nobody said. */
  readonly params?: Readonly<Record<string, DeclaredParam>>;
  /** What becomes of what its credentials own in the target at their end, where they can own anything. Default: drop. */
  readonly onOwnedObjects?: 'drop' | 'keep';
}

/** As the catalog declares it. */
export interface DeclaredParam {
  readonly type: 'string' | 'integer' | 'boolean';
  readonly enum?: readonly (string | number | boolean)[] | undefined;
  readonly pattern?: string | undefined;
  readonly min?: number | undefined;
  readonly max?: number | undefined;
}

/** One grant, as a provider sees it. `facts` is null when a crash lost what `mint` learned. */
export interface Ref {
  /** A UUID. */
  readonly grantId: string;
  readonly handle: string;
  readonly facts: Facts | null;
  /** By the store's clock. */
  readonly deadline: Date;
  /** By the store's clock: it failed over then, and may have forgotten a renewal. Facts and deadline may be older than what was handed out. */
  readonly setBackAt?: Date;
}

export interface MintRequest<EntitlementConfig = unknown> {
  readonly grantId: string;
  readonly entitlement: string;
  readonly config: EntitlementConfig;
  readonly params: Readonly<Record<string, string | number | boolean>>;
  /** When the credential must be dead, by the broker's clock; providers translate it to the target's. */
  readonly deadline: Date;
  /** The furthest a renewal may ever reach. */
  readonly notAfter: Date;
  /** A mint that has not taken effect by then must have no effect at all. */
  readonly mintBy: Date;
  /** The target must hold the credential to one connection at a time. Asked only of whose guarantee says `one_connection`. */
  readonly oneConnection?: true;
}

export interface Minted {
  /** Members of the `credential` in the answer, without `expires_at`, `guarantee`, `grant_id`. */
  readonly secret: Secret<Readonly<Record<string, unknown>>>;
  /** When the target itself stops accepting the credential. */
  readonly expiresAt: Date;
  readonly facts: Facts;
}

/** What is renewed, as the catalog says it now. */
export type Renewal<EntitlementConfig = unknown> = Pick<
  MintRequest<EntitlementConfig>,
  'entitlement' | 'config' | 'params'
>;

export interface Renewed {
  readonly secret?: Secret<Readonly<Record<string, unknown>>>;
  readonly expiresAt: Date;
  readonly facts: Facts;
}

/** An answer for one ref of a batch: same order and length as the refs given. */
export interface Answer {
  /** Whose answer it is. Said, it is compared with whom was asked about: an order that was mixed up does not pass unseen. */
  readonly handle?: string;
}

/** What became of one ref. */
export type Outcome = Answer &
  ({ readonly ok: true; readonly evidence: Evidence } | { readonly ok: false; readonly error: ProviderError });

/** What became of one ref that was to be fenced or reaped. */
export type FenceOutcome = Outcome & {
  readonly notBefore?: Date;
  /** Whom in the view this fence cuts all the same, for want of room: said with any outcome of the batch, as long as it is so. They end. */
  readonly besides?: readonly string[];
};

export type Verdict = Answer &
  (
    | {
        readonly ok: true;
        readonly contained: boolean;
        readonly clean: boolean;
        readonly evidence: Evidence;
        /** Whether access was seen to be open. Without it, what is not contained counts as open. */
        readonly open?: boolean;
      }
    | { readonly ok: false; readonly error: ProviderError }
  );

export interface Found {
  readonly handle: string;
  /** The grant that the mark names, or null when only the mark's form is ours. */
  readonly grantId: string | null;
  readonly installation: string | null;
  readonly facts: Facts;
}

/** A live grant with what it was granted by, as the catalog says it now. */
export interface Granted<EntitlementConfig = unknown> extends Ref {
  readonly config: EntitlementConfig;
}

/** How one grant differs from what was granted. No drift: an empty list. */
export type Inspection =
  | { readonly ok: true; readonly drift: readonly Drift[] }
  | { readonly ok: false; readonly error: ProviderError };

/** One session that was open when the provider looked. Never a statement, nor a literal of one. */
export interface Use {
  /** What the client says it is: up to 63 characters of its own choice, '' for nothing. No proof of anything. */
  readonly applicationName: string;
  /** Where it came from as the target sees it (a proxy's address behind a proxy), or `local`. */
  readonly clientAddress: string;
  /** When the session began. By the broker's clock, as all times here. */
  readonly since: Date;
  /** In the target's words, e.g. `active`, `idle in transaction`. */
  readonly state: string | null;
  /** When its last statement began. Null before the first one. */
  readonly lastQueryAt: Date | null;
  /** Which of the target's servers it is on, for a person. Without it: the one where credentials are made. */
  readonly server?: string;
}

/**
 * A sample of the use of one grant: what came and went between two looks was not seen. `total` counts all sessions;
 * `sessions` are the {@link observedSessions} that began first. `unseen` says which of the target's servers could not be
 * looked at, and why: what is on those is not counted.
 */
export type Observation =
  | {
      readonly ok: true;
      readonly total: number;
      readonly sessions: readonly Use[];
      readonly unseen?: readonly string[];
    }
  | { readonly ok: false; readonly error: ProviderError };

/** How many sessions of one grant are described at most, by `observe` and in the evidence of `fence`. */
export const observedSessions = 20;

export interface CheckStep {
  readonly step: string;
  readonly ok: boolean;
  /** It is `ok`, and somebody should look at it: it makes an entitlement wider than it says and breaks no guarantee. */
  readonly warns?: true;
  /** A sentence. Never a secret. */
  readonly says: string;
}

/** For targets whose fence is one document about all refs. */
export interface FenceView {
  /** Every live and minting ref of the target that is not being ended. */
  readonly live: readonly Ref[];
  /** Fencing number: a later writer has a larger one. */
  readonly writer: bigint;
  /** By the broker's clock: what was issued since may not be among `live`, however late the view is used. */
  readonly at: Date;
}

export interface Session<EntitlementConfig = unknown> {
  /** Its fence is one document about all refs: `fence` and `reap` get a view, and no two are at work on one target. A late one is told by its number. */
  readonly oneDocument?: boolean;
  /** What is promised for this entitlement on this target as it is now. Told before anything is issued. */
  guarantee(entitlement: EntitlementConfig, signal: AbortSignal): Promise<Guarantee>;
  /** Chooses the identity's name. Pure: touches nothing in the target. */
  reserve(grantId: string): string;
  /** Makes the credential. What it made dies by itself or can be found by the handle. */
  mint(ref: Ref, request: MintRequest<EntitlementConfig>, signal: AbortSignal): Promise<Minted>;
  /** Moves the end to `until`. A new secret, if the target cannot extend, belongs to the same handle. */
  renew?(ref: Ref, until: Date, signal: AbortSignal, granted?: Renewal<EntitlementConfig>): Promise<Renewed>;
  /**
   * Cuts access now. Fast, idempotent. Already gone is success, permission denied never is. One bad ref fails alone. Its
   * evidence has the `sessions: [{address, application, since}]` that it ended, at most {@link observedSessions}. What is at its end
   * by itself before anything could be done has a `notBefore`: it is looked at then.
   */
  fence(refs: readonly Ref[], signal: AbortSignal, view?: FenceView): Promise<readonly FenceOutcome[]>;
  /** Looks at the target, not at notes. Absent counts only in the incarnation that `facts` pins. */
  verify(refs: readonly Ref[], signal: AbortSignal): Promise<readonly Verdict[]>;
  /** Cleans up what fencing left. `notBefore` in the evidence-free outcome asks to be called again then. */
  reap(refs: readonly Ref[], signal: AbortSignal, view?: FenceView): Promise<readonly FenceOutcome[]>;
  /**
   * What each credential can really do now, compared with what was granted; same order and length as given. Changes
   * nothing. A grant that was ended is for `verify`.
   */
  inspect?(grants: readonly Granted<EntitlementConfig>[], signal: AbortSignal): Promise<readonly Inspection[]>;
  /** The sessions that use each credential at this moment; same order and length as the refs given. Changes nothing. */
  observe?(refs: readonly Ref[], signal: AbortSignal): Promise<readonly Observation[]>;
  /**
   * When the target itself stops accepting each, by the broker's clock; its deadline where the target would go on for ever; null for
   * what it does not know. Asked while the store can not be: a renewal that it committed may not be known here, and nothing is ended
   * early. For a session that can `renew`.
   */
  ends?(refs: readonly Ref[], signal: AbortSignal): Promise<readonly (Date | null)[]>;
  /** Everything in the target that verifiably bears our mark; with `after`, a page of it: those behind it, in order; none at the end. */
  list?(signal: AbortSignal, after?: string): Promise<readonly Found[]>;
  /**
   * Who holds the target, once the beat is written where it may be. Without it, or with null, there is no record (yet): then nothing
   * tells which system stands there now, and what lost its facts never counts as gone by being absent. A person writes it off.
   */
  hold?(signal: AbortSignal, beat?: Beat): Promise<Holder | null>;
  /** Canary: mint, use, be refused, revoke, verify; clock skew; rights too wide or too narrow. */
  check(
    entitlement: { name: string; config: EntitlementConfig } | null,
    signal: AbortSignal,
  ): Promise<readonly CheckStep[]>;
  close(): Promise<void>;
}
