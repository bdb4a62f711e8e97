import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { exportJWK, generateKeyPair, SignJWT } from 'jose';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { AgentKey } from '../../src/client/index.ts';
import { explainedTokenBody, whoAmIBody } from '../../src/http/whoami-bodies.ts';
import { ask } from '../support/ask.ts';
import { startCli } from '../support/cli.ts';
import { type House, startHouse } from '../support/house.ts';
import { type Operators, operatorsOf } from '../support/operators.ts';

const ISSUER = 'https://idp.example';
const KID = 'a-key-of-the-tests';

let house: House;
let operators: Operators;
let logged = '';
let sign: (claims?: object, header?: object) => Promise<string>;

beforeAll(async () => {
  const logTo = new PassThrough();
  logTo.on('data', (text: Buffer) => {
    logged += text.toString();
  });
  house = await startHouse({ logTo, env: { MAYFLY_LOG_LEVEL: 'trace' } });
  operators = operatorsOf(house);
  const { privateKey, publicKey } = await generateKeyPair('ES256', { extractable: true });
  const jwk = JSON.stringify({ ...(await exportJWK(publicKey)), kid: KID });
  const source = `workload_sources:
  - { name: idp, kind: oidc, issuer: "${ISSUER}", jwks: { inline: { keys: [${jwk}] } }, algorithms: [ES256], require: { tier: gold } }
`;
  const trust = (house.files['trust.yaml'] ?? '')
    .replace('workload_sources:\n', source)
    .replace('"dev:agent-support"]', '"dev:agent-support", "idp:named"]')
    .replace(/viewer: \[viewer\]/, 'viewer: [{ roles: [viewer, operator], scope: { environment: demo } }]');
  await house.broker.apply({ ...house.files, 'trust.yaml': trust });
  sign = async (claims = {}, header = {}) => {
    const now = Math.floor(Date.now() / 1000);
    const all = { iss: ISSUER, sub: 'named', aud: house.url, iat: now, exp: now + 300, tier: 'gold', ...claims };
    return await new SignJWT(all).setProtectedHeader({ alg: 'ES256', kid: KID, ...header }).sign(privateKey);
  };
});
afterAll(async () => {
  await house?.stop();
});

const explain = async (token: string) => {
  const reply = await operators.post('/v1/whoami', { token });
  expect([reply.status, reply.body['code']]).toEqual([200, undefined]);
  return explainedTokenBody.parse(reply.body);
};

describe('a caller asks about itself', () => {
  test('and is told as whom it is believed', async () => {
    const workload = await ask(house.url, 'GET', '/v1/whoami', { token: await house.token() });
    expect(whoAmIBody.parse(workload.body)).toMatchObject({
      kind: 'workload',
      workload: 'dev:agent-recon',
      instance: null,
      key_thumbprint: null,
    });
    const key = await AgentKey.make();
    expect(await house.client('agent-recon', house.url, key).whoAmI()).toMatchObject({
      key_thumbprint: key.thumbprint,
    });
    const operator = await operators.get('/v1/whoami', 'viewer');
    const scope = { environment: 'demo' };
    expect(whoAmIBody.parse(operator.body)).toMatchObject({
      kind: 'operator',
      operator: 'dev-operators:olga',
      roles: [
        { role: 'viewer', scope },
        { role: 'operator', scope },
      ],
    });
  });

  test('and is told which check fails, where the metadata is, and nothing of what exists', async () => {
    const reply = await ask(house.url, 'GET', '/v1/whoami', { token: await sign({ tier: 'silver' }) });
    expect([reply.status, reply.body]).toMatchObject([
      401,
      { code: 'workload_token_invalid', errors: [{ path: '$.tier', message: 'is not what the catalog demands' }] },
    ]);
    for (const known of ['gold', 'idp', KID, 'dev-operators']) expect(reply.text).not.toContain(known);
    const challenge = String(reply.headers['www-authenticate']);
    const [, metadata = ''] = /resource_metadata="([^"]+)"/.exec(challenge) ?? [];
    const { body } = await ask(house.url, 'GET', new URL(metadata).pathname);
    // RFC 9728 §3.3.
    expect(body['resource']).toBe(house.url);
    expect(metadata).toBe(`${house.url}/.well-known/oauth-protected-resource`);
  });
});

