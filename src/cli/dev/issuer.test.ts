import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createRemoteJWKSet, decodeJwt, decodeProtectedHeader, jwtVerify } from 'jose';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { freePort } from '../../../test/support/free-port.ts';
import { createDevIssuer, type DevIssuer } from './issuer.ts';

const AUDIENCE = 'http://127.0.0.1:7420';
const workload = { kind: 'workload', subject: 'agent-recon', audience: AUDIENCE };
const task = {
  audience: AUDIENCE,
  workload_subject: 'agent-recon',
  subject: 'ann@example.test',
  purpose: 'reconcile.invoices',
  entitlements: ['ledger-db/read-invoices'],
  ttl_seconds: 900,
};

let dir: string;
let port: number;
let issuer: DevIssuer;
let secret: string;

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'mayfly-issuer-'));
  port = await freePort();
  issuer = await createDevIssuer({ dir, port });
  secret = (await readFile(issuer.secretFile, 'utf8')).trim();
  await issuer.start();
});
afterEach(async () => {
  await issuer.stop();
  await rm(dir, { recursive: true, force: true });
});

interface Answer {
  readonly status: number;
  readonly body: Record<string, unknown>;
  readonly headers: Record<string, unknown>;
}

/** By `node:http`, since `fetch` does not let a test choose Host or Origin. */
function ask(method: string, path: string, headers: Record<string, string> = {}, body?: string): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asked = request({ host: '127.0.0.1', port, method, path, headers, agent: false }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk;
      });
      response.on('end', () => {
        resolve({
          status: response.statusCode ?? 0,
          body: text === '' ? {} : JSON.parse(text),
          headers: response.headers,
        });
      });
    });
    asked.on('error', reject);
    asked.end(body);
  });
}

function token(body: unknown, headers: Record<string, string> = {}): Promise<Answer> {
  const usual = { authorization: `Bearer ${secret}`, 'content-type': 'application/json' };
  return ask('POST', '/token', { ...usual, ...headers }, typeof body === 'string' ? body : JSON.stringify(body));
}

describe('discovery', () => {
  test.each(['orchestrator', 'workloads', 'operators'] as const)('%s publishes its own name and keys', async (name) => {
    const { body } = await ask('GET', `/${name}/.well-known/openid-configuration`);
    expect(body).toMatchObject({
      issuer: `http://127.0.0.1:${port}/${name}`,
      jwks_uri: `http://127.0.0.1:${port}/${name}/jwks.json`,
    });
    expect(issuer.issuers[name]).toBe(body['issuer']);
    const { body: jwks } = await ask('GET', `/${name}/jwks.json`);
    expect(jwks['keys']).toEqual([
      {
        kty: 'EC',
        crv: 'P-256',
        alg: 'ES256',
        use: 'sig',
        kid: expect.any(String),
        x: expect.any(String),
        y: expect.any(String),
      },
    ]);
  });

  test('the three have three keys', async () => {
    const sets = await Promise.all(Object.keys(issuer.issuers).map((name) => ask('GET', `/${name}/jwks.json`)));
    expect(new Set(sets.map(({ body }) => JSON.stringify(body))).size).toBe(3);
  });

  test('keys and secret stay the same from start to start, in files of mode 0600', async () => {
    const before = await ask('GET', '/workloads/jwks.json');
    await issuer.stop();
    issuer = await createDevIssuer({ dir, port });
    await issuer.start();
    expect((await ask('GET', '/workloads/jwks.json')).body).toEqual(before.body);
    expect((await token(workload)).status).toBe(200);
    const files = [issuer.secretFile, ...(await readdir(join(dir, 'issuer'))).map((name) => join(dir, 'issuer', name))];
    expect(files).toHaveLength(4);
    for (const file of files) expect((await stat(file)).mode & 0o777).toBe(0o600);
  });

  test('a key file that holds no key is refused by name, without its content', async () => {
    const file = join(dir, 'issuer', 'workloads.jwk');
    await writeFile(file, '{"kty":"EC","d":"canary"}');
    const failure = await createDevIssuer({ dir, port }).catch((error: unknown) => error);
    expect(failure).toMatchObject({ code: 'secret_file_refused', message: expect.stringContaining(file) });
    expect(String(failure)).not.toContain('canary');
  });

  test('other paths, methods and names are not there', async () => {
    for (const path of ['/', '/workloads', '/workloads/', '/nobody/jwks.json', '//', '/workloads/../token']) {
      expect((await ask('GET', path)).status).toBe(404);
    }
    expect((await ask('POST', '/workloads/jwks.json')).status).toBe(405);
    expect((await ask('GET', '/token')).status).toBe(405);
  });
});

