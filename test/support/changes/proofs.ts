import { generateKeyPairSync } from 'node:crypto';
import { makeKey } from '../../../src/identity/testing/keys.ts';
import { makeProof, type ProofChange } from '../../../src/identity/testing/proofs.ts';
import { ask } from '../ask.ts';
import { call, READ, refused, refuses, request, type Send } from '../refusals.ts';

const stranger = makeKey('stranger');
const taskPath = () => `/v1/tasks/${refused().task.id}`;

const proven = (change?: ProofChange): Send => call('GET', taskPath, {}, change);
export const rightProof = proven();

/** One right proof of possession, each time with one thing changed. */
export function refuseChangedProofs(): void {
  const claims = (members: object): Send => proven((draft) => void Object.assign(draft.claims, members));
  const header = (members: object): Send => proven((draft) => void Object.assign(draft.header, members));
  const jwk = (members: object): Send => proven(({ header: all }) => void Object.assign(Object(all['jwk']), members));
  const address = (write: (url: URL) => string): Send =>
    proven((draft) => void (draft.claims['htu'] = write(new URL(String(draft.claims['htu'])))));
  const ago = (seconds: number): Send =>
    proven((draft) => void (draft.claims['iat'] = Number(draft.claims['iat']) - seconds));

  refuses(401, 'proof_malformed', {
    padding: proven((draft) => void (draft.spell = (text) => `${text}=`)),
    'no signature': proven((draft) => void (draft.spell = (text) => text.replace(/[^.]*$/, ''))),
    '17 kB': claims({ x: 'x'.repeat(13_000) }),
    'a claim twice': proven(
      (draft) => void (draft.payloadText = `{"htm":"POST",${JSON.stringify(draft.claims).slice(1)}`),
    ),
    'a header twice': proven(
      (draft) => void (draft.headerText = `{"alg":"none",${JSON.stringify(draft.header).slice(1)}`),
    ),
    'two in one': proven((draft) => void (draft.spell = (text) => `${text}, ${text}`)),
    'two headers': async () => {
      const { house, key, token } = refused();
      const made = { method: 'GET', url: `${house.url}${taskPath()}`, token, now: new Date() };
      const proofs = [1, 2].map(() => makeProof(key ?? stranger, made));
      return await ask(house.url, 'GET', taskPath(), { token, headers: { dpop: proofs } });
    },
  });
  refuses(401, 'proof_type_wrong', {
    'the type of a token': header({ typ: 'JWT' }),
    'the type of a request': header({ typ: 'agent-task+jwt' }),
    'no type': header({ typ: undefined }),
    'a workload token instead': proven((draft) => void (draft.spell = () => refused().token)),
  });
  refuses(401, 'proof_algorithm_refused', {
    'no algorithm': header({ alg: 'none' }),
    'a shared secret': header({ alg: 'HS256' }),
    'an algorithm that is not listed': header({ alg: 'ES512' }),
  });
  refuses(401, 'proof_header_refused', {
    'a name of a key': header({ kid: 'caller' }),
    'a place of a key': header({ jku: 'https://evil.example' }),
    'something critical': header({ crit: ['b64'], b64: false }),
  });
  refuses(401, 'proof_key_refused', {
    'no key': header({ jwk: undefined }),
    'the private key': proven(
      ({ header: all }) => void (all['jwk'] = refused().key?.privateKey.export({ format: 'jwk' })),
    ),
    'a key that everybody has': header({ jwk: { kty: 'oct', k: 'c2VjcmV0' } }),
    'a key of another curve': header({ alg: 'ES384' }),
    'a point that is on no curve': jwk({ x: Buffer.alloc(32, 1).toString('base64url') }),
    'a weak key': header({
      ...{ alg: 'RS256', jwk: generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey.export({ format: 'jwk' }) },
    }),
  });
  refuses(401, 'proof_signature_invalid', {
    'another’s signature': proven((draft) => void (draft.key = stranger)),
    'another’s key': header({ jwk: { kty: 'EC', crv: 'P-256', x: stranger.jwk['x'], y: stranger.jwk['y'] } }),
  });
  refuses(401, 'proof_claims_invalid', {
    'no name': [claims({ jti: undefined }), '$.jti'],
    'a name without end': [claims({ jti: 'j'.repeat(201) }), '$.jti'],
    'no method': [claims({ htm: undefined }), '$.htm'],
    'no address': [claims({ htu: undefined }), '$.htu'],
    'no time': [claims({ iat: undefined }), '$.iat'],
    'a time in text': [claims({ iat: 'now' }), '$.iat'],
    'no token': [claims({ ath: undefined }), '$.ath'],
  });
  refuses(401, 'proof_method_wrong', {
    'another method': claims({ htm: 'POST' }),
    'in small letters': claims({ htm: 'get' }),
  });
  refuses(401, 'proof_address_wrong', {
    'another host': address(({ href }) => href.replace('127.0.0.1', 'evil.example')),
    'another name of the host': address(({ href }) => href.replace('127.0.0.1', 'localhost')),
    'another scheme': address(({ href }) => href.replace('http:', 'https:')),
    'another task': address(({ href }) => `${href.slice(0, -1)}${href.endsWith('0') ? '1' : '0'}`),
    'the path alone': address(({ pathname }) => pathname),
  });
  refuses(401, 'proof_time_wrong', { 'that is too old': ago(62), 'from the future': ago(-62) });
  refuses(401, 'proof_token_wrong', { 'another token': claims({ ath: 'A'.repeat(43) }) });
  refuses(401, 'proof_missing', {
    'no proof for a request that names a key': async () => {
      const { house, token, stated } = refused();
      return await ask(house.url, 'POST', '/v1/tasks', { token, body: { request: await house.sign(stated) } });
    },
  });
  refuses(404, 'not_found', {
    'another’s proof': proven((draft) => {
      draft.header['jwk'] = { kty: 'EC', crv: 'P-256', x: stranger.jwk['x'], y: stranger.jwk['y'] };
      draft.key = stranger;
    }),
    'no proof for a task that names a key': async () =>
      await ask(refused().house.url, 'POST', `${taskPath()}/grants`, {
        token: refused().token,
        body: { entitlement: READ },
      }),
  });
  refuses(401, 'request_key_missing', { 'no key': request(({ claims: all }) => delete all['cnf']) });
  refuses(401, 'request_key_wrong', {
    'another key': request(({ claims: all }) => void (all['cnf'] = { jkt: 'A'.repeat(43) })),
  });
}

