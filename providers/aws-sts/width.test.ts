import { describe, expect, test } from 'vitest';
import { covers, widthFaults } from './derived.ts';
import { provider } from './index.ts';
import { entitlementSchema, targetSchema } from './schema.ts';

const account = '123456789012';
const role = `arn:aws:iam::${account}:role/lake-reader`;
const allow = { Effect: 'Allow', Action: 's3:GetObject', Resource: 'arn:aws:s3:::lake/*' };
const faultsOf = (...statements: readonly object[]) => widthFaults(entitlementSchema.parse({ role, statements }));

describe('an entitlement that', () => {
  test('names what it needs is none too wide', () => {
    expect(faultsOf(allow)).toEqual([]);
    expect(faultsOf({ ...allow, Action: ['s3:Get*Object', 'dynamodb:*'] })).toEqual([]);
  });

  test.each<[string, object, string]>([
    ['allows everything', { ...allow, Action: '*' }, 'all actions of all services'],
    [
      'allows everything of every service',
      { ...allow, Action: ['s3:GetObject', '*:*'] },
      'all actions of all services',
    ],
    ['allows all but some actions', { Effect: 'Allow', NotAction: 'iam:*', Resource: '*' }, 'with NotAction'],
    ['allows on all but some resources', { ...allow, Resource: undefined, NotResource: 'x' }, 'with NotResource'],
    ['reaches what hands out credentials', { ...allow, Action: 'S3:*' }, 'by s3:GetDataAccess a session obtains'],
    ['reaches tokens', { ...allow, Action: 'ecr:Get*', Resource: '*' }, 'by ecr:GetAuthorizationToken'],
  ])('%s is told so', (_, statement, says) => {
    expect(faultsOf(statement).join('\n')).toContain(says);
  });

  test('denies that itself, everywhere, does not reach it', () => {
    const deny = { Effect: 'Deny', Action: ['s3:GetData*'], Resource: '*' };
    expect(faultsOf({ ...allow, Action: 's3:*' }, deny)).toEqual([]);
    expect(
      faultsOf({ ...allow, Action: 's3:*' }, { ...deny, Condition: { Bool: { 'aws:SecureTransport': false } } }),
    ).toHaveLength(1);
    expect(faultsOf({ ...allow, Action: 's3:*' }, { ...deny, Resource: 'arn:aws:s3:::other' })).toHaveLength(1);
  });

  test('accepts it may have it, and nothing is accepted that is not there; the guarantee says so', async () => {
    const accepted = (Action: string) =>
      entitlementSchema.parse({ role, statements: [{ ...allow, Action }], derives_credentials: true });
    expect(widthFaults(accepted('s3:*'))).toEqual([]);
    expect(widthFaults(accepted('s3:GetObject'))).toEqual([expect.stringContaining('take it away')]);
    const target = targetSchema.parse({ account_id: account, region: 'eu-central-1', roles: [{ arn: role }] });
    const session = provider.connect(target, {
      ...{ target: 'lake', installation: '0a1b2c3d-0000-4000-8000-000000000001', log: () => {} },
      secret: () => {
        throw new Error('no secret is needed');
      },
    });
    const says = async (action: string) => (await session.guarantee(accepted(action), AbortSignal.timeout(5_000))).says;
    expect(await says('s3:*')).toContain('What it obtains by s3:GetDataAccess does not end with it.');
    expect(await says('s3:GetObject')).not.toContain('obtains');
    await session.close();
  });
});

test('a pattern covers another only whole, and whatever its case', () => {
  expect([covers('iam:*', 'iam:Put*'), covers('S3:get?bject', 's3:GetObject'), covers('*', 'a:b')]).toEqual([
    true,
    true,
    true,
  ]);
  expect([covers('iam:Put*', 'iam:*'), covers('s3:GetObject', 's3:GetObjects'), covers('s3.x:*', 's3ax:y')]).toEqual([
    ...[false, false, false],
  ]);
});

describe('the targets of a catalog', () => {
  const target = (name: string, over: object = {}) =>
    targetSchema.parse({
      ...{ account_id: account, region: 'eu-central-1', roles: [{ arn: role, clones: [{ arn: `${role}-${name}` }] }] },
      ...over,
    });

  test('may not share a role, nor a clone', () => {
    const found = provider.targetFaults?.(
      new Map([
        ['one', target('one')],
        ['two', target('two', { roles: [{ arn: `${role}-2`, clones: [{ arn: role }] }] })],
        ['three', target('three', { roles: [{ arn: `${role}-3` }] })],
      ]),
    );
    expect(Object.fromEntries(found ?? [])).toEqual({
      one: [`the role ${role} is one of two, too: two targets may not share a role`],
      two: [`the role ${role} is one of one, too: two targets may not share a role`],
      three: [],
    });
  });

  test('promise no session that STS does not give', async () => {
    const long = target('long', { max_session_seconds: 7_200 });
    expect(provider.targetFaults?.(new Map([['long', long]])).get('long')).toEqual([
      expect.stringContaining('is given 3600 s at most'),
    ]);
  });
});
