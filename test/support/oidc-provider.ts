import { generateKeyPairSync } from 'node:crypto';
import { createServer, type RequestListener } from 'node:http';
import Provider from 'oidc-provider';
import { z } from 'zod';

/** An OIDC provider that is not ours, on loopback, with one client that gets RFC 9068 access tokens for itself. */
export interface OidcProvider {
  readonly issuer: string;
  readonly jwksUrl: string;
  /** By client credentials. @param resource Its audience (RFC 8707); without one the token is opaque. */
  clientToken(resource?: string): Promise<string>;
  /** From now on it signs with another key, and publishes that one alone. */
  rotate(): void;
  stop(): Promise<void>;
}

const CLIENT = { client_id: 'recon', client_secret: 'a-secret-of-the-tests' };
const tokenAnswer = z.object({ access_token: z.string() });

export async function startOidcProvider(): Promise<OidcProvider> {
  let answer: RequestListener = (_request, response) => void response.writeHead(503).end();
  const server = createServer((request, response) => answer(request, response));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  const issuer = `http://127.0.0.1:${address.port}`;
  let keys = 0;
  const rotate = (): void => {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const jwk = { ...privateKey.export({ format: 'jwk' }), kid: `key-${++keys}`, alg: 'ES256', use: 'sig' };
    answer = new Provider(issuer, configuration(jwk)).callback();
  };
  rotate();
  return {
    issuer,
    jwksUrl: `${issuer}/jwks`,
    async clientToken(resource) {
      const { client_id: id, client_secret: secret } = CLIENT;
      const response = await fetch(`${issuer}/token`, {
        method: 'POST',
        headers: { authorization: `Basic ${Buffer.from(`${id}:${secret}`).toString('base64')}` },
        body: new URLSearchParams({
          grant_type: 'client_credentials',
          ...(resource === undefined ? {} : { resource }),
        }),
      });
      return tokenAnswer.parse(await response.json()).access_token;
    },
    rotate,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function configuration(jwk: object): Readonly<Record<string, unknown>> {
  const server = { scope: '', accessTokenFormat: 'jwt', accessTokenTTL: 600, jwt: { sign: { alg: 'ES256' } } };
  return {
    clients: [
      {
        ...CLIENT,
        grant_types: ['client_credentials'],
        redirect_uris: [],
        response_types: [],
        id_token_signed_response_alg: 'ES256',
      },
    ],
    jwks: { keys: [jwk] },
    cookies: { keys: ['a-key-of-the-tests'] },
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_context: unknown, resource: string) => ({ ...server, audience: resource }),
      },
    },
  };
}
