import { createHmac, generateKeyPairSync } from 'node:crypto';
import { calculateJwkThumbprint, exportJWK, generateKeyPair, SignJWT } from 'jose';
import { describe, expect, it } from 'vitest';
import { type ProvenCall, PROOF_ALGORITHMS, verifyProof } from './dpop.ts';
import { parts, strayBit } from './testing/drafts.ts';
import { makeKey, signToken } from './testing/keys.ts';
import { makeProof, type ProofChange, type ProofDraft } from './testing/proofs.ts';
import { NOW, refusal, SECONDS } from './testing/trust.ts';

const key = makeKey('agent');
const other = makeKey('other');
const call: ProvenCall = { method: 'POST', url: 'https://broker.example/v1/tasks', token: 'a.b.c', now: NOW };

const asked = (change: ProofChange, at: Partial<ProvenCall> = {}): Promise<string> =>
  refusal(verifyProof([makeProof(key, call, change)], { ...call, ...at }));
const header =
  (members: object): ProofChange =>
  (draft) =>
    void Object.assign(draft.header, members);
const claims =
  (members: object): ProofChange =>
  (draft) =>
    void Object.assign(draft.claims, members);
const jwk = (members: object): ProofChange => header({ jwk: { ...publicJwk(), ...members } });
const publicJwk = (): object => {
  const { kty, crv, x, y } = key.jwk;
  return { kty, crv, x, y };
};
/** A key of another kind in the header, and signed by it. */
const by =
  (alg: string, made: Parameters<typeof makeKey>[1] = 'ES256'): ProofChange =>
  (draft: ProofDraft) => {
    draft.key = makeKey('k', made);
    const { kid: _, alg: _alg, use: _use, ...bare } = draft.key.jwk;
    draft.header = { ...draft.header, alg, jwk: bare };
  };
const twice = (json: string, member: string): string => json.replace('{', `{${member},`);
/** Ed25519's neutral point as key and as R, and S = 0: a signature of every message, which OpenSSL takes. */
const anybodys: ProofChange = (draft) => {
  const neutral = Buffer.alloc(32);
  neutral[0] = 1;
  draft.header = {
    typ: 'dpop+jwt',
    alg: 'EdDSA',
    jwk: { kty: 'OKP', crv: 'Ed25519', x: neutral.toString('base64url') },
  };
  const signature = Buffer.concat([neutral, Buffer.alloc(32)]).toString('base64url');
  draft.spell = (proof) => `${proof.slice(0, proof.lastIndexOf('.'))}.${signature}`;
};
const weak = generateKeyPairSync('rsa', { modulusLength: 1024 });

