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
      Action: expect.arrayContaining(['iam:Put*', 'iam:Pass*', 'sts:AssumeRole*']),
    },
  ]);
});

test('the roles trust the broker alone, for sessions that bear a handle', async () => {
  const { role_trust_policy: trust } = JSON.parse(await print());
  expect(trust.Statement).toEqual([
    {
      ...{ Sid: 'Mayfly', Effect: 'Allow', Principal: { AWS: target.broker_role } },
      Action: ['sts:AssumeRole', 'sts:SetSourceIdentity', 'sts:TagSession'],
      Condition: { StringLike: { 'aws:RequestTag/mayfly-grant': '????????????' } },
    },
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
