import { X509Certificate } from 'node:crypto';
import { describe, expect, it, vi } from 'vitest';
import type { SpiffeX509Source } from '../../catalog/types.ts';
import { createIdentity } from '../index.ts';
import { issue, makeAuthority } from '../testing/svids.ts';
import { makeTrust, NOW, refusal } from '../testing/trust.ts';
import { TOKEN_CACHE_MS } from '../token-cache.ts';

const root = makeAuthority();
const prod = (keys: readonly object[]): SpiffeX509Source => ({
  ...{ kind: 'spiffe-x509', name: 'prod', dev: false, issuer: 'spiffe://prod.example', trustDomain: 'prod.example' },
  jwks: { inline: { keys: keys.map((key) => ({ ...key })) } },
  algorithms: [],
});

/** One connection, whose certificate is asked about again and again. */
function connect() {
  const time = { ms: 0 };
  const identity = createIdentity({ clock: () => time.ms });
  const { x509 } = issue(root, { notAfter: new Date(NOW.getTime() + 2_000) });
  const { trust, context } = makeTrust();
  const trusting = (...sources: readonly SpiffeX509Source[]) => ({ ...trust, workloadSources: sources });
  const presented = { authorization: undefined, proofs: [], method: 'GET', path: '/v1/tasks', certificates: [x509] };
  const usual = trusting(prod([root.entry]));
  const ask = (at = NOW, under = usual) =>
    refusal(identity.authenticate(presented, { ...context, trust: under, now: at }));
  return { time, trusting, ask };
}

describe('a certificate that was believed a moment ago', () => {
  it('is believed for ten seconds without following its path again', async () => {
    const verify = vi.spyOn(X509Certificate.prototype, 'verify');
    const { ask, time } = connect();
    expect([await ask(), await ask()]).toEqual(['accepted', 'accepted']);
    time.ms = TOKEN_CACHE_MS - 1;
    expect(await ask()).toBe('accepted');
    expect(verify).toHaveBeenCalledTimes(1);
    time.ms = TOKEN_CACHE_MS;
    expect(await ask()).toBe('accepted');
    expect(verify).toHaveBeenCalledTimes(2);
  });

  it('is over when it is over', async () => {
    const { ask } = connect();
    expect(await ask()).toBe('accepted');
    expect(await ask(new Date(NOW.getTime() + 2_001))).toBe('certificate_expired');
  });

  it('is nobody’s when the catalog does not trust its domain any more, or by another bundle', async () => {
    const { ask, trusting } = connect();
    expect(await ask()).toBe('accepted');
    expect(await ask(NOW, trusting())).toBe('certificate_issuer_unknown');
    expect(await ask(NOW, trusting(prod([])))).toBe('certificate_untrusted');
  });
});