describe('tokens', () => {
  const keysOf = (name: keyof DevIssuer['issuers']) => createRemoteJWKSet(new URL(`${issuer.issuers[name]}/jwks.json`));

  test('a workload token verifies against the published keys and names its subject', async () => {
    const { status, body, headers } = await token({ ...workload, ttl_seconds: 60 });
    expect(status).toBe(200);
    expect(headers['cache-control']).toBe('no-store');
    const { payload, protectedHeader } = await jwtVerify(String(body['token']), keysOf('workloads'), {
      issuer: issuer.issuers.workloads,
      audience: AUDIENCE,
    });
    expect(protectedHeader).toMatchObject({ alg: 'ES256', typ: 'JWT' });
    expect(payload).toMatchObject({ sub: 'agent-recon', aud: AUDIENCE, jti: expect.any(String) });
    expect((payload.exp ?? 0) - (payload.iat ?? 0)).toBe(60);
    expect(body['expires_at']).toBe(new Date((payload.exp ?? 0) * 1000).toISOString());
    await expect(jwtVerify(String(body['token']), keysOf('operators'))).rejects.toThrow('no applicable key');
  });

  test('an operator token carries its roles', async () => {
    const { body } = await token({
      kind: 'operator',
      subject: 'olga',
      roles: ['viewer', 'operator'],
      audience: AUDIENCE,
    });
    const { payload } = await jwtVerify(String(body['token']), keysOf('operators'), {
      issuer: issuer.issuers.operators,
    });
    expect(payload).toMatchObject({ sub: 'olga', roles: ['viewer', 'operator'] });
  });

  test('a task request has exactly the claims of the contract', async () => {
    const { body } = await token({
      ...{ ...task, kind: 'task-request', phase: 'execute', params: { tenant: 'acme' } },
      ...{ max_ttl_seconds: 300, external_id: 'run-17' },
    });
    const compact = String(body['token']);
    const { payload } = await jwtVerify(compact, keysOf('orchestrator'), { typ: 'agent-task+jwt' });
    const { kid } = decodeProtectedHeader(compact);
    expect(decodeProtectedHeader(compact)).toEqual({ alg: 'ES256', typ: 'agent-task+jwt', kid });
    const { iat = 0 } = payload;
    expect(payload).toEqual({
      ...{ iss: issuer.issuers.orchestrator, aud: AUDIENCE, jti: expect.any(String), iat, exp: iat + 300 },
      ...{ sub: 'ann@example.test', act: { sub: 'agent-recon' } },
      task: { id: 'run-17', purpose: 'reconcile.invoices', phase: 'execute', not_after: iat + 900, max_depth: 0 },
      authorization_details: [
        {
          ...{ type: 'mayfly', entitlements: ['ledger-db/read-invoices'] },
          ...{ params: { tenant: 'acme' }, max_ttl_seconds: 300 },
        },
      ],
    });
  });

  test('what is not asked for does not stand in a task request, and each names a task of its own', async () => {
    const [one, two] = await Promise.all([issuer.signTaskRequest(task), issuer.signTaskRequest(task)]);
    const [a, b] = [decodeJwt<{ task: { id: string } }>(one.token), decodeJwt<{ task: { id: string } }>(two.token)];
    expect(Object.keys(a.task).sort()).toEqual(['id', 'max_depth', 'not_after', 'purpose']);
    expect(a['authorization_details']).toEqual([{ type: 'mayfly', entitlements: ['ledger-db/read-invoices'] }]);
    expect(a.task.id).not.toBe(b.task.id);
    expect(a.jti).not.toBe(b.jti);
  });

  test('the signers work without a listener, by the clock they are given', async () => {
    const still = await createDevIssuer({ dir, port, now: () => new Date('2030-01-01T00:00:00.900Z') });
    const signed = await still.signTaskRequest(task);
    expect(signed.expires_at).toBe('2030-01-01T00:05:00.000Z');
    expect(decodeJwt(signed.token).iat).toBe(Date.parse('2030-01-01T00:00:00Z') / 1000);
  });
});

