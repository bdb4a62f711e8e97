import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage } from 'node:http';
import { type AwsKeys, expirationOf } from './aws-keys.ts';

export interface AwsEndpoint {
  readonly url: string;
  /** What comes as it is in `Authorization`. */
  readonly token: string;
  close(): void;
}

interface Reply {
  readonly status: number;
  readonly body: Readonly<Record<string, string>>;
}

/**
 * Serves the newest keys on loopback to whoever has the token, in the way of AWS's "container credential provider": the SDK in the
 * child asks again when those it has are about to expire. No other user of the machine has the token, and no page in a browser.
 * @param newest Undefined once there are none that live.
 */
export async function serveAwsKeys(newest: () => AwsKeys | undefined): Promise<AwsEndpoint> {
  const path = `/${randomBytes(16).toString('base64url')}`;
  const token = randomBytes(32).toString('base64url');
  let host = '';
  const server = createServer((request, response) => {
    const { status, body } = answer(request, { host, path, token }, newest);
    // No connection is kept: none holds up the end.
    const headers = { 'content-type': 'application/json', 'cache-control': 'no-store', connection: 'close' };
    response.writeHead(status, headers).end(JSON.stringify(body));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('It listens on no port.');
  host = `127.0.0.1:${address.port}`;
  return {
    url: `http://${host}${path}`,
    token,
    close: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}

function answer(
  { headers, method, url }: IncomingMessage,
  own: { readonly host: string; readonly path: string; readonly token: string },
  newest: () => AwsKeys | undefined,
): Reply {
  // A page whose name was rebound to this address still sends its name.
  if (headers.host !== own.host) return refusal(421, 'WrongHost', 'It is asked for by its own address only.');
  if (url !== own.path) return refusal(404, 'NotFound', 'There is nothing here.');
  if (method !== 'GET') return refusal(405, 'MethodNotAllowed', 'It is asked for by GET only.');
  if (!isSame(headers.authorization ?? '', own.token)) return refusal(401, 'AccessDenied', 'The token is not the one.');
  const keys = newest();
  if (keys === undefined) return refusal(403, 'ExpiredToken', 'The credential has ended, and there is no other.');
  const body = {
    AccessKeyId: keys.accessKeyId,
    SecretAccessKey: keys.secretAccessKey,
    Token: keys.sessionToken,
    Expiration: expirationOf(keys),
  };
  return { status: 200, body };
}

/** In the form that the SDKs read. */
function refusal(status: number, code: string, message: string): Reply {
  return { status, body: { Code: code, Message: message } };
}

/** In a time that tells nothing of where they differ. */
function isSame(given: string, wanted: string): boolean {
  const digest = (text: string) => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(given), digest(wanted));
}
