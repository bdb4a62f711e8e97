import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { makeKey, signToken } from '../../src/identity/testing/keys.ts';
import { ask } from '../support/ask.ts';
import { type House, startHouse } from '../support/house.ts';
import { type OidcProvider, startOidcProvider } from '../support/oidc-provider.ts';

/** Whom a broker believes when its catalog names a source of each kind, over HTTP. */

const svidKey = makeKey('svid-1');
const clusterKey = makeKey('cluster-1');
const githubKey = makeKey('github-1', 'RS256');

let house: House;
let provider: OidcProvider;
beforeAll(async () => {
  [house, provider] = await Promise.all([startHouse(), startOidcProvider()]);
  await house.broker.apply(withSources(house.files['trust.yaml'] ?? ''));
});
afterAll(async () => {
  await provider?.stop();
  await house?.stop();
});

function withSources(trust: string): Readonly<Record<string, string>> {
  const { alg: _, ...svid } = svidKey.jwk;
  const keys = (key: typeof clusterKey) => JSON.stringify({ inline: { keys: [key.jwk] } });
  return {
    ...house.files,
    'keys/prod.json': JSON.stringify({ keys: [{ ...svid, use: 'jwt-svid' }], spiffe_sequence: 1 }),
    'trust.yaml': trust
      .replace('workloads: [', 'workloads: ["cloud:recon", "prod:spiffe://prod.example/agents/*", "github:65/74", ')
      .replace(
        'workload_sources:',
        `  - name: runs
    kind: token
    source: github
    purposes: [answer.customer]
    workloads: ["github:65/74"]
    max_task_seconds: 600
    purpose: answer.customer
    subject: actor
    entitlements: [ledger-db/read-invoices]
    not_after: token
    external_id: [run_id, run_attempt]
    proof_of_possession: none
workload_sources:`,
      )
      .replace(
        'workload_sources:',
        `workload_sources:
  - name: cloud
    dev: true
    kind: oidc
    issuer: ${provider.issuer}
    jwks: { url: ${provider.jwksUrl} }
    algorithms: [ES256]
    subject: client_id
    token_type: at+jwt
  - { name: prod, kind: spiffe-jwt, trust_domain: prod.example, bundle: { file: keys/prod.json }, algorithms: [ES256] }
  - { name: cluster, kind: kubernetes, issuer: "https://cluster.example", jwks: ${keys(clusterKey)}, algorithms: [ES256] }
  - name: github
    kind: github-actions
    jwks: ${keys(githubKey)}
    repositories: [{ repository_owner_id: "65", repository_id: "74" }]
`,
      ),
  };
}

/** What a caller with this token is told about a task that does not exist: 404 when it is believed. */
async function told(token: string): Promise<string> {
  const path = '/v1/tasks/task_01999999-9999-7999-8999-999999999999';
  const { status, body } = await ask(house.url, 'GET', path, { token });
  expect(status).toBe(body['code'] === 'not_found' ? 404 : 401);
  return String(body['code']);
}

const seconds = (): number => Math.floor(Date.now() / 1000);
type Claims = Readonly<Record<string, unknown>>;
const times = (): Claims => ({ aud: house.url, iat: seconds(), exp: seconds() + 300 });
const svid = (change: Claims = {}, header: Claims = {}): string =>
  signToken(svidKey, { ...times(), sub: 'spiffe://prod.example/agents/recon', ...change }, header);
const pod = (change: Claims = {}): string =>
  signToken(clusterKey, {
    ...times(),
    iss: 'https://cluster.example',
    sub: 'system:serviceaccount:finance:recon',
    'kubernetes.io': {
      namespace: 'finance',
      pod: { name: 'recon-1', uid: '22222222-2222-4222-8222-222222222222' },
      serviceaccount: { name: 'recon', uid: '33333333-3333-4333-8333-333333333333' },
    },
    ...change,
  });
const run = (change: Claims = {}): string =>
  signToken(githubKey, {
    ...times(),
    iss: 'https://token.actions.githubusercontent.com',
    sub: 'repo:octo-org/octo-app:ref:refs/heads/main',
    repository_owner_id: '65',
    repository_id: '74',
    run_id: '9001',
    run_attempt: '1',
    ...change,
  });

describe('an OIDC provider’s client', () => {
  test('opens a task with its own access token', async () => {
    const request = await house.sign({ workload: 'recon' });
    const token = await provider.clientToken(house.url);
    const { status, body } = await ask(house.url, 'POST', '/v1/tasks', { token, body: { request } });
    expect({ status, body }).toMatchObject({ status: 201, body: { task: { workload: 'cloud:recon' } } });
  });

  test('is refused with a token for another, and with one that is no JWT', async () => {
    expect(await told(await provider.clientToken('https://other.example'))).toBe('workload_token_audience_wrong');
    expect(await told(await provider.clientToken())).toBe('workload_token_malformed');
  });

  test('is believed at once by a new key, and no longer by the old one', async () => {
    const old = await provider.clientToken(house.url);
    expect(await told(old)).toBe('not_found');
    provider.rotate();
    expect(await told(await provider.clientToken(house.url))).toBe('not_found');
    expect(await told(old)).toBe('workload_token_key_unknown');
  });
});

