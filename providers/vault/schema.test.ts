import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { z } from 'zod';
import { Secret } from '../../src/provider.ts';
import { refusal, saidBy } from './errors.ts';
import { assertHandle, factsOf, handleOf, toFacts } from './handle.ts';
import { bindPath } from './path.ts';
import { brokerRights, policyText } from './policy.ts';
import { preparation } from './prepare.ts';
import { entitlementSchema, targetSchema } from './schema.ts';

const auth = { approle: { role_id: 'mayfly', secret_id: 'file:secret-id' } };
const target = (over: object) => targetSchema.safeParse({ addresses: ['https://vault.example:8200'], auth, ...over });
const GRANT = '019a0000-0000-7000-8000-000000000001';
const PLACE = { namespace: '', role: 'mayfly', record: 'mayfly' };

describe('a connection', () => {
  test('says how to log in, by references alone', () => {
    expect(target({}).data).toMatchObject({ token_role: 'mayfly', record: { mount: 'mayfly' } });
    for (const over of [
      { auth: { approle: { role_id: 'mayfly', secret_id: 'in-clear' } } },
      { auth: { kubernetes: { role: 'mayfly', token: '/var/run/secrets/token' } } },
      { auth: { jwt: { role: 'mayfly', jwt: 'eyJhbGciOi' } } },
      { auth: { token: 'file:token' } },
      { auth: { ...auth, jwt: { role: 'mayfly', jwt: 'file:jwt' } } },
      { auth: {} },
      { ca: '-----BEGIN CERTIFICATE-----' },
      { token: 'file:token' },
    ])
      expect([over, target(over).success]).toEqual([over, false]);
    for (const over of [
      { auth: { kubernetes: { role: 'mayfly', token: 'file:token' } } },
      { auth: { jwt: { role: 'mayfly', jwt: 'env:MAYFLY_TARGET_VAULT_JWT', mount: 'ci/jwt' } } },
      { ca: 'file:ca.pem', namespace: 'teams/red', record: 'none' },
    ])
      expect([over, target(over).success]).toEqual([over, true]);
  });

  test('goes without TLS only to this machine', () => {
    for (const [address, good] of [
      ['https://vault.example:8200', true],
      ['http://127.0.0.1:8200', true],
      ['http://[::1]:8200', true],
      ['http://localhost:8200', true],
      ['http://vault.example:8200', false],
      ['http://127.0.0.1.example:8200', false],
      ['https://user:password@vault.example', false],
      ['https://vault.example/v1', false],
      ['https://vault.example?x=1', false],
      ['ftp://vault.example', false],
      ['vault.example', false],
    ] as const)
      expect([address, target({ addresses: [address] }).success]).toEqual([address, good]);
    expect(target({ addresses: [] }).success).toBe(false);
    expect(target({ addresses: ['https://a.example', 'https://a.example/'] }).success).toBe(false);
  });
});

describe('an entitlement', () => {
  const dynamic = { mode: 'dynamic', policies: ['db'], path: 'database/creds/readers' };

  test('is one of three modes, with the policies of its token', () => {
    for (const [config, good] of [
      [dynamic, true],
      [{ ...dynamic, method: 'POST', data: { ttl: '${ttl_seconds}s' } }, true],
      [{ mode: 'token', policies: ['agent'], wrap_seconds: 60 }, true],
      [{ mode: 'kv', policies: ['agent'], mount: 'secret', path: 'teams/${team}/key' }, true],
      [{ ...dynamic, data: { ttl: '1h' } }, false],
      [{ ...dynamic, policies: [] }, false],
      [{ ...dynamic, policies: ['root'] }, false],
      [{ ...dynamic, policies: ['default'] }, false],
      [{ ...dynamic, wrap_seconds: 0 }, false],
      [{ ...dynamic, mode: 'wrap' }, false],
      [{ mode: 'token', policies: ['agent'], path: 'secret/x' }, false],
      [{ mode: 'token', policies: ['agent'], lease_paths: ['database/creds/${role}'] }, false],
    ] as const)
      expect([config, entitlementSchema.safeParse(config).success]).toEqual([config, good]);
  });

  test('its path can not leave the engine that it names', () => {
    for (const path of [
      ...['/database/creds/x', 'database/creds/x/', 'database//x', 'database/../sys/x', 'database/./x', 'database/*'],
      ...['${mount}/creds/x', 'sys/policies', 'auth/token/create', 'identity/x', 'cubbyhole/x', 'database/creds/+'],
      ...['database/creds/x?list=true', 'database/%2e%2e/x', 'database/${}', 'database/${A}', ''],
    ])
      expect([path, entitlementSchema.safeParse({ ...dynamic, path }).success]).toEqual([path, false]);
  });

  test('whatever a param is, it stays within its segment', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 40 }), (value) => {
        let bound: string;
        try {
          bound = bindPath('secret/data/teams/${team}/key', { team: value });
        } catch {
          return;
        }
        expect(bound.split('/')).toEqual(['secret', 'data', 'teams', value, 'key']);
        expect(value).toMatch(/^[A-Za-z0-9_][A-Za-z0-9._-]*$/);
        expect(value).not.toContain('..');
      }),
      { numRuns: 2000 },
    );
  });
});

