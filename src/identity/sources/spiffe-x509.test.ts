import { generateKeyPairSync, X509Certificate } from 'node:crypto';
import { describe, expect, it, vi } from 'vitest';
import { makeKey, signToken } from '../testing/keys.ts';
import { ask, believe, jktOf, made, root } from '../testing/shown.ts';
import {
  AGENT_ID,
  type CertificateDraft,
  CLIENT,
  der,
  extension,
  issue,
  makeAuthority,
  oid,
  p256,
  SERVER,
  sequence,
} from '../testing/svids.ts';
import { NOW, workloadClaims } from '../testing/trust.ts';

const hours = (count: number): Date => new Date(NOW.getTime() + count * 3600_000);

describe('an X.509-SVID', () => {
  it('is the workload of its trust domain, and proves its own key, without any token', async () => {
    const svid = issue(root);
    expect(await believe([svid])).toEqual({
      proof: null,
      caller: {
        kind: 'workload',
        workload: { source: 'prod', subject: AGENT_ID },
        keyThumbprint: await jktOf(svid),
        instance: null,
        expiresAt: hours(12),
      },
    });
  });

  it('may have a key of RSA, P-384 or Ed25519, and an authority of either', async () => {
    const kinds = [
      generateKeyPairSync('rsa', { modulusLength: 2048 }),
      generateKeyPairSync('ec', { namedCurve: 'P-384' }),
      generateKeyPairSync('ed25519'),
    ];
    for (const keys of kinds) {
      const authority = makeAuthority({ keys });
      const svid = issue(authority, { keys });
      expect((await believe([svid], { anchors: [authority.entry] })).caller).toMatchObject({
        keyThumbprint: await jktOf(svid),
      });
    }
  });

  it.each<[string, string, CertificateDraft]>([
    ['accepted', 'with host names beside its id', { dns: ['a.example', 'b.example'] }],
    ['accepted', 'without a name', { name: null }],
    ['accepted', 'that says nothing of purposes', { purposes: null }],
    ['accepted', 'for any purpose', { purposes: ['2.5.29.37.0'] }],
    ['accepted', 'that may encipher keys too', { usages: [0, 2] }],
    ['accepted', 'with an extension that nobody must understand', { more: [extension('1.2.3.4', false, sequence())] }],

    ['certificate_refused', 'with two URIs', { uris: [AGENT_ID, 'spiffe://prod.example/agents/other'] }],
    ['certificate_refused', 'with its id twice', { uris: [AGENT_ID, AGENT_ID] }],
    ['certificate_refused', 'with another URI beside its id', { uris: [AGENT_ID, 'https://prod.example/'] }],
    ['certificate_refused', 'without names', { uris: [] }],
    ['certificate_refused', 'with host names alone', { uris: [], dns: ['prod.example'] }],
    ['certificate_refused', 'whose id is the trust domain', { uris: ['spiffe://prod.example'] }],
    ['certificate_refused', 'whose id has a slash and no path', { uris: ['spiffe://prod.example/'] }],
    ['certificate_refused', 'of another scheme', { uris: ['https://prod.example/agents/recon'] }],
    ['certificate_refused', 'whose scheme is in capitals', { uris: [AGENT_ID.toUpperCase()] }],
    ['certificate_refused', 'whose path goes up', { uris: [`${AGENT_ID}/../admin`] }],
    ['certificate_refused', 'with a percent sign', { uris: [`${AGENT_ID}%2f`] }],
    ['certificate_refused', 'with a NUL', { uris: [`${AGENT_ID}\0.evil`] }],
    ['certificate_refused', 'with a line break', { uris: [`${AGENT_ID}\n`] }],
    ['certificate_refused', 'with a port', { uris: ['spiffe://prod.example:443/agents/recon'] }],
    ['certificate_refused', 'with a letter beyond ASCII', { uris: ['spiffe://prod.example/ag\u00e9nt'] }],
    ['certificate_issuer_unknown', 'of another trust domain', { uris: ['spiffe://other.example/agents/recon'] }],
    ['certificate_issuer_unknown', 'of a domain that begins alike', { uris: ['spiffe://prod.example.evil/a'] }],
    ['certificate_untrusted', 'of a domain with another bundle', { uris: ['spiffe://staging.example/agents/recon'] }],

    ['certificate_refused', 'of an authority', { authority: true, uris: [AGENT_ID], usages: [0] }],
    ['accepted', 'that says in full that it is no authority', { constraints: sequence(der(0x01, Buffer.of(0))) }],
    ['certificate_refused', 'whose yes is BER and not DER', { constraints: sequence(der(0x01, Buffer.of(1))) }],
    ['certificate_refused', 'that may sign certificates', { usages: [0, 5] }],
    ['certificate_refused', 'that may sign revocation lists', { usages: [0, 6] }],
    ['certificate_refused', 'whose key is for no signatures', { usages: [2] }],
    ['certificate_refused', 'with an empty key usage', { usages: [] }],
    ['certificate_refused', 'without a key usage', { usages: null }],
    ['certificate_refused', 'whose key usage is not critical', { usageCritical: false }],
    ['certificate_refused', 'for servers alone', { purposes: [SERVER] }],
    ['certificate_refused', 'with a weak key', { keys: generateKeyPairSync('rsa', { modulusLength: 1024 }) }],
    ['certificate_refused', 'with something critical', { more: [extension('1.2.3.4', true, sequence())] }],
    ['certificate_refused', 'with name constraints', { more: [extension('2.5.29.30', false, sequence())] }],
    [
      'certificate_refused',
      'that says its names twice',
      { more: [extension('2.5.29.17', false, sequence(der(0x86, Buffer.from('spiffe://prod.example/other'))))] },
    ],
    [
      'certificate_refused',
      'that says its purposes twice',
      { more: [extension('2.5.29.37', false, sequence(oid(CLIENT)))] },
    ],

    ['certificate_not_yet_valid', 'of tomorrow', { notBefore: hours(1) }],
    ['certificate_expired', 'of yesterday', { notBefore: hours(-2), notAfter: hours(-1) }],
  ])('is %s: one %s', async (outcome, _what, draft) => {
    expect(await ask([issue(root, draft)])).toBe(outcome);
  });

  it('counts to its last second, and no longer', async () => {
    const svid = issue(root, { notAfter: hours(1) });
    expect(await ask([svid], { now: hours(1) })).toBe('accepted');
    expect(await ask([svid], { now: new Date(hours(1).getTime() + 1) })).toBe('certificate_expired');
  });

  it('is no more than a token’s equal: with one, the token says who calls', async () => {
    const authorization = `Bearer ${signToken(made.workloadKey, workloadClaims())}`;
    const { caller } = await believe([issue(root)], { authorization });
    expect(caller).toMatchObject({ workload: { source: 'idp' } });
    expect(await ask([issue(root)], { authorization: 'Bearer a.b.c' })).toBe('workload_token_malformed');
    expect(await ask([], {})).toBe('workload_token_missing');
  });

  it('has a bundle of certificates alone: a token of its trust domain is of nobody', async () => {
    const key = makeKey('svid-1');
    const { alg: _, ...jwk } = key.jwk;
    const claims = { ...workloadClaims(), iss: 'spiffe://prod.example', sub: AGENT_ID };
    const asked = {
      anchors: [root.entry, { ...jwk, use: 'jwt-svid' }],
      authorization: `Bearer ${signToken(key, claims)}`,
    };
    expect(await ask([], asked)).toBe('workload_token_issuer_unknown');
  });
});

