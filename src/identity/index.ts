import type { X509Certificate } from 'node:crypto';
import type { Trust } from '../catalog/types.ts';
import { MayflyError } from '../domain/errors.ts';
import { keyThumbprintOf, thumbprintOf } from './certificates/certificate.ts';
import { verifyDelegation } from './delegation.ts';
import { verifyProof } from './dpop.ts';
import { explainToken } from './explain-token.ts';
import { createKeySets, type KeysEvent } from './key-sets.ts';
import { signIn } from './sign-in.ts';
import { SpiffeX509 } from './sources/spiffe-x509.ts';
import { verifyTaskEvent } from './task-event.ts';
import { verifyTaskRequest } from './task-request.ts';
import { createTokenReviews, type ReadSecret, type TokenReviewFailed } from './token-reviews.ts';
import { statesByToken, verifyTokenStatement } from './token-statement.ts';
import { TokenCache } from './token-cache.ts';
import type { Believed, Caller, Identity, Presented, VerifyContext } from './types.ts';
import { type PresentedToken, readAuthorization, type VerifiedCaller, verifyCallerToken } from './workload-token.ts';

/** One line for the log. Holds names and reasons, never a key or a token. */
export type IdentityEvent = KeysEvent | TokenReviewFailed | CertificatesNotAsked;

/** Told when a catalog comes into force: everybody of that source would get a 401 without a reason. */
export interface CertificatesNotAsked {
  readonly event: 'certificates_not_asked';
  readonly source: string;
  readonly reason: string;
}

/** What is counted: by names from the catalog. */
export interface IdentityObserver {
  /** All that the catalog in force trusts. */
  trusted(sources: readonly string[]): void;
  keysFetched(source: string): void;
  identityFailed(source: string, what: 'keys' | 'token_review'): void;
}

export interface IdentityOptions {
  /** Replaces the fetch by which JWKS URLs are read. */
  readonly fetch?: typeof globalThis.fetch;
  /** Monotonic milliseconds, for the age of keys; tokens are judged by `VerifyContext.now`. */
  readonly clock?: () => number;
  readonly log?: (event: IdentityEvent) => void;
  readonly observer?: IdentityObserver;
  /** For one whole exchange with a JWKS URL. */
  readonly fetchTimeoutMs?: number;
  /** Reads a reference of a workload source, anew at each call. Throws when it can not be had. */
  readonly secret?: ReadSecret;
  /** False: the listener asks nobody for a certificate. */
  readonly certificates?: boolean;
}

/** Whether the keys of one issuer or source can be believed now. */
export interface KeysReady {
  readonly source: string;
  readonly ready: boolean;
}

export interface IdentityService extends Identity {
  /**
   * Fetches the keys of every issuer and source, so that the first request does not wait, and forgets those of
   * others. Never rejects for a source that is down: it says so, for `/readyz`.
   */
  warmUp(trust: Trust): Promise<readonly KeysReady[]>;
  /** Ends the fetches under way. There are no timers. */
  close(): void;
}

/**
 * Who asks, and who stated the task.
 * @example
 * const identity = createIdentity({ log: (event) => logger.warn(event) });
 * const { caller, proof } = await identity.authenticate({ authorization, proofs, method, path }, { trust, audience, now });
 */
