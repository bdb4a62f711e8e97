import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { z } from 'zod';
import { saidBy } from './errors.ts';
import { factsOf, handleOf, toFacts } from './handle.ts';
import { bindPath } from './path.ts';
import { brokerRights, policyText } from './policy.ts';
import { preparation } from './prepare.ts';
import { entitlementSchema, targetSchema } from './schema.ts';

const auth = { approle: { role_id: 'mayfly', secret_id: 'file:secret-id' } };
const target = (over: object) => targetSchema.safeParse({ addresses: ['https://vault.example:8200'], auth, ...over });
const GRANT = '019a0000-0000-7000-8000-000000000001';

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
  expect(handleOf(GRANT)).toBe('mfy-019a0000000070008000000000000001');
  for (const id of ['../x', '', `${GRANT}0`, 'x'.repeat(32)]) expect(() => handleOf(id)).toThrow(/UUID/);
});

test('what an engine says is told without what may be a secret in it', () => {
  const said = (text: string) => saidBy({ status: 400, body: { errors: [text] }, date: null });
  expect(said('failed to connect to postgres://admin:hunter22@db:5432')).not.toContain('hunter22');
  expect(said('dial: user=x password=hunter22 host=db')).not.toContain('hunter22');
  expect(said('token s.AAAABBBBCCCCDDDDEEEEFFFF refused')).not.toContain('AAAABBBB');
  expect(said('hvs.CAESIJlU_x-aaaaaaaaaaaaaaaaaaa')).toBe('[secret]');
  expect(said('x'.repeat(1000))).toHaveLength(240);
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
});

test('the example in the README is one', () => {
  const readme = readFileSync(new URL('./README.md', import.meta.url), 'utf8');
  const [, block = ''] = /```yaml\n([\s\S]*?)```/.exec(readme) ?? [];
  const [target = '', entitlements = ''] = block.replaceAll(/^ {3}/gm, '').split('# catalog/entitlements/vault.yaml');
  const { connection } = z.object({ connection: z.unknown() }).parse(parse(target));
  expect(targetSchema.safeParse(connection).error).toBeUndefined();
  const declared = z.array(z.object({ name: z.string(), provider: z.unknown() })).parse(parse(entitlements));
  expect(declared).toHaveLength(3);
  for (const { name, provider } of declared)
    expect([name, entitlementSchema.safeParse(provider).error]).toEqual([name, undefined]);
});
