import { describe, expect, test } from 'vitest';
import { paramFaults } from './params.ts';
import { entitlementSchema, targetSchema } from './schema.ts';
import { sessionPolicy } from './session-policy.ts';

const role = 'arn:aws:iam::123456789012:role/lake-reader';
const allow = { Effect: 'Allow' as const, Action: 's3:GetObject', Resource: 'arn:aws:s3:::lake/${tenant}/*' };
const deadline = new Date('2030-01-01T12:00:00.900Z');

function faultsOf(section: unknown): readonly string[] {
  const { error } = entitlementSchema.safeParse(section);
  return error?.issues.map(({ message }) => message) ?? [];
}

describe('a session policy', () => {
  test('has the statements with their params, what is never allowed, and the deadline to the second', () => {
    const { Statement: statements } = JSON.parse(sessionPolicy([allow], { tenant: 'acme' }, deadline));
    expect(statements[0]).toEqual({ ...allow, Resource: 'arn:aws:s3:::lake/acme/*' });
    expect(statements[1]).toMatchObject({
      Effect: 'Deny',
      Action: ['iam:*', 'sts:*', 'signin:*'],
    });
    expect(statements[2]).toEqual({
      ...{ Effect: 'Deny', Action: '*', Resource: '*' },
      Condition: { DateGreaterThanEquals: { 'aws:CurrentTime': '2030-01-01T12:00:00Z' } },
    });
  });

  test.each([
    ['*', 'arn:aws:s3:::lake/${*}/*'],
    ['a?c', 'arn:aws:s3:::lake/a${?}c/*'],
    ['$x', 'arn:aws:s3:::lake/${$}x/*'],
  ])('takes the value %j literally', (tenant, resource) => {
    const { Statement: statements } = JSON.parse(sessionPolicy([allow], { tenant }, deadline));
    expect(statements[0].Resource).toBe(resource);
  });

  test.each(['', 'a:b', 'a"b', 'a\u0000b', '${aws:username}'])('refuses the value %j', (tenant) => {
    expect(() => sessionPolicy([allow], { tenant }, deadline)).toThrow('can not stand in a policy');
  });

  test('ignores no param, and invents none', () => {
    expect(() => sessionPolicy([allow], {}, deadline)).toThrow('have no value');
    expect(() => sessionPolicy([allow], { tenant: 'a', other: 'b' }, deadline)).toThrow('no statement binds');
  });

  test('binds values of conditions, and leaves IAM its own variables', () => {
    const condition = {
      StringEquals: { 's3:prefix': ['${tenant}/', '${aws:username}/'] },
      Bool: { 'aws:SecureTransport': true },
    };
    const text = sessionPolicy([{ ...allow, Resource: '*', Condition: condition }], { tenant: 'acme' }, deadline);
    expect(text).toContain('["acme/","${aws:username}/"]');
    expect(text).toContain('"aws:SecureTransport":true');
  });
});

describe('an entitlement', () => {
  test.each<[string, object, string]>([
    ['a param in an action', { ...allow, Action: 's3:${verb}' }, 'and nowhere else'],
    [
      'a param in the name of a condition',
      { ...allow, Condition: { StringEquals: { '${key}': 'x' } } },
      'and nowhere else',
    ],
    [
      'a param in NotResource',
      { Effect: 'Allow', Action: 's3:*', NotResource: 'arn:aws:s3:::${b}' },
      'and nowhere else',
    ],
    ['a param that names a service', { ...allow, Resource: 'arn:aws:${service}:::x' }, 'behind the fifth colon'],
    ['neither Action nor NotAction', { Effect: 'Allow', Resource: '*' }, 'either Action or NotAction'],
    ['both Resource and NotResource', { ...allow, NotResource: '*' }, 'either Resource or NotResource'],
    ['nothing but denials', { ...allow, Effect: 'Deny' }, 'allow nothing'],
    [
      'more than AWS takes',
      { ...allow, Action: Array.from({ length: 200 }, () => 's3:GetObject') },
      'and AWS takes 2048',
    ],
    ['a principal', { ...allow, Principal: '*' }, 'Unrecognized key'],
  ])('with %s is refused', (_, statement, says) => {
    expect(faultsOf({ role, statements: [statement] }).join('\n')).toContain(says);
  });

  test('is measured with the longest values of its params', () => {
    const config = entitlementSchema.parse({ role, statements: [allow] });
    const faults = (params: Parameters<typeof paramFaults>[0]['params'] = {}) =>
      paramFaults({ name: 'lake/read', config, params });
    expect(faults({ tenant: { type: 'string', pattern: '^[a-z]{1,40}$' } })).toEqual([]);
    expect(faults({ tenant: { type: 'string', pattern: '^[a-z]{1,1800}$' } })).toEqual([
      expect.stringContaining('AWS takes 2048'),
    ]);
    expect(faults({ tenant: { type: 'string', enum: ['a', 'b'.repeat(1_800)] } })).toHaveLength(1);
    // A wildcard takes four characters.
    expect(faults({ tenant: { type: 'string', pattern: '^[a-z*]{1,450}$' } })).toHaveLength(1);
    expect(faults({ tenant: { type: 'string', pattern: '^[a-z.-]{1,450}$' } })).toEqual([]);
    expect(faults({ tenant: { type: 'string', enum: ['$'.repeat(450)] } })).toHaveLength(1);
    expect(faults()).toEqual([expect.stringContaining('declares no such param')]);
    const both = { tenant: { type: 'boolean' as const }, other: { type: 'integer' as const } };
    expect(faults(both)).toEqual([expect.stringContaining('no statement holds ${other}')]);
  });
});

describe('a target', () => {
  const target = { account_id: '123456789012', region: 'eu-central-1', roles: [{ arn: role }] };
  const faults = (over: object) =>
    targetSchema.safeParse({ ...target, ...over }).error?.issues.map(({ message }) => message);

  test('of another account, of one role twice, or without TLS is refused', () => {
    expect(faults({})).toBeUndefined();
    expect(faults({ account_id: '210987654321' })).toEqual(['is of another account than account_id']);
    expect(faults({ roles: [{ arn: role, clones: [{ arn: role }] }] })).toEqual(['names a role twice']);
    expect(faults({ endpoints: { sts: 'http://sts.example.com' } })).toEqual([
      expect.stringContaining('must be https'),
    ]);
    expect(faults({ endpoints: { sts: 'http://127.0.0.1:4566' } })).toBeUndefined();
    expect(faults({ broker: { access_key_id: 'AKIAEXAMPLE', secret_access_key: 'env:KEY' } })).toHaveLength(1);
  });
});