test('facts that were changed, or are another grant’s, are refused', () => {
  const learnt = {
    ...{ cluster_id: 'c', accessor: 'aaaa', policies: 'agent', not_after: '2026-11-24T00:00:00.000Z' },
    mode: 'token',
    ...{ wrapping_accessor: undefined, path: undefined, lease_id: undefined },
    ...{ native_expiry: undefined, lease_paths: undefined },
  } as const;
  const facts = toFacts(GRANT, learnt);
  expect(factsOf({ grantId: GRANT, facts })).toMatchObject({ accessor: 'aaaa' });
  expect(factsOf({ grantId: GRANT, facts: null })).toBeNull();
  for (const over of [{ accessor: 'bbbb' }, { lease_id: 'x' }, { not_after: '2027-11-24T00:00:00.000Z' }])
    expect(() => factsOf({ grantId: GRANT, facts: { ...facts, ...over } })).toThrow(/noted/);
  expect(() => factsOf({ grantId: GRANT.replace(/1$/, '2'), facts })).toThrow(/noted/);
  expect(() => factsOf({ grantId: GRANT, facts: {} })).toThrow(/not those of a grant/);
});

test('a handle is that of one grant, and stands in a path', () => {
  expect(handleOf(GRANT, PLACE)).toMatch(/^mfy-019a0000000070008000000000000001-[0-9a-f]{10}$/);
  const there = handleOf(GRANT, { ...PLACE, namespace: 'teams' });
  expect(there).not.toBe(handleOf(GRANT, PLACE));
  const ref = { grantId: GRANT, facts: null };
  // Where it was not intended its absence proves nothing; its facts say themselves where it is.
  for (const handle of [there, 'mfy-019a0000000070008000000000000001']) {
    expect(() => assertHandle({ ...ref, handle }, PLACE)).toThrow(/another place/);
    assertHandle({ ...ref, handle, facts: {} }, PLACE);
  }
  for (const handle of ['', '../x', `${there}0`, there.replace(/1-/, '2-')])
    expect(() => assertHandle({ ...ref, handle, facts: {} }, PLACE)).toThrow(/not that of the grant/);
  for (const id of ['../x', '', `${GRANT}0`, 'x'.repeat(32)]) expect(() => handleOf(id, PLACE)).toThrow(/UUID/);
});

test('of what Vault and its engines say only known words are repeated', () => {
  const said = (text: string, status = 500) => saidBy({ status, body: { errors: [text] }, date: null });
  const secrets: readonly (readonly [string, string])[] = [
    ['failed to connect to postgres://admin:hunter2hunter2@db:5432', 'hunter2'],
    ['dial: user=x password=hunter2hunter2 host=db', 'hunter2'],
    ['{"username":"v-x","password":"hunter2hunter2"}', 'hunter2'],
    [`CREATE ROLE "v" LOGIN PASSWORD 'hunter2hunter2' syntax error`, 'hunter2'],
    ['failed to revoke entry: "database/creds/r/AbCdEfGhIjKlMnOpQrStUvWx": connection refused', 'AbCdEfGh'],
    ['Bearer eyJhbGciOi.eyJhbGciOi.sig', 'eyJ'],
    ['AccessKeyId AKIAABCDEFGHIJKLMNOP secret_access_key wJalrXUtnFEMI', 'wJalr'],
    ['hvs.CAESIJlU_x-aaaaaaaaaaaaaaaaaaa was refused', 'CAES'],
  ];
  for (const [text, secret] of secrets) {
    expect(said(text)).not.toContain(secret);
    expect(String(refusal({ status: 500, body: { errors: [text] }, date: null }, 'revoking a lease'))).not.toContain(
      secret,
    );
  }
  expect(said('failed to revoke entry: "a/b/C": dial tcp 10.0.0.1:5432: connect: connection refused')).toBe(
    'failed to revoke, connection refused',
  );
  expect(said('ERROR: role "v" cannot be dropped because some objects depend on it (SQLSTATE 2BP01)')).toBe(
    'objects depend on it, SQLSTATE 2BP01',
  );
  expect(said('something nobody has seen')).toBe('what it says is in its own log');
  expect(saidBy({ status: 502, body: '<html>', date: null })).toBe('');
});

