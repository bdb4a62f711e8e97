import { generateKeyPairSync } from 'node:crypto';
import { calculateJwkThumbprint } from 'jose';
import { describe, expect, it } from 'vitest';
import { thumbprintOf } from './certificates/certificate.ts';
import { makeKey, signToken } from './testing/keys.ts';
import { makeProof } from './testing/proofs.ts';
import { ask, believe, jktOf, made, root } from './testing/shown.ts';
import { issue, makeAuthority, type TestCertificate } from './testing/svids.ts';
import { AUDIENCE, NOW, workloadClaims } from './testing/trust.ts';

describe('a proof of possession beside an X.509-SVID', () => {
  const call = { method: 'GET', url: `${AUDIENCE}/v1/tasks`, token: null, now: NOW };
  const key = makeKey('agent');

  it('counts instead of its own key, and lives on when that is renewed', async () => {
    const proofs = [makeProof(key, call)];
    const { kty, crv, x, y } = Object(key.jwk);
    const jkt = await calculateJwkThumbprint({ kty, crv, x, y });
    for (const svid of [issue(root), issue(root)])
      expect(await believe([svid], { proofs })).toMatchObject({ caller: { keyThumbprint: jkt }, proof: { jkt } });
  });

  it('is held to all that a proof is held to, and was made for no token', async () => {
    const elsewhere = makeProof(key, { ...call, method: 'POST' });
    expect(await ask([issue(root)], { proofs: [elsewhere] })).toBe('proof_method_wrong');
    const forToken = makeProof(key, { ...call, token: 'a.b.c' });
    expect(await ask([issue(root)], { proofs: [forToken] })).toBe('proof_claims_invalid');
    expect(await ask([], { proofs: [makeProof(key, call)] })).toBe('workload_token_missing');
  });
});

describe('a token beside a certificate', () => {
  const own = issue(root);
  const bound = (certificate: TestCertificate, scheme = 'Bearer') => {
    const cnf = { 'x5t#S256': thumbprintOf(certificate.x509) };
    return { authorization: `${scheme} ${signToken(made.workloadKey, { ...workloadClaims(), cnf })}` };
  };
  const bearer = { authorization: `Bearer ${signToken(made.workloadKey, workloadClaims())}` };

  it('that names it counts over its connection, and over no other', async () => {
    const { caller } = await believe([own], bound(own));
    expect(caller).toMatchObject({ workload: { source: 'idp' }, keyThumbprint: await jktOf(own) });
    expect(await ask([], bound(own))).toBe('certificate_missing');
    expect(await ask([issue(root)], bound(own))).toBe('certificate_wrong');
    // Nor where it only comes along.
    expect(await ask([issue(root), own], bound(own))).toBe('certificate_wrong');
  });

  it('that names one may have it of anybody: the token’s source vouches for it (RFC 8705 §2.2)', async () => {
    const selfSigned = makeAuthority({ authority: false });
    expect(await ask([selfSigned], bound(selfSigned))).toBe('accepted');
  });

  it('that names one is a bearer token by its scheme, and names nothing else', async () => {
    expect(await ask([own], bound(own, 'DPoP'))).toBe('workload_token_unbound');
    const cnf = { 'x5t#S256': thumbprintOf(own.x509), jkt: await jktOf(own) };
    const both = signToken(made.workloadKey, { ...workloadClaims(), cnf });
    expect(await ask([own], { authorization: `Bearer ${both}` })).toBe('key_binding_unsupported');
    const short = signToken(made.workloadKey, { ...workloadClaims(), cnf: { 'x5t#S256': 'AAAA' } });
    expect(await ask([own], { authorization: `Bearer ${short}` })).toBe('key_binding_unsupported');
  });

  it('that names none proves the certificate’s key all the same, unless a proof of another came', async () => {
    expect((await believe([own], bearer)).caller).toMatchObject({ keyThumbprint: await jktOf(own) });
    const token = bearer.authorization.replace('Bearer ', '');
    const key = makeKey('agent');
    const proof = makeProof(key, { method: 'GET', url: `${AUDIENCE}/v1/tasks`, token, now: NOW });
    const believed = await believe([own], { ...bearer, proofs: [proof] });
    expect(believed.caller).toMatchObject({ keyThumbprint: believed.proof?.jkt });
    expect(believed.proof?.jkt).not.toBe(await jktOf(own));
  });

  it('proves no key where that is weak', async () => {
    const weak = issue(root, { keys: generateKeyPairSync('rsa', { modulusLength: 1024 }) });
    expect((await believe([weak], bearer)).caller).toMatchObject({ keyThumbprint: null });
  });
});
