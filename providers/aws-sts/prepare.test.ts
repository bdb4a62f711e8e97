import { expect, test } from 'vitest';
import { script } from './prepare.ts';
import { entitlementSchema, targetSchema } from './schema.ts';

const role = 'arn:aws:iam::123456789012:role/lake-reader';
const clone = `${role}-00`;
const target = targetSchema.parse({
  ...{ account_id: '123456789012', region: 'eu-central-1', roles: [{ arn: role, clones: [{ arn: clone }] }] },
  ...{ broker_role: 'arn:aws:iam::123456789012:role/broker', probe: { action: 's3:ListBucket', bucket: 'probes' } },
});
const entitlements = [
  {
    name: 'lake/read',
    maxTtlSeconds: 900,
    config: entitlementSchema.parse({
      role,
      statements: [{ Sid: 'Read', Effect: 'Allow', Action: 's3:GetObject', Resource: 'arn:aws:s3:::lake/${tenant}/*' }],
    }),
  },
];
const print = (format?: string) => script(target, entitlements, 'installation', null, undefined, format);

test('the broker may write only to its roles, and only while they have their boundary', async () => {
  const { broker_policy: broker, permissions_boundary: boundary } = JSON.parse(await print());
  const fence = broker.Statement.find(({ Sid }: { Sid: string }) => Sid === 'Fence');
  expect(fence).toEqual({
    ...{
      Sid: 'Fence',
      Effect: 'Allow',
      Action: ['iam:PutRolePolicy', 'iam:DeleteRolePolicy'],
      Resource: [role, clone],
    },
    Condition: { StringEquals: { 'iam:PermissionsBoundary': boundary.arn } },
  });
});

test('the boundary has what the entitlements may at most, the probe, and never a way to more', async () => {
  const { permissions_boundary: boundary } = JSON.parse(await print());
  expect(boundary.policy.Statement).toEqual([
    { Effect: 'Allow', Action: 's3:GetObject', Resource: 'arn:aws:s3:::lake/*/*' },
    { Sid: 'Probe', Effect: 'Allow', Action: 's3:ListBucket', Resource: 'arn:aws:s3:::probes' },
    {
      ...{ Sid: 'Never', Effect: 'Deny', Resource: '*' },
      Action: expect.arrayContaining(['iam:Put*', 'iam:Pass*', 'sts:*', 'signin:*']),
    },
  ]);
});

test('the roles trust the broker alone, for sessions that bear handle and time in tags that are inherited, and no other', async () => {
  const { role_trust_policy: trust } = JSON.parse(await print());
  const tags = { 'aws:RequestTag/mayfly-grant': '????????????', 'aws:RequestTag/mayfly-issued': '??????????' };
  const common = { Effect: 'Allow', Principal: { AWS: target.broker_role } };
  expect(trust.Statement).toEqual([
    { ...common, Sid: 'Assume', Action: 'sts:AssumeRole', Condition: { StringLike: tags } },
    {
      ...{ ...common, Sid: 'Identify', Action: 'sts:SetSourceIdentity' },
      Condition: { StringLike: { 'sts:SourceIdentity': '????????????' } },
    },
    {
      ...{ ...common, Sid: 'Tag', Action: 'sts:TagSession' },
      Condition: {
        StringLike: tags,
        'ForAllValues:StringEquals': { 'aws:TagKeys': ['mayfly-grant', 'mayfly-issued'] },
        'ForAnyValue:StringEquals': { 'sts:TransitiveTagKeys': 'mayfly-grant' },
        'ForAnyValue:StringLike': { 'sts:TransitiveTagKeys': 'mayfly-issued' },
      },
    },
  ]);
});

function withConditions(Condition: object) {
  const statements = [{ Effect: 'Allow', Action: 's3:ListBucket', Resource: 'arn:aws:s3:::lake', Condition }];
  return { name: 'lake/list', maxTtlSeconds: 900, config: entitlementSchema.parse({ role, statements }) };
}

