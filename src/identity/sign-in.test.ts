import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { SignJWT } from 'jose';
import { describe, expect, test } from 'vitest';
import type { OperatorSource } from '../catalog/types.ts';
import { MayflyError } from '../domain/errors.ts';
import { Secret } from '../domain/secret.ts';
import { createKeySets } from './key-sets.ts';
import { signIn } from './sign-in.ts';

const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const stranger = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
const NOW = new Date('2026-11-23T12:00:00Z');
const at = NOW.getTime() / 1000;
const code = {
  code: 'the-code',
  verifier: 'the-verifier',
  nonce: 'the-nonce',
  redirectUri: 'https://broker.example/login/callback',
};
const source: OperatorSource = {
  name: 'people',
  dev: false,
  issuer: 'https://idp.example',
  jwks: { inline: { keys: [{ ...publicKey.export({ format: 'jwk' }), kid: 'one' }] } },
  algorithms: ['ES256'],
  claim: 'groups',
  roles: { sre: ['operator'] },
  login: {
    clientId: 'mayfly',
    clientSecret: 'file:client',
    authorizationEndpoint: 'https://idp.example/auth',
    tokenEndpoint: 'https://idp.example/token',
    scopes: ['openid'],
  },
};
const good = {
  iss: 'https://idp.example',
  aud: 'mayfly',
  sub: 'ana',
  groups: ['sre'],
  nonce: 'the-nonce',
  iat: at,
  exp: at + 300,
};

async function idToken(claims: object = {}, header: object = {}, key: KeyObject = privateKey): Promise<string> {
  return await new SignJWT({ ...good, ...claims })
    .setProtectedHeader({ alg: 'ES256', kid: 'one', ...header })
    .sign(key);
}

async function signingIn(
  answer: () => Response | Promise<Response>,
  over: Partial<OperatorSource> = {},
  sent: Request[] = [],
) {
  const fetch: typeof globalThis.fetch = async (url, init) => {
    sent.push(new Request(url, init));
    return await answer();
  };
  const keySets = createKeySets({ fetch, clock: () => 0, log: () => {}, fetchTimeoutMs: 1_000 });
  const secret = () => new Secret('s3cret:/+ ');
  const options = { fetch, keySets, secret, timeoutMs: 1_000, closing: new AbortController().signal };
  return await signIn({ ...source, ...over }, code, NOW, options);
}

const signedInBy = async (...asked: Parameters<typeof signingIn>) =>
  await signingIn(...asked).catch((error: unknown) => {
    if (!(error instanceof MayflyError)) throw error;
    return error.code;
  });

const answered = (body: unknown, status = 200) => new Response(JSON.stringify(body), { status });

test('a code becomes who signed in, with the claims that say which roles and no others', async () => {
  const sent: Request[] = [];
  const token = await idToken({ email: 'ana@example.com' });
  expect(await signedInBy(() => answered({ id_token: token, access_token: 'opaque' }), {}, sent)).toEqual({
    subject: 'ana',
    claims: { groups: ['sre'] },
  });
  const [request] = sent;
  expect([request?.url, request?.method, request?.redirect]).toEqual(['https://idp.example/token', 'POST', 'manual']);
  expect(request?.headers.get('authorization')).toBe(
    `Basic ${Buffer.from('mayfly:s3cret%3A%2F%2B%20').toString('base64')}`,
  );
  expect(Object.fromEntries(new URLSearchParams(await request?.text()))).toEqual({
    grant_type: 'authorization_code',
    code: 'the-code',
    redirect_uri: code.redirectUri,
    code_verifier: 'the-verifier',
  });
});

test('a client without a secret names itself', async () => {
  const sent: Request[] = [];
  const token = await idToken();
  const { clientSecret: _, ...login } = source.login ?? {
    clientId: '',
    authorizationEndpoint: '',
    tokenEndpoint: '',
    scopes: [],
  };
  await signedInBy(() => answered({ id_token: token }), { login }, sent);
  expect(new URLSearchParams(await sent[0]?.text()).get('client_id')).toBe('mayfly');
  expect(sent[0]?.headers.has('authorization')).toBe(false);
});

describe('nobody is signed in by an ID token', () => {
  test.each([
    ['of another attempt', () => idToken({ nonce: 'another' })],
    ['without a nonce', () => idToken({ nonce: undefined })],
    ['for another client', () => idToken({ aud: 'another' })],
    ['for two clients', () => idToken({ aud: ['mayfly', 'another'] })],
    ['given to another client', () => idToken({ azp: 'another' })],
    ['for this broker as an API', () => idToken({ aud: 'https://broker.example' })],
    ['of another issuer', () => idToken({ iss: 'https://else.example' })],
    ['signed by another', () => idToken({}, {}, stranger)],
    ['that points to a key', () => idToken({}, { jku: 'https://else.example' })],
    ['that is a task request', () => idToken({}, { typ: 'agent-task+jwt' })],
    ['that is an access token', () => idToken({}, { typ: 'at+jwt' })],
    ['that has expired', () => idToken({ exp: at - 6 })],
    ['from the future', () => idToken({ iat: at + 31 })],
    ['without an end', () => idToken({ exp: undefined })],
    ['that is none', async () => 'x'],
  ])('%s', async (_what, token) => {
    const text = await token();
    expect(await signedInBy(() => answered({ id_token: text }))).toBe('login_failed');
  });

  test('that gives no role: who that is, is known', async () => {
    const token = await idToken({ groups: ['staff'] });
    expect(await signedInBy(() => answered({ id_token: token }))).toBe('operator_only');
  });
});

describe('nobody is signed in when the issuer', () => {
  test.each([
    ['refuses the code', () => answered({ error: 'invalid_grant' }, 400)],
    ['sends elsewhere', () => new Response(null, { status: 302, headers: { location: 'https://else.example' } })],
    ['gives no ID token', () => answered({ access_token: 'opaque' })],
    ['speaks no JSON', () => new Response('<html>')],
    ['says more than anybody reads', () => answered({ id_token: 'x', padding: 'x'.repeat(100_000) })],
    ['does not answer', () => Promise.reject(new Error('ECONNREFUSED'))],
  ])('%s', async (_what, answer) => {
    expect(await signedInBy(answer)).toBe('login_failed');
  });

  test('answers with a token that is no JSON; and no error, which may be logged, quotes it', async () => {
    const refused: unknown = await signingIn(() => new Response('canary-token')).catch((error: unknown) => error);
    const told: string[] = [];
    for (let error = refused; error instanceof Error; error = error.cause) told.push(String(error.stack));
    expect(told.length).toBeGreaterThan(1);
    expect(told.join()).not.toContain('canary');
  });

  test('is reached in the clear, or has no login', async () => {
    const token = await idToken();
    const login = {
      ...(source.login ?? { clientId: '', authorizationEndpoint: '', scopes: [] }),
      tokenEndpoint: 'http://idp.example/token',
    };
    expect(await signedInBy(() => answered({ id_token: token }), { login })).toBe('login_failed');
    expect(await signedInBy(() => answered({ id_token: token }), { login: undefined })).toBe('login_failed');
  });
});