describe('the path of an X.509-SVID', () => {
  it('leads to an anchor through those that came with it, in any order', async () => {
    const upper = issue(root, { name: 'upper', authority: true });
    const lower = issue(upper, { name: 'lower', authority: true, uris: ['spiffe://prod.example'] });
    const svid = issue(lower);
    expect(await ask([svid, lower, upper])).toBe('accepted');
    expect(await ask([svid, upper, lower])).toBe('accepted');
    expect(await ask([svid, upper])).toBe('certificate_untrusted');
    expect(await ask([svid], { anchors: [lower.entry] })).toBe('accepted');
  });

  it('may lead to any anchor of the bundle, and not through one that is over', async () => {
    const keys = p256();
    const old = makeAuthority({ keys, notAfter: hours(-1) });
    const renewed = makeAuthority({ keys });
    expect(await ask([issue(renewed)], { anchors: [old.entry, makeAuthority().entry, renewed.entry] })).toBe(
      'accepted',
    );
    expect(await ask([issue(renewed)], { anchors: [old.entry] })).toBe('certificate_untrusted');
  });

  it.each<[string, CertificateDraft]>([
    ['is no authority', { authority: false, uris: [] }],
    ['is a workload itself', { authority: false, usages: [0, 5] }],
    ['may not sign certificates', { usages: [6] }],
    ['has no key usage', { usages: null }],
    ['is over', { notAfter: hours(-1) }],
    ['has not begun', { notBefore: hours(1) }],
    ['is for servers alone', { purposes: [SERVER] }],
    ['has a weak key', { keys: generateKeyPairSync('rsa', { modulusLength: 1024 }) }],
    ['has a key on a curve that is not used', { keys: generateKeyPairSync('ec', { namedCurve: 'secp256k1' }) }],
  ])('leads nowhere over an authority that %s', async (_what, draft) => {
    const between = issue(root, { name: 'between', authority: true, ...draft });
    expect(await ask([issue(between), between])).toBe('certificate_untrusted');
    const anchor = makeAuthority(draft);
    expect(await ask([issue(anchor)], { anchors: [anchor.entry] })).toBe('certificate_untrusted');
  });

  it.each([
    ['has name constraints', extension('2.5.29.30', true, sequence())],
    ['says something critical', extension('1.2.3.4', true, sequence())],
  ])('is not looked for over an authority that %s', async (_what, more) => {
    const between = issue(root, { name: 'between', authority: true, more: [more] });
    expect(await ask([issue(between), between])).toBe('certificate_refused');
    const anchor = makeAuthority({ more: [more] });
    expect(await ask([issue(anchor)], { anchors: [anchor.entry] })).toBe('certificate_untrusted');
  });

  it('is no longer than an authority allows, and never longer than four', async () => {
    const short = makeAuthority({ pathLength: 0 });
    const below = issue(short, { name: 'below', authority: true });
    expect(await ask([issue(short)], { anchors: [short.entry] })).toBe('accepted');
    expect(await ask([issue(below), below], { anchors: [short.entry] })).toBe('certificate_untrusted');
    const chain = [root];
    for (let n = 1; n <= 5; n++) chain.unshift(issue(chain[0] ?? root, { name: `ca-${n}`, authority: true }));
    const [, fourth = root] = chain;
    expect(await ask([issue(fourth), ...chain.slice(1, 5)])).toBe('accepted');
    expect(await ask([issue(chain[0] ?? root), ...chain.slice(0, 5)])).toBe('certificate_untrusted');
  });

  it('holds by signatures, not by names', async () => {
    const impostor = makeAuthority();
    expect(await ask([issue(impostor)])).toBe('certificate_untrusted');
    expect(await ask([issue(impostor), impostor])).toBe('certificate_untrusted');
    expect(await ask([makeAuthority({ authority: false, uris: [AGENT_ID], usages: [0] })])).toBe(
      'certificate_untrusted',
    );
  });

  it('holds by names too: an authority that has another one issued nothing, whatever its key', async () => {
    const keys = p256();
    const [one, other] = [makeAuthority({ keys }), makeAuthority({ keys, name: 'other' })];
    expect(await ask([issue(one)], { anchors: [other.entry] })).toBe('certificate_untrusted');
    expect(await ask([issue(one), one], { anchors: [other.entry] })).toBe('certificate_untrusted');
  });

  it('is looked for at each certificate once, however they are tangled', async () => {
    const keys = p256();
    const tangle = Array.from({ length: 5 }, () => makeAuthority({ keys, name: 'tangle' }));
    const verify = vi.spyOn(X509Certificate.prototype, 'verify');
    expect(await ask([issue(tangle[0] ?? root), ...tangle])).toBe('certificate_untrusted');
    expect(verify.mock.calls.length).toBeLessThanOrEqual(10);
  });

  it('never holds by SHA-1', async () => {
    expect(await ask([issue(root, { digest: 'sha1' })])).toBe('certificate_refused');
  });

  it('does not begin at a workload: it issues nobody', async () => {
    const svid = issue(root);
    expect(await ask([issue(svid, { name: 'below' }), svid])).toBe('certificate_untrusted');
    expect(await ask([svid], { anchors: [svid.entry] })).toBe('certificate_untrusted');
  });

  it('leads nowhere where the bundle has no certificate; and what is no bundle says nothing', async () => {
    const svid = issue(root);
    expect(await ask([svid], { anchors: [] })).toBe('certificate_untrusted');
    expect(await ask([svid], { anchors: [{ ...root.entry, use: 'jwt-svid', kid: 'k' }] })).toBe(
      'certificate_untrusted',
    );
    expect(await ask([svid], { anchors: [{ ...root.entry, use: 'wit-svid' }] })).toBe('certificate_untrusted');
    expect(await ask([svid], { anchors: [{ use: 'x509-svid', x5c: ['AAAA'] }, root.entry] })).toBe('accepted');
    expect(await ask([svid], { anchors: [{ use: 'x509-svid', x5c: [] }] })).toBe('keys_unavailable');
  });
});
