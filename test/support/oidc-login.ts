import { generateKeyPairSync } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { createServer, type RequestListener } from 'node:http';
import { join } from 'node:path';
import Provider from 'oidc-provider';
import type { House } from './house.ts';

/** An OIDC provider that is not ours, on loopback, at which people sign in with a browser. */
export interface LoginProvider {
  readonly issuer: string;
  /** `operators` of a `trust.yaml`, as flow mapping. */
  readonly source: (roles: string, secretFile?: string) => string;
  stop(): Promise<void>;
}

export const LOGIN_CLIENT = { client_id: 'mayfly', client_secret: 'a secret/of:the+tests' };

/** The house believes the provider's accounts, by the groups that it says. */
export async function applyLogin(house: House, { source }: LoginProvider, roles: string): Promise<void> {
  const secrets = join(house.secretsDir, '_sources', 'people');
  mkdirSync(secrets, { recursive: true });
  writeFileSync(join(secrets, 'client'), LOGIN_CLIENT.client_secret, { mode: 0o600 });
  await house.broker.apply({
    ...house.files,
    'trust.yaml': `${house.files['trust.yaml'] ?? ''}  - ${source(roles, 'file:client')}\n`,
  });
}

/** @param redirectUri Of the broker. @param groupsOf What the ID token of an account says in `groups`. */
export async function startLoginProvider(
  redirectUri: string,
  groupsOf: (account: string) => readonly string[],
): Promise<LoginProvider> {
  let answer: RequestListener = (_request, response) => void response.writeHead(503).end();
  const server = createServer((request, response) => answer(request, response));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  server.unref();
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  const issuer = `http://127.0.0.1:${address.port}`;
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const jwk = { ...privateKey.export({ format: 'jwk' }), kid: 'key-1', alg: 'ES256', use: 'sig' };
  answer = new Provider(issuer, {
    clients: [
      {
        ...LOGIN_CLIENT,
        grant_types: ['authorization_code'],
        response_types: ['code'],
        redirect_uris: [redirectUri],
        id_token_signed_response_alg: 'ES256',
      },
    ],
    jwks: { keys: [jwk] },
    cookies: { keys: ['a-key-of-the-tests'] },
    pkce: { required: () => true },
    claims: { openid: ['sub', 'groups'] },
    // Else an ID token that comes with an access token has no claims but `sub`.
    conformIdTokenClaims: false,
    findAccount: (_context: unknown, id: string) => ({
      accountId: id,
      claims: () => ({ sub: id, groups: groupsOf(id) }),
    }),
    features: { devInteractions: { enabled: true } },
  }).callback();
  return {
    issuer,
    source: (roles, secretFile) =>
      `{ name: people, dev: true, issuer: "${issuer}", jwks: { url: "${issuer}/jwks" }, algorithms: [ES256], claim: groups, roles: ${roles},
      login: { client_id: ${LOGIN_CLIENT.client_id}, ${secretFile === undefined ? '' : `client_secret: "${secretFile}", `}authorization_endpoint: "${issuer}/auth", token_endpoint: "${issuer}/token" } }`,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** As much of a browser as signing in takes: cookies by host, and redirects one at a time. */
export class Browser {
  readonly #jars = new Map<string, Map<string, string>>();

  cookies(url: string): Map<string, string> {
    const { host } = new URL(url);
    const jar = this.#jars.get(host) ?? new Map<string, string>();
    this.#jars.set(host, jar);
    return jar;
  }

  async send(url: string, init: RequestInit = {}): Promise<Response> {
    const jar = this.cookies(url);
    const cookie = [...jar].map(([name, value]) => `${name}=${value}`).join('; ');
    const headers = { ...Object(init.headers), ...(cookie === '' ? {} : { cookie }) };
    const response = await fetch(url, { ...init, headers, redirect: 'manual' });
    for (const line of response.headers.getSetCookie()) {
      const [, name = '', value = ''] = /^([^=]+)=([^;]*)/.exec(line) ?? [];
      const gone = /max-age=0(;|$)/i.test(line) || /expires=Thu, 01 Jan 1970/i.test(line);
      if (gone) jar.delete(name);
      else jar.set(name, value);
    }
    return response;
  }

  /** Follows redirects, and signs in at the provider's own pages, until `until` is to be visited. Answers that address. */
  async signIn(start: string, account: string, until: string): Promise<string> {
    let response = await this.send(start);
    let at = start;
    for (let step = 0; step < 20; step++) {
      const location = response.headers.get('location');
      if (location !== null) {
        at = new URL(location, at).href;
        if (at.startsWith(until)) return at;
        response = await this.send(at);
        continue;
      }
      const page = await response.text();
      const [, prompt] = /name="prompt" value="(\w+)"/.exec(page) ?? [];
      if (prompt === undefined) throw new Error(`${response.status} at ${at}: ${page.slice(0, 500)}`);
      const body = new URLSearchParams({ prompt, ...(prompt === 'login' ? { login: account, password: 'x' } : {}) });
      response = await this.send(at, { method: 'POST', body });
    }
    throw new Error('it never came back');
  }
}
