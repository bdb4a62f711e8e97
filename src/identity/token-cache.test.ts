import { describe, expect, it } from 'vitest';
import type { KeyOwner, KeySets } from './key-sets.ts';
import type { KeySet } from './key-source.ts';
import { makeTrust, NOW, SECONDS } from './testing/trust.ts';
import { TOKEN_CACHE_ENTRIES, TOKEN_CACHE_MS, TokenCache } from './token-cache.ts';
import type { VerifyContext } from './types.ts';
import type { VerifiedCaller } from './workload-token.ts';

const { trust, context } = makeTrust();

function setUp() {
  const time = { ms: 0 };
  const state: { current: KeySet | undefined } = { current: { keys: new Map() } };
  const keySets: KeySets = {
    of: (_owner: KeyOwner) => ({
      current: () => state.current,
      search: () => Promise.reject(new Error('not asked')),
      ready: () => Promise.resolve(true),
    }),
    keepOnly: () => undefined,
    close: () => undefined,
  };
  const [source] = trust.workloadSources;
  if (source?.kind !== 'oidc' || !state.current) throw new Error('no source');
  const verified: VerifiedCaller = {
    caller: {
      kind: 'workload',
      workload: { source: 'idp', subject: 'a' },
      keyThumbprint: null,
      instance: null,
      expiresAt: NOW,
    },
    boundTo: { key: null, certificate: null },
    times: { exp: SECONDS + 60 },
    source,
    keySet: state.current,
  };
  const cache = new TokenCache(keySets, () => time.ms);
  cache.remember('token', context, verified);
  const at = (seconds: number): VerifyContext => ({ ...context, now: new Date((SECONDS + seconds) * 1000) });
  return { cache, verified, time, state, at };
}

describe('the cache of verified tokens', () => {
  it('knows the exact token for ten seconds', () => {
    const { cache, verified, time } = setUp();
    time.ms = TOKEN_CACHE_MS - 1;
    expect(cache.find('token', context)).toBe(verified);
    expect(cache.find('token ', context)).toBeUndefined();
    time.ms = TOKEN_CACHE_MS;
    expect(cache.find('token', context)).toBeUndefined();
  });

  it('is not prolonged by use', () => {
    const { cache, time } = setUp();
    for (time.ms = 0; time.ms < TOKEN_CACHE_MS; time.ms += 1000) expect(cache.find('token', context)).toBeDefined();
    expect(cache.find('token', context)).toBeUndefined();
  });

  it('judges the times anew each time', () => {
    const { cache, at } = setUp();
    expect(cache.find('token', at(64.999))).toBeDefined();
    expect(() => cache.find('token', at(65))).toThrow(expect.objectContaining({ code: 'workload_token_expired' }));
  });

  it('knows nothing under another trust, audience or key set', () => {
    const { cache, state } = setUp();
    expect(cache.find('token', { ...context, trust: { ...trust } })).toBeUndefined();
    expect(cache.find('token', { ...context, audience: 'https://other.example' })).toBeUndefined();
    expect(cache.find('token', context)).toBeDefined();
    state.current = { keys: new Map() };
    expect(cache.find('token', context)).toBeUndefined();
  });

  it('knows nothing once the keys may no longer be believed', () => {
    const { cache, state } = setUp();
    state.current = undefined;
    expect(cache.find('token', context)).toBeUndefined();
  });

  it('forgets the oldest when it is full', () => {
    const { cache, verified } = setUp();
    for (let n = 1; n < TOKEN_CACHE_ENTRIES; n++) cache.remember(`token ${n}`, context, verified);
    expect(cache.find('token', context)).toBeDefined();
    cache.remember('one more', context, verified);
    expect(cache.find('token', context)).toBeUndefined();
    expect(cache.find('token 1', context)).toBeDefined();
    expect(cache.find('one more', context)).toBeDefined();
  });
});