describe('refusals', () => {
  test.each([
    ['no secret', ''],
    ['a wrong secret', `Bearer ${'x'.repeat(32)}`],
    ['another scheme', 'Basic eDp5'],
    ['the scheme alone', 'Bearer '],
  ])('%s: 401, and the body is not looked at', async (_, authorization) => {
    const answer = await token('not json', { authorization });
    expect(answer).toMatchObject({
      status: 401,
      body: { code: 'dev_secret_wrong' },
      headers: { 'www-authenticate': 'Bearer' },
    });
  });

  test.each(['localhost', '127.0.0.1'])('the names of loopback are taken: %s', async (name) => {
    expect((await token(workload, { host: `${name}:${port}` })).status).toBe(200);
  });

  test.each([
    'evil.example',
    '127.0.0.1',
    'localhost:1',
    'evil.example:PORT',
    '127.0.0.1:PORT.evil.example',
    '0.0.0.0:PORT',
  ])('another Host is refused: %s', async (host) => {
    const named = { host: host.replace('PORT', String(port)) };
    expect(await token(workload, named)).toMatchObject({ status: 400, body: { code: 'host_refused' } });
    expect((await ask('GET', '/workloads/jwks.json', named)).status).toBe(400);
  });

  test.each([
    [{ origin: 'https://evil.example' }],
    [{ origin: 'null' }],
    [{ 'sec-fetch-site': 'cross-site' }],
    [{ 'sec-fetch-site': 'same-site' }],
  ])('a page of another origin is refused: %o', async (headers) => {
    const answer = await token(workload, headers);
    expect(answer).toMatchObject({ status: 403, body: { code: 'cross_origin_refused' } });
    expect(Object.keys(answer.headers).filter((name) => name.startsWith('access-control'))).toEqual([]);
    const preflight = await ask('OPTIONS', '/token', { ...headers, 'access-control-request-method': 'POST' });
    expect(preflight.status).toBe(403);
  });

  test.each([
    ['an unknown kind', { ...workload, kind: 'admin' }],
    ['an unknown member', { ...workload, extra: 1 }],
    ['an array', [workload]],
    ['no subject', { kind: 'workload', audience: AUDIENCE }],
    ['a control character', { ...workload, subject: 'a\u0000b' }],
    ['a lone surrogate', { ...workload, subject: 'a\ud800' }],
    ['a life of more than an hour', { ...workload, ttl_seconds: 3601 }],
    ['a life of zero', { ...workload, ttl_seconds: 0 }],
    ['a life in words', { ...workload, ttl_seconds: '5m' }],
    ['a role that does not exist', { kind: 'operator', subject: 'o', audience: AUDIENCE, roles: ['root'] }],
    ['no entitlement', { ...task, kind: 'task-request', entitlements: [] }],
    ['a task of more than a day', { ...task, kind: 'task-request', ttl_seconds: 86_401 }],
    ['a param that is no plain value', { ...task, kind: 'task-request', params: { a: { b: 1 } } }],
  ])('%s: 400', async (_, body) => {
    const answer = await token(body);
    expect(answer).toMatchObject({ status: 400, body: { code: 'invalid_request' } });
    expect(answer.body['errors']).not.toEqual([]);
  });

  test('what is not JSON is refused by its type and by its content', async () => {
    expect(await token('{"kind":')).toMatchObject({ status: 400, body: { code: 'malformed_json' } });
    const answer = await token(workload, { 'content-type': 'text/plain' });
    expect(answer).toMatchObject({ status: 415, body: { code: 'unsupported_media_type' } });
  });

  test('a body of two megabytes is refused, and the next request is answered', async () => {
    const huge = JSON.stringify({ ...workload, subject: 'a'.repeat(2_000_000) });
    expect(await token(huge)).toMatchObject({ status: 413, body: { code: 'body_too_large' } });
    expect((await token(workload)).status).toBe(200);
  });

  test('a taken port is told by its number', async () => {
    await issuer.stop();
    const other = createServer();
    await new Promise<void>((resolve) => other.listen(port, '127.0.0.1', resolve));
    await expect(issuer.start()).rejects.toMatchObject({
      code: 'port_taken',
      message: expect.stringContaining(`127.0.0.1:${port}`),
    });
    await new Promise((resolve) => other.close(resolve));
    await issuer.start();
    expect((await token(workload)).status).toBe(200);
  });
});