describe('a task request', () => {
  const opened = async (token: string, workload: string) => {
    const request = await house.sign({ workload });
    const { status, body } = await ask(house.url, 'POST', '/v1/tasks', { token, body: { request } });
    return [status, body['code'] ?? Object(body['task'])['workload']];
  };

  test('may name whatever lies below a SPIFFE path, and nothing beside it', async () => {
    const named = 'spiffe://prod.example/agents/recon';
    expect(await opened(svid(), named)).toEqual([201, `prod:${named}`]);
    const beside = 'spiffe://prod.example/agents-2/recon';
    expect(await opened(svid({ sub: beside }), beside)).toEqual([403, 'issuer_may_not_state']);
    expect(await opened(svid({ sub: `${named}/2` }), named)).toEqual([403, 'workload_not_named']);
  });

  test('may name a repository by its ids', async () => {
    expect(await opened(run(), '65/74')).toEqual([201, 'github:65/74']);
  });

  test('may not name the service account of a cluster that its issuer has no word about', async () => {
    const name = 'system:serviceaccount:finance:recon';
    expect(await opened(pod(), name)).toEqual([403, 'issuer_may_not_state']);
  });
});

describe('a token that is itself the statement', () => {
  const states = async (token: string, request = token) => {
    const { status, body } = await ask(house.url, 'POST', '/v1/tasks', { token, body: { request } });
    return { status, code: body['code'], task: Object(body['task']) };
  };

  test('opens a task for its run, once, without any orchestrator', async () => {
    const token = run({ actor: 'octocat', jti: 'run-1', run_id: '9002' });
    const first = await states(token);
    expect(first).toMatchObject({
      status: 201,
      task: { purpose: 'answer.customer', subject: 'octocat', workload: 'github:65/74', external_id: '9002/1' },
    });
    expect(await states(token)).toMatchObject({ status: 200, task: { id: first.task.id } });
    const again = run({ actor: 'octocat', jti: 'run-2', run_id: '9002' });
    expect(await states(again)).toMatchObject({ status: 409, code: 'external_id_used' });
    const spent = run({ actor: 'octocat', jti: 'run-1', run_id: '9003' });
    expect(await states(spent)).toMatchObject({ status: 401, code: 'task_request_used' });
  });

  test('belongs to the run that opened it, since no key does', async () => {
    const token = run({ actor: 'octocat', jti: 'run-5', run_id: '9005' });
    const { task } = await states(token);
    const path = `/v1/tasks/${task.id}`;
    const later = run({ jti: 'run-6', run_id: '9005' });
    expect(await ask(house.url, 'GET', path, { token: later })).toMatchObject({ status: 200 });
    for (const other of [run({ run_id: '9005', run_attempt: '2' }), run({ run_id: '9006' })]) {
      expect(await ask(house.url, 'GET', path, { token: other })).toMatchObject({ status: 404 });
      expect(await ask(house.url, 'POST', `${path}/complete`, { token: other })).toMatchObject({ status: 404 });
      const grant = { token: other, body: { entitlement: 'ledger-db/read-invoices' } };
      expect(await ask(house.url, 'POST', `${path}/grants`, grant)).toMatchObject({ status: 404 });
    }
    const ours = { token: later, body: { entitlement: 'ledger-db/read-invoices' } };
    const issued = await ask(house.url, 'POST', `${path}/grants`, ours);
    expect(issued).toMatchObject({ status: 201 });
    const grant = `/v1/grants/${Object(issued.body['grant']).id}`;
    expect(await ask(house.url, 'GET', grant, { token: run({ run_id: '9006' }) })).toMatchObject({ status: 404 });
    expect(await ask(house.url, 'DELETE', grant, { token: run({ run_id: '9006' }) })).toMatchObject({ status: 404 });
    expect(await ask(house.url, 'GET', grant, { token })).toMatchObject({ status: 200 });
  });

  test('states nothing for another workload, and nothing that is not a statement', async () => {
    const token = run({ actor: 'octocat', jti: 'run-3', run_id: '9004' });
    expect(await states(svid(), token)).toMatchObject({ status: 403, code: 'workload_not_named' });
    expect(await states(svid())).toMatchObject({ status: 401, code: 'request_issuer_unknown' });
    expect(await states(run({ jti: 'run-4' }))).toMatchObject({ status: 400, code: 'request_claims_invalid' });
    expect(await states(token)).toMatchObject({ status: 201 });
  });
});

describe('each kind', () => {
  test.each<readonly [name: string, token: () => string, code: string]>([
    ['a JWT-SVID', svid, 'not_found'],
    [
      'a JWT-SVID of another trust domain',
      () => svid({ sub: 'spiffe://other.example/agents/recon' }),
      'workload_token_issuer_unknown',
    ],
    ['a JWT-SVID with a header of its own', () => svid({}, { x5t: 'A' }), 'workload_token_header_refused'],
    ['a pod’s token', pod, 'not_found'],
    ['a token of no pod', () => pod({ 'kubernetes.io': { namespace: 'finance' } }), 'workload_token_invalid'],
    ['a run’s token', run, 'not_found'],
    ['a run of another repository', () => run({ repository_id: '75' }), 'workload_token_invalid'],
    [
      'a JWT-SVID by the cluster’s key',
      () => signToken(clusterKey, { ...times(), sub: 'spiffe://prod.example/x' }),
      'workload_token_key_unknown',
    ],
    [
      'a pod’s token by the trust domain’s key',
      () => signToken(svidKey, { ...times(), iss: 'https://cluster.example' }),
      'workload_token_key_unknown',
    ],
    ['a run’s token for another', () => run({ aud: 'https://other.example' }), 'workload_token_audience_wrong'],
    ['a JWT-SVID that has expired', () => svid({ exp: seconds() - 10 }), 'workload_token_expired'],
    [
      'a pod’s token in the name of the OIDC provider',
      () => pod({ iss: provider.issuer }),
      'workload_token_key_unknown',
    ],
  ])('%s', async (_name, token, code) => {
    expect(await told(token())).toBe(code);
  });
});