describe('an operator has a token explained', () => {
  test('that is believed', async () => {
    const explained = await explain(await sign());
    expect(explained).toMatchObject({
      believed: true,
      caller: { kind: 'workload', workload: 'idp:named' },
      refusal: null,
      source: 'idp',
      bound_to_key: null,
      bound_to_certificate: null,
      task_issuers: ['dev-orchestrator'],
      says: 'It is believed.',
    });
    expect(new Set(explained.checks.map(({ outcome }) => outcome))).toEqual(new Set(['held']));
    const unnamed = await explain(await sign({ sub: 'unnamed' }));
    expect([unnamed.believed, unnamed.task_issuers, unnamed.says]).toEqual([
      true,
      [],
      'It is believed, but no task issuer may name this workload: it can open no task.',
    ]);
    const jkt = (await AgentKey.make()).thumbprint;
    expect(await explain(await sign({ cnf: { jkt } }))).toMatchObject({ believed: true, bound_to_key: jkt });
    expect((await explain(await operators.token('auditor'))).caller).toMatchObject({ kind: 'operator' });
  });

  const hourAgo = Math.floor(Date.now() / 1000) - 3_600;
  test.each([
    ['grammar', 'workload_token_malformed', async () => 'not.a.token!', undefined, undefined],
    ['type', 'workload_token_type_wrong', () => sign({}, { typ: 'agent-task+jwt' }), 'agent-task+jwt', undefined],
    [
      'issuer',
      'workload_token_issuer_unknown',
      () => sign({ iss: 'https://else.example' }),
      'https://else.example',
      expect.arrayContaining([ISSUER]),
    ],
    ['header', 'workload_token_header_refused', () => sign({}, { jku: 'https://else.example' }), ['jku'], undefined],
    ['key', 'workload_token_key_unknown', () => sign({}, { kid: 'another' }), 'another', [KID]],
    [
      'signature',
      'workload_token_signature_invalid',
      async () => `${(await sign()).slice(0, -86)}${'A'.repeat(86)}`,
      undefined,
      undefined,
    ],
    [
      'audience',
      'workload_token_audience_wrong',
      () => sign({ aud: 'https://else.example' }),
      'https://else.example',
      expect.stringContaining('127.0.0.1'),
    ],
    ['claims', 'workload_token_invalid', () => sign({ tier: 'silver' }), { sub: 'named' }, undefined],
    [
      'time',
      'workload_token_expired',
      () => sign({ exp: hourAgo }),
      expect.objectContaining({ exp: hourAgo }),
      expect.anything(),
    ],
    ['binding', 'key_binding_unsupported', () => sign({ cnf: { 'x5t#S256': 'x' } }), { 'x5t#S256': 'x' }, undefined],
  ])('that fails at %s', async (check, code, token, found, expected) => {
    const explained = await explain(await token());
    expect([explained.believed, explained.caller, explained.refusal?.code]).toEqual([false, null, code]);
    const at = explained.checks.findIndex((one) => one.check === check);
    expect(explained.checks[at]).toEqual({
      check,
      outcome: 'failed',
      ...(found === undefined ? {} : { found }),
      ...(expected === undefined ? {} : { expected }),
    });
    expect(explained.checks.slice(0, at).every(({ outcome }) => outcome === 'held')).toBe(true);
    expect(explained.checks.slice(at + 1).every(({ outcome }) => outcome === 'unknown')).toBe(true);
  });

  test('and it stands in no log and no row, nor does any part of it', async () => {
    const secret = 'a-word-that-stands-in-this-token-alone';
    const token = await sign({ sub: secret });
    await explain(token);
    await explain(`${token}x`);
    const [, payload = '', signature = ''] = token.split('.');
    const tables = await house.onStore<{ name: string }>(
      `SELECT quote_ident(table_name) AS name FROM information_schema.tables WHERE table_schema = 'mayfly'`,
    );
    const rows = await Promise.all(
      tables.map(async ({ name }) => JSON.stringify(await house.onStore(`SELECT to_jsonb(t) FROM mayfly.${name} t`))),
    );
    expect(logged).toContain('/v1/whoami');
    for (const text of [logged, ...rows])
      for (const part of [secret, payload, signature]) expect(text.includes(part)).toBe(false);
  });

  test('and nobody else has', async () => {
    const body = { token: await sign() };
    const agent = await ask(house.url, 'POST', '/v1/whoami', { token: await house.token(), body });
    expect([agent.status, agent.body['code']]).toEqual([403, 'operator_only']);
    expect((await operators.post('/v1/whoami', body, 'auditor')).status).toBe(403);
  });
});

describe('mayfly whoami', () => {
  // Each command is a process of its own.
  vi.setConfig({ testTimeout: 180_000 });
  const mayfly = async (env: Record<string, string>, ...args: string[]) =>
    await startCli(['whoami', ...args], { env: { MAYFLY_DIR: house.devDir, ...env } }).ended;

  test('tells whose token it is, and explains another’s', async () => {
    const file = join(house.devDir, 'token');
    writeFileSync(file, await sign());
    const self = await mayfly({ MAYFLY_TOKEN_FILE: file });
    expect([self.code, self.stdout]).toEqual([
      0,
      expect.stringContaining('the workload idp:named, without a proven key'),
    ]);
    const operator = await mayfly({});
    expect(operator.stdout).toMatch(/the operator dev-operators:dev-operator: .*\boperator\b/);

    writeFileSync(file, await sign({ aud: 'https://else.example\u202e' }));
    const refused = await mayfly({ MAYFLY_TOKEN_FILE: file });
    expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining('401 workload_token_audience_wrong')]);
    const explained = await mayfly({}, '--explain', file);
    expect(explained.code).toBe(1);
    expect(explained.stdout).toMatch(/audience +FAILED +"https:\/\/else\.example" +"http:\/\/127\.0\.0\.1/);
    expect(explained.stdout).toContain('workload_token_audience_wrong: Get a token whose `aud`');
    const json = await mayfly({}, '--explain', file, '--json');
    expect(explainedTokenBody.parse(JSON.parse(json.stdout)).refusal?.code).toBe('workload_token_audience_wrong');
  });

  test('lets no token speak to the terminal, by the name of a member neither', async () => {
    const file = join(house.devDir, 'token');
    const parts = ['{"alg":"ES256"}', '{"a\u009b2J\u202e":1,"a\u009b2J\u202e":2}', 'x'];
    writeFileSync(file, parts.map((part) => Buffer.from(part).toString('base64url')).join('.'));
    const { stdout } = await mayfly({}, '--explain', file);
    expect(stdout).toContain('The member "a2J" appears twice.');
    expect(stdout).not.toMatch(/[\u0080-\u009f\u202e]/);
  });
});