describe('a proof of possession', () => {
  it('tells the thumbprint of its key, and its own name', async () => {
    const proof = makeProof(key, call, claims({ jti: 'proof-1' }));
    const jkt = await calculateJwkThumbprint(publicJwk());
    expect(await verifyProof([proof], call)).toStrictEqual({ jkt, jti: 'proof-1', nonce: null });
  });

  it.each([
    ['as it stands there', 'n-1', 'n-1'],
    ['none where it is no text', 7, null],
    ['none where it is a list', ['n-1'], null],
  ])('tells its nonce: %s', async (_what, nonce, told) => {
    expect(await verifyProof([makeProof(key, call, claims({ nonce }))], call)).toMatchObject({ nonce: told });
  });

  it.each(PROOF_ALGORITHMS)('may be signed with %s, and its thumbprint is that of RFC 7638', async (alg) => {
    const { privateKey, publicKey } = await generateKeyPair(alg);
    const bare = await exportJWK(publicKey);
    const { claims: all } = draftOf();
    const proof = await new SignJWT(all).setProtectedHeader({ typ: 'dpop+jwt', alg, jwk: bare }).sign(privateKey);
    expect(await verifyProof([proof], call)).toMatchObject({ jkt: await calculateJwkThumbprint(bare) });
  });

  it('is the one of RFC 9449 §7.1', async () => {
    const proof =
      'eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA';
    const there: ProvenCall = {
      method: 'GET',
      url: 'https://resource.example.org/protectedresource',
      token: 'Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU',
      now: new Date(1_562_262_618_000),
    };
    expect(await verifyProof([proof], there)).toStrictEqual({
      jkt: '0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I',
      jti: 'e1j3V_bKic8-LAEB',
      nonce: null,
    });
  });

  it('is needed, and alone', async () => {
    const proof = makeProof(key, call);
    expect(await refusal(verifyProof([], call))).toBe('proof_missing');
    expect(await refusal(verifyProof([proof, proof], call))).toBe('proof_malformed');
    expect(await refusal(verifyProof([`${proof}, ${proof}`], call))).toBe('proof_malformed');
    expect(await refusal(verifyProof([''], call))).toBe('proof_malformed');
  });

  it.each<[string, string, ProofChange]>([
    ['proof_malformed', 'padding', (d) => void (d.spell = (text) => `${text}=`)],
    ['proof_malformed', 'stray bits', (d) => void (d.spell = (t) => parts(t, (h, b, s) => `${h}.${b}.${strayBit(s)}`))],
    ['proof_malformed', 'no signature', (d) => void (d.spell = (text) => text.replace(/[^.]*$/, ''))],
    ['proof_malformed', '17 kB', claims({ more: 'x'.repeat(17_000) })],
    [
      'proof_malformed',
      'a header member twice',
      (d) => void (d.headerText = twice(JSON.stringify(d.header), '"typ":"JWT"')),
    ],
    ['proof_malformed', 'a claim twice', (d) => void (d.payloadText = twice(JSON.stringify(d.claims), '"htm":"GET"'))],
    ['proof_malformed', 'a payload that is a list', (d) => void (d.payloadText = '[]')],
    ['proof_type_wrong', 'no typ', header({ typ: undefined })],
    ['proof_type_wrong', 'the typ of a token', header({ typ: 'JWT' })],
    ['proof_type_wrong', 'the typ in capitals', header({ typ: 'DPOP+JWT' })],
    ['proof_type_wrong', 'the typ with its tree', header({ typ: 'application/dpop+jwt' })],
    ['proof_algorithm_refused', 'alg none', header({ alg: 'none' })],
    ['proof_algorithm_refused', 'no alg', header({ alg: undefined })],
    ['proof_algorithm_refused', 'an algorithm that is not listed', header({ alg: 'ES512' })],
    [
      'proof_algorithm_refused',
      'a shared secret',
      (d) => {
        d.header['alg'] = 'HS256';
        d.spell = (text) =>
          parts(text, (h, b) => `${h}.${b}.${createHmac('sha256', 'secret').update(`${h}.${b}`).digest('base64url')}`);
      },
    ],
    ['proof_header_refused', 'kid', header({ kid: 'agent' })],
    ['proof_header_refused', 'jku', header({ jku: 'https://evil.example/jwks' })],
    ['proof_header_refused', 'x5c', header({ x5c: [] })],
    ['proof_header_refused', 'crit', header({ crit: ['b64'], b64: false })],
    ['proof_key_refused', 'no jwk', header({ jwk: undefined })],
    ['proof_key_refused', 'jwk as a text', header({ jwk: JSON.stringify(publicJwk()) })],
    ['proof_key_refused', 'the private key', jwk(key.privateKey.export({ format: 'jwk' }))],
    ['proof_key_refused', 'a symmetric key', header({ jwk: { kty: 'oct', k: 'c2VjcmV0' } })],
    ['proof_key_refused', 'a key for encryption', jwk({ use: 'enc' })],
    ['proof_key_refused', 'another curve than alg', by('ES256', 'ES384')],
    ['proof_key_refused', 'another kind than alg', by('RS256', 'ES256')],
    ['proof_key_refused', 'a point that is on no curve', jwk({ x: Buffer.alloc(32, 1).toString('base64url') })],
    ['proof_key_refused', 'a key that anybody can sign for', anybodys],
    ['proof_key_refused', 'RSA of 1024 bits', header({ alg: 'RS256', jwk: weak.publicKey.export({ format: 'jwk' }) })],
    ['proof_key_refused', 'x of another spelling', jwk({ x: `${String(key.jwk['x'])}=` })],
    ['proof_signature_invalid', 'another key’s signature', (d) => void (d.key = other)],
    ['proof_signature_invalid', 'another payload', (d) => void (d.spell = swapPayload)],
    ['proof_method_wrong', 'another method', claims({ htm: 'GET' })],
    ['proof_method_wrong', 'the method in small letters', claims({ htm: 'post' })],
    ['proof_address_wrong', 'another host', claims({ htu: 'https://evil.example/v1/tasks' })],
    ['proof_address_wrong', 'another scheme', claims({ htu: 'http://broker.example/v1/tasks' })],
    ['proof_address_wrong', 'another port', claims({ htu: 'https://broker.example:8443/v1/tasks' })],
    ['proof_address_wrong', 'another path', claims({ htu: 'https://broker.example/v1/grants' })],
    ['proof_address_wrong', 'a path in capitals', claims({ htu: 'https://broker.example/V1/tasks' })],
    ['proof_address_wrong', 'a slash too many', claims({ htu: 'https://broker.example/v1/tasks/' })],
    ['proof_address_wrong', 'a user', claims({ htu: 'https://a@broker.example/v1/tasks' })],
    ['proof_address_wrong', 'the path alone', claims({ htu: '/v1/tasks' })],
    ['proof_address_wrong', 'white space before it', claims({ htu: ' https://broker.example/v1/tasks' })],
    ['proof_address_wrong', 'a line break in it', claims({ htu: 'https://broker.example/v1/ta\nsks' })],
    ['proof_address_wrong', 'backslashes', claims({ htu: 'https:\\\\broker.example\\v1\\tasks' })],
    ['proof_time_wrong', '61 seconds old', claims({ iat: SECONDS - 61 })],
    ['proof_time_wrong', '61 seconds ahead', claims({ iat: SECONDS + 61 })],
    ['proof_token_wrong', 'the hash of another token', claims({ ath: 'fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo' })],
    ['proof_token_wrong', 'the token itself', claims({ ath: call.token })],
    ['proof_claims_invalid', 'no ath', claims({ ath: undefined })],
    ['proof_claims_invalid', 'no jti', claims({ jti: undefined })],
    ['proof_claims_invalid', 'an empty jti', claims({ jti: '' })],
    ['proof_claims_invalid', 'a jti of 201 characters', claims({ jti: 'x'.repeat(201) })],
    ['proof_claims_invalid', 'a jti with a line break', claims({ jti: 'a\nb' })],
    ['proof_claims_invalid', 'jti as a number', claims({ jti: 7 })],
    ['proof_claims_invalid', 'no iat', claims({ iat: undefined })],
    ['proof_claims_invalid', 'iat as a text', claims({ iat: String(SECONDS) })],
    ['proof_claims_invalid', 'no htm', claims({ htm: undefined })],
    ['proof_claims_invalid', 'two htu', claims({ htu: [call.url] })],
  ])('is refused as %s with %s', async (code, _what, change) => {
    expect(await asked(change)).toBe(code);
  });

  it.each<[string, ProofChange]>([
    ['60 seconds old', claims({ iat: SECONDS - 60 })],
    ['60 seconds ahead', claims({ iat: SECONDS + 60 })],
    ['with fractions of a second', claims({ iat: SECONDS + 0.5 })],
    ['with a jti of 200 characters', claims({ jti: 'x'.repeat(200) })],
    ['with claims of its own', claims({ nbf: SECONDS, more: {} })],
    ['with an address in capitals', claims({ htu: 'HTTPS://BROKER.example/v1/tasks' })],
    ['with the port that goes without saying', claims({ htu: 'https://broker.example:443/v1/tasks' })],
    ['with a query and a fragment', claims({ htu: 'https://broker.example/v1/tasks?wait=3#x' })],
    ['with steps in its path', claims({ htu: 'https://broker.example/v1/x/../tasks' })],
  ])('is taken %s', async (_what, change) => {
    expect(await asked(change)).toBe('accepted');
  });

  it('is never taken where our own address can not be read', async () => {
    expect(await asked(claims({ htu: '/{' }), { url: '/{' })).toBe('proof_address_wrong');
  });

  it('is no workload token, nor the reverse', async () => {
    expect(await refusal(verifyProof([signToken(key, {}, { typ: 'at+jwt' })], call))).toBe('proof_type_wrong');
  });
});

function draftOf(): ProofDraft {
  let seen: ProofDraft | undefined;
  makeProof(key, call, (draft) => void (seen = draft));
  if (seen === undefined) throw new Error('no draft');
  return seen;
}

function swapPayload(proof: string): string {
  return parts(proof, (h, b, s) => {
    const payload = Buffer.from(b, 'base64url').toString().replace('"htm":"POST"', '"htm":"POST","x":1');
    return `${h}.${Buffer.from(payload).toString('base64url')}.${s}`;
  });
}
