import { hash } from 'node:crypto';
import type { Trust } from '../catalog/types.ts';
import type { KeySets } from './key-sets.ts';
import type { VerifyContext } from './types.ts';
import { requireLive, type VerifiedCaller } from './workload-token.ts';

/** How long a verified token is believed without checking its signature again, in milliseconds. */
export const TOKEN_CACHE_MS = 10_000;
export const TOKEN_CACHE_ENTRIES = 10_000;

interface Entry {
  readonly verified: VerifiedCaller;
  readonly at: number;
}

/**
 * Callers whose tokens were verified moments ago: an ES256 verify for every request costs Express half its rate.
 * An entry counts only under the very trust object and key set that it was made by, so a changed catalog or key
 * never serves a stale belief, and its times are judged anew each time. Only verified tokens enter: a stranger
 * cannot fill it. Tokens themselves are not kept, only their hash.
 */
export class TokenCache {
  readonly #keySets: KeySets;
  readonly #clock: () => number;
  readonly #byTrust = new WeakMap<Trust, Map<string, Entry>>();

  constructor(keySets: KeySets, clock: () => number) {
    this.#keySets = keySets;
    this.#clock = clock;
  }

  /** @throws MayflyError when the token is known and its time is over. */
  find(token: string, context: VerifyContext): VerifiedCaller | undefined {
    const entries = this.#byTrust.get(context.trust);
    if (!entries) return undefined;
    const id = entryId(token, context.audience);
    const entry = entries.get(id);
    if (!entry) return undefined;
    const { times, source, keySet } = entry.verified;
    if (this.#clock() - entry.at >= TOKEN_CACHE_MS || this.#keySets.of(source).current() !== keySet) {
      entries.delete(id);
      return undefined;
    }
    requireLive(times, context.now);
    return entry.verified;
  }

  remember(token: string, context: VerifyContext, verified: VerifiedCaller): void {
    const entries = this.#byTrust.get(context.trust) ?? new Map<string, Entry>();
    this.#byTrust.set(context.trust, entries);
    const id = entryId(token, context.audience);
    // Entries stand in the order of their making, so the first is the oldest.
    entries.delete(id);
    entries.set(id, { verified, at: this.#clock() });
    for (const oldest of entries.keys()) {
      if (entries.size <= TOKEN_CACHE_ENTRIES) break;
      entries.delete(oldest);
    }
  }
}

function entryId(token: string, audience: string): string {
  return hash('sha256', `${audience}\n${token}`, 'base64url');
}
