import { request } from 'node:http';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type AwsEndpoint, serveAwsKeys } from './aws-endpoint.ts';
import type { AwsKeys } from './aws-keys.ts';

const keys: AwsKeys = {
  accessKeyId: 'ASIAFIRST',
  secretAccessKey: 'secret-one',
  sessionToken: 'token-one',
  region: 'eu-central-1',
  endsAt: Date.parse('2030-01-01T00:00:00.999Z'),
};
const document = {
  AccessKeyId: 'ASIAFIRST',
  SecretAccessKey: 'secret-one',
  Token: 'token-one',
  Expiration: '2030-01-01T00:00:00Z',
};

let newest: AwsKeys | undefined;
let endpoint: AwsEndpoint;
beforeEach(async () => {
  newest = keys;
  endpoint = await serveAwsKeys(() => newest);
});
afterEach(() => endpoint.close());

interface Answered {
  readonly status: number | undefined;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly body: unknown;
}

interface Asked {
  readonly method?: string;
  readonly path?: string;
  readonly headers?: Record<string, string>;
  readonly token?: string | undefined;
}

/** As an SDK asks, but for what is said. */
function ask(asked: Asked = {}): Promise<Answered> {
  const url = new URL(endpoint.url);
  const { method = 'GET', path = url.pathname, headers = {} } = asked;
  const token = 'token' in asked ? asked.token : endpoint.token;
  const authorization = token === undefined ? {} : { authorization: token };
  return new Promise((resolve, reject) => {
    const options = { host: url.hostname, port: url.port, method, path, headers: { ...authorization, ...headers } };
    request(options, (response) => {
      let text = '';
      response
        .setEncoding('utf8')
        .on('data', (part: string) => {
          text += part;
        })
        .on('end', () =>
          resolve({
            status: response.statusCode,
            headers: response.headers,
            body: text === '' ? undefined : JSON.parse(text),
          }),
        );
    })
      .on('error', reject)
      .end();
  });
}

test('the newest keys come as AWS’s container provider reads them, and are kept by nobody on the way', async () => {
  const { status, headers, body } = await ask();
  expect({ status, body }).toEqual({ status: 200, body: document });
  expect(headers).toMatchObject({ 'content-type': 'application/json', 'cache-control': 'no-store' });
  expect(Object.keys(headers).filter((name) => name.startsWith('access-control'))).toEqual([]);
  newest = { ...keys, accessKeyId: 'ASIASECOND' };
  expect(await ask()).toMatchObject({ status: 200, body: { AccessKeyId: 'ASIASECOND' } });
});

test.each<[string, Asked, number]>([
  ['another token', { token: 'x'.repeat(43) }, 401],
  ['a token that begins alike', { token: 'x' }, 401],
  ['no token', { token: undefined }, 401],
  ['another path', { path: '/' }, 404],
  ['a query', { path: '/?x' }, 404],
  ['another name for this address', { headers: { host: 'rebound.example' } }, 421],
  ['localhost, which a page may have', { headers: { host: 'localhost' } }, 421],
  ['POST', { method: 'POST' }, 405],
  ['what a browser asks first', { method: 'OPTIONS', headers: { origin: 'https://page.example' } }, 405],
  ['HEAD', { method: 'HEAD' }, 405],
])('%s is refused, with nothing of the keys', async (_, asked, status) => {
  const answered = await ask(asked);
  expect(answered.status).toBe(status);
  expect(JSON.stringify(answered)).not.toMatch(/ASIAFIRST|secret-one|token-one/);
});

test('no keys are said to have ended, in the form of the SDKs’ errors', async () => {
  newest = undefined;
  const ended = { Code: 'ExpiredToken', Message: 'The credential has ended, and there is no other.' };
  expect(await ask()).toMatchObject({ status: 403, body: ended });
});

test('each has a port, a path and a token of its own', async () => {
  const other = await serveAwsKeys(() => keys);
  other.close();
  const [mine, theirs] = [new URL(endpoint.url), new URL(other.url)];
  expect(mine.hostname).toBe('127.0.0.1');
  expect(theirs.port).not.toBe(mine.port);
  expect(theirs.pathname).not.toBe(mine.pathname);
  expect(other.token).not.toBe(endpoint.token);
  expect(mine.pathname.length).toBeGreaterThan(20);
  expect(endpoint.token.length).toBeGreaterThan(40);
});

test('closed, it answers nobody', async () => {
  endpoint.close();
  await expect(ask()).rejects.toThrow('ECONNREFUSED');
});
