import { createHash, randomBytes } from 'node:crypto';
import { z } from 'zod';
import type { OperatorSource } from '../catalog/types.ts';
import { MayflyError } from '../domain/errors.ts';
import { cookieText, LOGIN_COOKIE, readCookie, requireOwnOrigin, SESSION_COOKIE } from './cookies.ts';
import type { HttpDeps } from './deps.ts';
import { notesOf } from './notes.ts';
import type { Page, Visit } from './page.ts';
import { parseQuery } from './parse.ts';
import { noBody } from './route.ts';
import { writeText } from './write.ts';

/** For a person to sign in at the issuer. */
const LOGIN_SECONDS = 600;
const CALLBACK = '/login/callback';
/** Where a person arrives: it says as whom they are believed. */
const ARRIVAL = '/v1/whoami';

const loginQuery = z.strictObject({
  source: z.string().max(63).optional().meta({ description: 'Which of them; without it the first one.' }),
});

const login: Page = {
  method: 'get',
  path: '/login',
  name: 'signIn',
  tag: 'operating',
  summary: 'Sign in with a browser',
  description: 'OIDC authorization code flow with PKCE, at an issuer of operators that the catalog gives a `login`.',
  query: loginQuery,
  body: noBody,
  counted: true,
  answers: {
    302: { says: 'Go and sign in there.', headers: { Location: 'The issuer.', 'Set-Cookie': 'The attempt.' } },
  },
  refusals: ['invalid_request', 'not_found', 'not_ready', 'too_many_calls'],
  show: ({ deps, request, response }) => {
    const { source: wanted } = parseQuery(loginQuery, request);
    const source = operatorsOf(deps).find((one) => one.login !== undefined && (wanted ?? one.name) === one.name);
    if (source?.login === undefined) throw new MayflyError('not_found');
    const attempt = randomBytes(32).toString('base64url');
    const { clientId, scopes, authorizationEndpoint } = source.login;
    const url = new URL(authorizationEndpoint);
    const asked = {
      response_type: 'code',
      client_id: clientId,
      redirect_uri: `${deps.config.public_url}${CALLBACK}`,
      scope: scopes.join(' '),
      state: derived('state', attempt),
      nonce: derived('nonce', attempt),
      code_challenge: createHash('sha256').update(derived('verifier', attempt)).digest('base64url'),
      code_challenge_method: 'S256',
    };
    for (const [name, value] of Object.entries(asked)) url.searchParams.set(name, value);
    response.setHeader('Set-Cookie', cookieText(LOGIN_COOKIE, `${attempt}.${source.name}`, LOGIN_SECONDS));
    redirect(response, url.href);
  },
};

const callbackQuery = z.object({
  state: z.string().max(200).optional(),
  code: z.string().max(4_096).optional(),
  iss: z.string().max(2_000).optional(),
  error: z.string().max(200).optional(),
});

const callback: Page = {
  method: 'get',
  path: CALLBACK,
  name: 'finishSignIn',
  tag: 'operating',
  summary: 'Come back from the issuer',
  query: callbackQuery,
  body: noBody,
  counted: true,
  answers: { 302: { says: 'Signed in.', headers: { Location: 'Who you are.', 'Set-Cookie': 'The session.' } } },
  refusals: [
    'invalid_request',
    'login_failed',
    'operator_only',
    'keys_unavailable',
    'store_unavailable',
    'not_ready',
    'too_many_calls',
  ],
  show: async ({ deps, useCases, request, response }) => {
    const { state, code, iss, error } = parseQuery(callbackQuery, request);
    const [attempt = '', name = ''] = (readCookie(request, LOGIN_COOKIE) ?? '').split('.');
    // An attempt counts once, however it ends.
    response.setHeader('Set-Cookie', cookieText(LOGIN_COOKIE, '', 0));
    // Only the browser that began this has the attempt: nobody is signed in as somebody else by a link.
    if (attempt === '' || state !== derived('state', attempt))
      throw new MayflyError('login_failed', 'It was not begun in this browser, or too long ago.');
    if (error !== undefined || code === undefined) throw new MayflyError('login_failed', 'The issuer refused.');
    const issuer = operatorsOf(deps).find((one) => one.name === name)?.issuer;
    // RFC 9207: an answer of another issuer is not for this attempt.
    if (iss !== undefined && iss !== issuer) throw new MayflyError('login_failed');
    const { secret, expiresAt } = await useCases.beginSession(
      deps.broker,
      name,
      {
        code,
        verifier: derived('verifier', attempt),
        nonce: derived('nonce', attempt),
        redirectUri: `${deps.config.public_url}${CALLBACK}`,
      },
      contextOf(response),
    );
    // Nobody has any use of the one before.
    const before = readCookie(request, SESSION_COOKIE);
    if (before !== undefined) await useCases.endSession(deps.broker, before, contextOf(response));
    const seconds = (expiresAt.getTime() - Date.now()) / 1000;
    response.setHeader('Set-Cookie', [
      cookieText(LOGIN_COOKIE, '', 0),
      cookieText(SESSION_COOKIE, secret.reveal(), seconds),
    ]);
    redirect(response, ARRIVAL);
  },
};

const logout: Page = {
  method: 'post',
  path: '/logout',
  name: 'signOut',
  tag: 'operating',
  summary: 'End the session of this browser',
  body: noBody,
  answers: { 204: { says: 'There is no session any more.', headers: { 'Set-Cookie': 'Takes the session away.' } } },
  refusals: ['cross_site_refused', 'store_unavailable'],
  show: async ({ deps, useCases, request, response }) => {
    requireOwnOrigin(request, deps.config.public_url);
    const secret = readCookie(request, SESSION_COOKIE);
    if (secret !== undefined) await useCases.endSession(deps.broker, secret, contextOf(response));
    response.setHeader('Set-Cookie', cookieText(SESSION_COOKIE, '', 0));
    response.writeHead(204).end();
  },
};

export const loginPages: readonly Page[] = [login, callback, logout];

function operatorsOf({ broker }: HttpDeps): readonly OperatorSource[] {
  return broker.catalog.current().catalog.trust.operators;
}

/** What the browser keeps is one secret; all that must be told apart follows from it, and any replica can finish what another began. */
function derived(what: 'state' | 'nonce' | 'verifier', attempt: string): string {
  return createHash('sha256').update(`${what} ${attempt}`).digest('base64url');
}

function contextOf(response: Visit['response']) {
  return { requestId: notesOf(response).request_id, gone: new AbortController().signal };
}

function redirect(response: Visit['response'], to: string): void {
  response.statusCode = 302;
  response.setHeader('Location', to);
  writeText(response, 302, 'text/plain; charset=utf-8', '');
}