export function createIdentity(options: IdentityOptions = {}): IdentityService {
  const clock = options.clock ?? (() => performance.now());
  const { observer } = options;
  const log = (event: IdentityEvent): void => {
    options.log?.(event);
    if (event.event === 'jwks_fetched') observer?.keysFetched(event.source);
    if (event.event === 'jwks_fetch_failed') observer?.identityFailed(event.source, 'keys');
    if (event.event === 'token_review_failed') observer?.identityFailed(event.source, 'token_review');
  };
  const timeoutMs = options.fetchTimeoutMs ?? 5_000;
  const fetch = options.fetch ?? globalThis.fetch;
  const closing = new AbortController();
  const keySets = createKeySets({ fetch, clock, log, fetchTimeoutMs: timeoutMs });
  const reviews = createTokenReviews({ secret: options.secret, log, timeoutMs });
  const cache = new TokenCache(keySets, clock);
  const svids = new SpiffeX509(keySets, clock);
  return {
    verifyTaskRequest: async (compact, context) =>
      statesByToken(compact, context)
        ? verifyTokenStatement(compact, context, keySets, reviews)
        : verifyTaskRequest(compact, context, keySets),
    verifyTaskEvent: (compact, context) => verifyTaskEvent(compact, context, keySets),
    verifyDelegation: (compact, parent, context) => verifyDelegation(compact, parent, context, keySets),
    async authenticate(presented, context) {
      const { authorization, certificates = [] } = presented;
      const [own, ...between] = certificates;
      if (authorization === undefined && own !== undefined)
        return await prove(await svids.believe([own, ...between], context), null, presented, context);
      const given = readAuthorization(authorization);
      const known = cache.find(given.token, context);
      const verified = known ?? (await verifyCallerToken(given.token, context, keySets, reviews));
      if (known === undefined) cache.remember(given.token, context, verified);
      return await believe(verified, given, presented, context);
    },
    signIn: (source, code, now) =>
      signIn(source, code, now, { fetch, keySets, secret: options.secret, timeoutMs, closing: closing.signal }),
    explain: (token, context) => explainToken(token, context, keySets, reviews),
    async warmUp(trust) {
      const owners = [...trust.taskIssuers, ...trust.workloadSources, ...trust.operators];
      keySets.keepOnly(owners);
      observer?.trusted(owners.map(({ name }) => name));
      const reason = 'the listener asks for no certificates: MAYFLY_TLS_CLIENT_CERTIFICATES is off';
      if (options.certificates === false)
        for (const { kind, name } of trust.workloadSources)
          if (kind === 'spiffe-x509') log({ event: 'certificates_not_asked', source: name, reason });
      return Promise.all(owners.map(async (owner) => ({ source: owner.name, ready: await keySets.of(owner).ready() })));
    },
    close() {
      closing.abort(new Error('the broker is closing'));
      keySets.close();
      reviews.close();
    },
  };
}

/**
 * RFC 9449 §7: a token that is bound to a key comes as `DPoP` and with a proof by that key. RFC 8705 §3: one that is bound to a
 * certificate comes over a connection with that very certificate. Beside any other token either may come, for the key that a task names.
 */
async function believe(
  { caller, boundTo }: VerifiedCaller,
  { scheme, token }: PresentedToken,
  presented: Presented,
  context: VerifyContext,
): Promise<Believed> {
  if (boundTo.key === null && scheme === 'dpop') throw new MayflyError('workload_token_unbound');
  if (boundTo.key !== null && scheme === 'bearer') throw new MayflyError('workload_token_bound');
  if (boundTo.key !== null && presented.proofs.length === 0) throw new MayflyError('proof_missing');
  if (boundTo.certificate !== null) requireCertificate(boundTo.certificate, presented);
  const believed = await prove(caller, token, presented, context);
  if (boundTo.key !== null && boundTo.key !== believed.proof?.jkt) throw new MayflyError('proof_key_wrong');
  return believed;
}

function requireCertificate(thumbprint: string, { certificates = [] }: Presented): void {
  const [own] = certificates;
  if (own === undefined) throw new MayflyError('certificate_missing');
  if (thumbprintOf(own) !== thumbprint) throw new MayflyError('certificate_wrong');
}

/** The key that this call proves: by the proof that came along, which must hold, or else by the certificate of its connection. */
async function prove(
  caller: Caller,
  token: string | null,
  { proofs, certificates = [], method, path }: Presented,
  { audience, now }: VerifyContext,
): Promise<Believed> {
  const proof =
    proofs.length === 0 ? null : await verifyProof(proofs, { method, url: `${audience}${path}`, token, now });
  if (caller.kind === 'operator') return { caller, proof };
  const [own] = certificates;
  const keyThumbprint = proof?.jkt ?? caller.keyThumbprint ?? (own === undefined ? null : keyOf(own));
  return { caller: keyThumbprint === caller.keyThumbprint ? caller : { ...caller, keyThumbprint }, proof };
}

/** A key that is too weak proves nothing. */
function keyOf(certificate: X509Certificate): string | null {
  try {
    return keyThumbprintOf(certificate);
  } catch {
    return null;
  }
}