test('a param in a condition is any value in the boundary, or no condition', async () => {
  const bounded = async (Condition: object) => {
    const printed = await script(target, [withConditions(Condition)], 'installation', null, undefined, undefined);
    return JSON.parse(printed).permissions_boundary.policy.Statement[0].Condition;
  };
  expect(await bounded({ StringEquals: { 's3:prefix': '${tenant}/', 'aws:PrincipalAccount': '1' } })).toEqual({
    StringLike: { 's3:prefix': '*/' },
    StringEquals: { 'aws:PrincipalAccount': '1' },
  });
  expect(await bounded({ 'ForAnyValue:StringEquals': { 'aws:TagKeys': ['${tenant}'] } })).toEqual({
    'ForAnyValue:StringLike': { 'aws:TagKeys': ['*'] },
  });
  for (const operator of ['NumericLessThan', 'DateLessThan', 'StringNotEquals', 'IpAddress', 'StringEqualsIgnoreCase'])
    expect(await bounded({ [operator]: { 's3:max-keys': '${most}' }, Bool: { 'aws:SecureTransport': true } })).toEqual({
      Bool: { 'aws:SecureTransport': true },
    });
  expect(await bounded({ StringNotLike: { 's3:prefix': '${tenant}*' } })).toBeUndefined();
});

test('a boundary that AWS would not take is not printed; what many entitlements have in common stands there once', async () => {
  const each = (resource: (index: number) => string) =>
    Array.from({ length: 150 }, (_, index) => ({
      ...{ name: `lake/${index}`, maxTtlSeconds: 900 },
      config: entitlementSchema.parse({
        role,
        statements: [{ Effect: 'Allow', Action: 's3:GetObject', Resource: resource(index) }],
      }),
    }));
  const printed = (some: ReturnType<typeof each>) => script(target, some, 'installation', null, undefined, undefined);
  await expect(printed(each((index) => `arn:aws:s3:::lake-${index}/*`))).rejects.toThrow('AWS takes 6144');
  const { permissions_boundary: boundary } = JSON.parse(await printed(each(() => 'arn:aws:s3:::lake/*')));
  expect(boundary.policy.Statement).toHaveLength(3);
});

test('in Terraform roles and boundary stand in the paths of their ARNs, each by a label of its own', async () => {
  const within = targetSchema.parse({
    ...{ account_id: '123456789012', region: 'eu-central-1', broker_role: 'arn:aws:iam::123456789012:role/broker' },
    roles: ['role/team/a.b', 'role/team/a_b', 'role/plain'].map((name) => ({
      arn: `arn:aws:iam::123456789012:${name}`,
    })),
    permissions_boundary: 'arn:aws:iam::123456789012:policy/team/bounds',
  });
  const printed = await script(within, [], 'installation', null, undefined, 'terraform');
  expect(printed.match(/aws_iam_role" "([^"]+)"/g)).toEqual([
    ...['aws_iam_role" "a_b"', 'aws_iam_role" "a_b_2"', 'aws_iam_role" "plain"'],
  ]);
  expect(printed.match(/path += "([^"]+)"/g)?.map((line) => line.replace(/ +/g, ' '))).toEqual([
    ...['path = "/team/"', 'path = "/team/"', 'path = "/team/"', 'path = "/"'],
  ]);
});

test('as Terraform it is the same, and says what must not be managed there; another format is none', async () => {
  const printed = await print('terraform');
  expect(printed).toContain('resource "aws_iam_role" "lake-reader-00"');
  expect(printed).toContain('aws_iam_role_policies_exclusive');
  const [, boundary = ''] = /mayfly_boundary" \{[^]*?<<-JSON\n([^]*?)\nJSON/.exec(printed) ?? [];
  expect(JSON.parse(boundary)).toEqual(JSON.parse(await print()).permissions_boundary.policy);
  await expect(print('yaml')).rejects.toThrow('there is no format yaml');
});
