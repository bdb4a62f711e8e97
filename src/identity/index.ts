import type { Trust } from '../catalog/types.ts';

import { createKeySets, type KeysEvent } from './key-sets.ts';
import { verifyTaskRequest } from './task-request.ts';
import { createTokenReviews, type ReadSecret, type TokenReviewFailed } from './token-reviews.ts';
import { statesByToken, verifyTokenStatement } from './token-statement.ts';
import { TokenCache } from './token-cache.ts';
import type { Identity } from './types.ts';
import { readBearer, verifyCallerToken } from './workload-token.ts';

/** One line for the log. Holds names and reasons, never a key or a token. */
export type IdentityEvent = KeysEvent | TokenReviewFailed;

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
 * const caller = await identity.authenticate(request.headers.authorization, { trust, audience, now });
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
  const keySets = createKeySets({ fetch: options.fetch ?? globalThis.fetch, clock, log, fetchTimeoutMs: timeoutMs });
  const reviews = createTokenReviews({ secret: options.secret, log, timeoutMs });
  const cache = new TokenCache(keySets, clock);
  return {
    verifyTaskRequest: async (compact, context) =>
      statesByToken(compact, context)
        ? verifyTokenStatement(compact, context, keySets, reviews)
        : verifyTaskRequest(compact, context, keySets),
    async authenticate(authorization, context) {
      const token = readBearer(authorization);
      const known = cache.find(token, context);
      if (known) return known;
      const verified = await verifyCallerToken(token, context, keySets, reviews);
      cache.remember(token, context, verified);
      return verified.caller;
    },
    async warmUp(trust) {
      const owners = [...trust.taskIssuers, ...trust.workloadSources, ...trust.operators];
      keySets.keepOnly(owners);
      observer?.trusted(owners.map(({ name }) => name));
      return Promise.all(owners.map(async (owner) => ({ source: owner.name, ready: await keySets.of(owner).ready() })));
    },
    close() {
      keySets.close();
      reviews.close();
    },
  };
}