describe('preparing', () => {
  const parsed = targetSchema.parse({ addresses: ['https://vault.example:8200'], auth });
  const tenants = entitlementSchema.parse({ mode: 'dynamic', policies: ['db'], path: 'database/creds/${tenant}-ro' });

  test('the broker is given what it must have, and nothing of what agents may', () => {
    const text = policyText(brokerRights(parsed, [{ config: tenants }]));
    expect(text).toContain('path "auth/token/create/mayfly" { capabilities = ["create", "update"] }');
    expect(text).toContain('path "sys/leases/lookup/database/creds/+" { capabilities = ["list", "sudo"] }');
    expect(text).not.toMatch(/path "database|path "\*|revoke-force|revoke-prefix|"auth\/token\/create"/);
  });

  test('the script holds no secret, and params that nothing binds are refused', async () => {
    const entitlement = { name: 'vault/tenant', maxTtlSeconds: 600, config: tenants };
    const params = { tenant: { type: 'string' } } as const;
    const script = await preparation.script(parsed, [{ ...entitlement, params }], GRANT, null, { store: 'store-1' });
    for (const part of [
      '"$bao" write auth/token/roles/mayfly',
      '"allowed_policies"',
      'auth/approle/role/mayfly-broker',
      GRANT,
    ])
      expect(script).toContain(part);
    const unbound = [{ ...entitlement, params: { ...params, other: { type: 'string' } as const } }];
    await expect(preparation.script(parsed, unbound, GRANT, null)).rejects.toThrow(/other/);
    const by = { store: 'store-1', tenure: GRANT };
    expect(await preparation.script(parsed, [], GRANT, null, by)).toContain('${epoch:-0} + 1');
  });

  test('an administrator’s token goes nowhere in clear, and its certificates must be there', async () => {
    const tried = async (url: string) =>
      await preparation.apply?.(new Secret(url), parsed, [], GRANT, new Secret('')).catch((error: unknown) => error);
    for (const url of [
      'http://:root-token@vault.example:8200',
      'ftp://:root-token@127.0.0.1',
      'https://vault.example',
      'x',
    ]) {
      const error = await tried(url);
      expect(error).toMatchObject({ errorClass: 'misconfigured', message: expect.stringMatching(/must be https/) });
      expect(String(error)).not.toContain('root-token');
    }
    expect(await tried('https://:root-token@vault.example:8200?ca=/nowhere/ca.pem')).toMatchObject({
      message: 'the certificates /nowhere/ca.pem can not be read',
    });
  });
});

test('the example in the README is one', () => {
  const readme = readFileSync(new URL('./README.md', import.meta.url), 'utf8');
  const [, block = ''] = /```yaml\n([\s\S]*?)```/.exec(readme) ?? [];
  const [described = '', entitlements = ''] = block
    .replaceAll(/^ {3}/gm, '')
    .split('# catalog/entitlements/vault.yaml');
  const { connection } = z.object({ connection: z.unknown() }).parse(parse(described));
  expect(targetSchema.safeParse(connection).error).toBeUndefined();
  const declared = z.array(z.object({ name: z.string(), provider: z.unknown() })).parse(parse(entitlements));
  expect(declared).toHaveLength(3);
  for (const { name, provider } of declared)
    expect([name, entitlementSchema.safeParse(provider).error]).toEqual([name, undefined]);
});
