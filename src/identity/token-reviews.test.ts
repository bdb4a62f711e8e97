import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import type { IncomingHttpHeaders, RequestListener } from 'node:http';
import { createServer, type Server } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { makeCertificate, type TestCertificate } from '../../test/support/certificates.ts';
import { MayflyError } from '../domain/errors.ts';
import { Secret } from '../domain/secret.ts';
import type { IdentityEvent } from './index.ts';
import { times, trusting } from './testing/sources.ts';
import { AUDIENCE } from './testing/trust.ts';
import { TOKEN_CACHE_MS } from './token-cache.ts';

/** A cluster's API server with a certificate authority of its own, and another authority that is not it. */
let folders: readonly string[];
let certificate: TestCertificate;
let foreignCa: string;
let server: Server;
let url: string;
const asked: { readonly path: string; readonly headers: IncomingHttpHeaders; readonly body: unknown }[] = [];
let answer: RequestListener;

beforeAll(async () => {
  const here = mkdtempSync(join(tmpdir(), 'mayfly-review-'));
  const elsewhere = mkdtempSync(join(tmpdir(), 'mayfly-review-'));
  folders = [here, elsewhere];
  certificate = makeCertificate(here, ['127.0.0.1']);
  foreignCa = makeCertificate(elsewhere, ['127.0.0.1']).caPem;
  const pair = { cert: readFileSync(certificate.certFile), key: readFileSync(certificate.keyFile) };
  server = createServer(pair, (request, response) => {
    void text(request).then((body) => {
      asked.push({ path: `${request.method} ${request.url}`, headers: request.headers, body: JSON.parse(body) });
      answer(request, response);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  url = `https://127.0.0.1:${address.port}`;
});
afterAll(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

const SUBJECT = 'system:serviceaccount:finance:recon';
const claims = {
  ...times,
  iss: 'https://cluster.example',
  aud: [AUDIENCE],
  sub: SUBJECT,
  'kubernetes.io': {
    namespace: 'finance',
    pod: { name: 'recon-1', uid: 'pod-uid' },
    serviceaccount: { name: 'recon', uid: 'account-uid' },
  },
};

const review = (status: object) =>
  JSON.stringify({ apiVersion: 'authentication.k8s.io/v1', kind: 'TokenReview', status });
const good = { authenticated: true, audiences: [AUDIENCE], user: { username: SUBJECT, uid: 'account-uid' } };
const says = (status: object, code = 201): RequestListener => {
  return (_request, response) => void response.writeHead(code).end(review(status));
};

beforeEach(() => {
  asked.length = 0;
  answer = says(good);
});

function cluster(
  options: { readonly ca?: () => string; readonly credential?: () => string; readonly timeoutMs?: number } = {},
) {
  const events: IdentityEvent[] = [];
  const time = { ms: 0 };
  const { credential = () => 'reviewer-token', ca = () => certificate.caPem } = options;
  const harness = trusting(
    (key) => ({
      kind: 'kubernetes',
      name: 'cluster',
      dev: false,
      issuer: 'https://cluster.example',
      jwks: { inline: { keys: [key.jwk] } },
      algorithms: ['ES256'],
      tokenReview: { url, ca: 'file:ca.crt', credential: 'file:token' },
    }),
    {
      clock: () => time.ms,
      log: (event) => events.push(event),
      fetchTimeoutMs: options.timeoutMs ?? 5_000,
      secret: (source, reference) => {
        expect(source).toBe('cluster');
        return new Secret(reference === 'file:ca.crt' ? ca() : credential());
      },
    },
  );
  const failures = (): readonly string[] =>
    events.flatMap((event) => (event.event === 'token_review_failed' ? [event.reason] : []));
  return { ...harness, time, failures };
}

describe('a TokenReview', () => {
  it('asks the cluster about this very token, for our audience', async () => {
    const { believe } = cluster();
    expect(await believe(claims)).toMatchObject({ workload: { source: 'cluster', subject: SUBJECT } });
    const token: unknown = expect.stringMatching(/^[\w-]+\.[\w-]+\.[\w-]+$/);
    expect(asked).toMatchObject([
      {
        path: 'POST /apis/authentication.k8s.io/v1/tokenreviews',
        headers: { authorization: 'Bearer reviewer-token', 'content-type': 'application/json' },
        body: { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenReview', spec: { token, audiences: [AUDIENCE] } },
      },
    ]);
  });

  it('is believed for ten seconds and no longer: then a deleted pod’s token is refused', async () => {
    const { again, time } = cluster();
    const ask = again(claims);
    expect(await ask()).toBe('accepted');
    answer = says({ authenticated: false, error: '[pod not found]' });
    time.ms = TOKEN_CACHE_MS - 1;
    expect(await ask()).toBe('accepted');
    time.ms = TOKEN_CACHE_MS;
    expect(await ask()).toBe('workload_token_invalid');
    expect(asked).toHaveLength(2);
  });

  it('is asked anew with the credential that lies there now', async () => {
    let credential = 'first';
    const { ask } = cluster({ credential: () => credential });
    await ask(claims);
    credential = 'second';
    await ask({ ...claims, jti: 'another' });
    expect(asked.map(({ headers }) => headers.authorization)).toStrictEqual(['Bearer first', 'Bearer second']);
  });

  it('is not asked about a token that does not hold anyway', async () => {
    const { ask } = cluster();
    expect(await ask({ ...claims, sub: 'system:serviceaccount:finance:other' })).toBe('workload_token_invalid');
    expect(await ask({ ...claims, aud: 'https://other.example' })).toBe('workload_token_audience_wrong');
    expect(asked).toStrictEqual([]);
  });

  it.each([
    ['it does not hold', { ...good, authenticated: false }],
    ['nothing', {}],
    ['it holds, for another audience', { ...good, audiences: ['https://kubernetes.default.svc'] }],
    ['it holds, without a word about audiences', { ...good, audiences: undefined }],
    ['it is another’s', { ...good, user: { username: 'system:serviceaccount:finance:other' } }],
    ['it is nobody’s', { ...good, user: undefined }],
    [
      'it does not hold, in the words of an API server',
      { user: {}, error: '[invalid bearer token, service account token has been invalidated]' },
    ],
  ])('that says %s is a 401', async (_what, status) => {
    answer = says(status);
    expect(await cluster().ask(claims)).toBe('workload_token_invalid');
  });

  it.each<readonly [name: string, answer: RequestListener, reason: string]>([
    ['403', says(good, 403), 'answered 403'],
    ['500', says(good, 500), 'answered 500'],
    ['a redirect', (_request, response) => void response.writeHead(307, { location: url }).end(), 'answered 307'],
    ['no JSON', (_request, response) => void response.writeHead(201).end('eyJ.secret'), 'answered no TokenReview'],
    [
      'no TokenReview',
      (_request, response) => void response.writeHead(201).end('{"kind":"Status"}'),
      'answered no TokenReview',
    ],
    ['a text for a yes', says({ ...good, authenticated: 'true' }), 'answered no TokenReview'],
    [
      'a megabyte',
      (_request, response) => void response.writeHead(201).end('x'.repeat(1 << 20)),
      'answered more than 65536 bytes',
    ],
    ['a broken connection', (request) => void request.socket.destroy(), 'socket hang up'],
  ])('that answers %s lets nobody in: 503', async (_what, listener, reason) => {
    answer = listener;
    const { believe, failures } = cluster();
    const error: unknown = await believe(claims).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(MayflyError);
    expect(error).toMatchObject({ code: 'keys_unavailable', status: 503, retryAfterSeconds: 2 });
    expect(failures()).toStrictEqual([reason]);
  });

  it('that never ends is given up', async () => {
    let written = 0;
    answer = (_request, response) => {
      response.writeHead(201);
      const drip = setInterval(() => response.write(' ', () => (written += 1)), 10);
      response.on('close', () => clearInterval(drip));
    };
    const { ask, failures } = cluster({ timeoutMs: 200 });
    expect(await ask(claims)).toBe('keys_unavailable');
    expect(failures()).toHaveLength(1);
    expect(written).toBeGreaterThan(0);
  });

  it('is taken from no server but the cluster’s own', async () => {
    const { ask, failures } = cluster({ ca: () => foreignCa });
    expect(await ask(claims)).toBe('keys_unavailable');
    expect(failures()).toStrictEqual([expect.stringMatching(/certificate|signature/)]);
    expect(asked).toStrictEqual([]);
  });

  it('that can not be asked for want of its credential lets nobody in', async () => {
    const gone = (): never => {
      throw new Error('file:token is not there');
    };
    const { ask, failures } = cluster({ credential: gone });
    expect(await ask(claims)).toBe('keys_unavailable');
    expect(failures()).toStrictEqual(['file:token is not there']);
    expect(asked).toStrictEqual([]);
  });

  it('that failed is asked for again by the next caller', async () => {
    answer = says(good, 500);
    const { ask } = cluster();
    expect(await ask(claims)).toBe('keys_unavailable');
    answer = says(good);
    await vi.waitFor(async () => expect(await ask(claims)).toBe('accepted'));
  });
});
