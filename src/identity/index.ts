import type { Trust } from '../catalog/types.ts';

import { createKeySets, type KeysEvent } from './key-sets.ts';
import { verifyTaskRequest } from './task-request.ts';
import { createTokenReviews, type ReadSecret, type TokenReviewFailed } from './token-reviews.ts';
import { TokenCache } from './token-cache.ts';
import type { Identity } from './types.ts';
import { readBearer, verifyCallerToken } from './workload-token.ts';

/** One line for the log. Holds names and reasons, never a key or a token. */
export type IdentityEvent = KeysEvent | TokenReviewFailed;

export interface IdentityOptions {
  /** Replaces the fetch by which JWKS URLs are read. */
  readonly fetch?: typeof globalThis.fetch;
  /** Monotonic milliseconds, for the age of keys; tokens are judged by `VerifyContext.now`. */
  readonly clock?: () => number;
  readonly log?: (event: IdentityEvent) => void;
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
  const log = options.log ?? (() => undefined);
  const timeoutMs = options.fetchTimeoutMs ?? 5_000;
  const keySets = createKeySets({ fetch: options.fetch ?? globalThis.fetch, clock, log, fetchTimeoutMs: timeoutMs });
  const reviews = createTokenReviews({ secret: options.secret ?? noSecrets, log, timeoutMs });
  const cache = new TokenCache(keySets, clock);
  return {
    verifyTaskRequest: (compact, context) => verifyTaskRequest(compact, context, keySets),
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
      return Promise.all(owners.map(async (owner) => ({ source: owner.name, ready: await keySets.of(owner).ready() })));
    },
    close() {
      keySets.close();
      reviews.close();
    },
  };
}

function noSecrets(source: string): never {
  throw new Error(`${source} has no secrets here`);
}