const to =
  (change: (jwk: Record<string, unknown>) => object): Send =>
  async () => {
    const { kty, crv, x, y } = refused().key?.jwk ?? {};
    const body = { entitlement: READ, delivery: { jwk: change({ kty, crv, x, y }) } };
    return await call('POST', () => `${taskPath()}/grants`, { body })();
  };
export const rightDelivery = to((jwk) => jwk);

/** One right key to seal to, each time with one thing changed. */
export function refuseChangedDeliveries(): void {
  const jwk = (members: object): Send => to((all) => ({ ...all, ...members }));

  refuses(422, 'delivery_key_refused', {
    'the private key': to(() => refused().key?.privateKey.export({ format: 'jwk' }) ?? {}),
    'another curve': to(() => generateKeyPairSync('ec', { namedCurve: 'P-384' }).publicKey.export({ format: 'jwk' })),
    'a key for signing': to(() => generateKeyPairSync('ed25519').publicKey.export({ format: 'jwk' })),
    RSA: to(() => generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey.export({ format: 'jwk' })),
    'another use': jwk({ use: 'sig' }),
    'another algorithm': jwk({ alg: 'RSA-OAEP' }),
    'the algorithm without its wrapping': jwk({ alg: 'ECDH-ES' }),
    'a point that is on no curve': jwk({ y: Buffer.alloc(32, 1).toString('base64url') }),
    'a point of low order': to(() => ({ kty: 'OKP', crv: 'X25519', x: Buffer.alloc(32).toString('base64url') })),
    'nothing in it': to(() => ({})),
  });
  refuses(403, 'delivery_key_wrong', {
    'a key that the task does not name': to(() =>
      generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({ format: 'jwk' }),
    ),
  });
}
