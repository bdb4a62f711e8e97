import { GetRolePolicyCommand, IAMClient, ListRolePoliciesCommand, PutRolePolicyCommand } from '@aws-sdk/client-iam';
import { type AssumeRoleCommandInput, GetCallerIdentityCommand, STSClient } from '@aws-sdk/client-sts';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  type AwsKeys,
  assume,
  clientOf,
  documentOf,
  makeBroker,
  type PolicyStatement,
  tryToRead,
} from '../aws-account.ts';
import { type AwsStandIn, startAwsStandIn } from './server.ts';

const READ: PolicyStatement = { Effect: 'Allow', Action: 's3:GetObject', Resource: 'arn:aws:s3:::reports/*' };
const STS = ['sts:AssumeRole', 'sts:SetSourceIdentity', 'sts:TagSession'];
const IAM = ['iam:PutRolePolicy', 'iam:GetRolePolicy', 'iam:DeleteRolePolicy', 'iam:ListRolePolicies'];

let aws: AwsStandIn;
let broker: AwsKeys;
let RoleArn: string;

beforeEach(async () => {
  aws = await startAwsStandIn();
  await aws.makeBucket('reports', ['march']);
  RoleArn = (await aws.makeRole({ name: 'agent', policies: { own: [READ] } })).arn;
  broker = await makeBroker(aws, 'broker', [{ Effect: 'Allow', Action: [...STS, ...IAM], Resource: RoleArn }]);
});
afterEach(async () => {
  await aws.stop();
});

const grant = async (input: Partial<AssumeRoleCommandInput> = {}, by = broker) =>
  await assume(aws, by, { RoleArn, RoleSessionName: 'agent', ...input });
const read = async (keys: AwsKeys) => await tryToRead(aws, keys, 'reports', 'march');
const iam = (keys = broker) => new IAMClient(clientOf(aws, keys));
const fence = async (...ids: string[]) => {
  const statement = { Effect: 'Deny', Action: '*', Resource: '*' } as const;
  const PolicyDocument = documentOf([{ ...statement, Condition: { StringEquals: { 'aws:SourceIdentity': ids } } }]);
  await iam().send(new PutRolePolicyCommand({ RoleName: 'agent', PolicyName: 'fence', PolicyDocument }));
};

describe('propagation', () => {
  it('lets each write decide after its own time, and show after its own', async () => {
    aws.knobs.propagationMs = ({ document }) => (document?.includes('slow') === true ? 1_200_000 : 1000);
    aws.knobs.readLagMs = 600_000;
    const [slow, fast] = [await grant({ SourceIdentity: 'slow' }), await grant({ SourceIdentity: 'fast' })];
    await fence('slow', 'fast');
    const shown = async () => await iam().send(new GetRolePolicyCommand({ RoleName: 'agent', PolicyName: 'fence' }));
    expect([await read(slow), await read(fast)]).toEqual(['read', 'read']);
    await expect(shown()).rejects.toMatchObject({ name: 'NoSuchEntityException' });
    aws.advance(600_000);
    await expect(shown()).resolves.toHaveProperty('PolicyName', 'fence');
    // The later write arrives before the earlier one, which then is past.
    await fence('fast');
    aws.advance(1000);
    expect([await read(slow), await read(fast)]).toEqual(['read', 'AccessDenied']);
    aws.advance(1_200_000);
    expect([await read(slow), await read(fast)]).toEqual(['read', 'AccessDenied']);
  });
});

describe('source identity and transitive tags', () => {
  const chained = async (first: Partial<AssumeRoleCommandInput>, second: Partial<AssumeRoleCommandInput> = {}) => {
    const trusting = { Effect: 'Allow', Action: STS, Resource: '*' } as const;
    const next = await aws.makeRole({ name: 'next', policies: { own: [READ] } });
    aws.putPolicy('agent', 'chaining', [trusting]);
    return await grant({ RoleArn: next.arn, ...second }, await grant(first));
  };

  it('follow into the next role, where the fence finds them', async () => {
    const keys = await chained({
      SourceIdentity: 'grant-000001',
      Tags: [
        { Key: 'grant', Value: 'grant-000001' },
        { Key: 'own', Value: 'stays' },
      ],
      TransitiveTagKeys: ['grant'],
    });
    const deny = { Effect: 'Deny', Action: '*', Resource: '*' } as const;
    const denyBy = (key: string, value: string) =>
      aws.putPolicy('next', 'fence', [{ ...deny, Condition: { StringEquals: { [key]: value } } }]);
    expect(await read(keys)).toBe('read');
    denyBy('aws:PrincipalTag/own', 'stays');
    expect(await read(keys)).toBe('read');
    denyBy('aws:PrincipalTag/grant', 'grant-000001');
    expect(await read(keys)).toBe('AccessDenied');
    denyBy('aws:SourceIdentity', 'grant-000001');
    expect(await read(keys)).toBe('AccessDenied');
  });

  it('cannot be set again', async () => {
    const first = {
      SourceIdentity: 'grant-000001',
      Tags: [{ Key: 'grant', Value: '1' }],
      TransitiveTagKeys: ['grant'],
    };
    await expect(chained(first, { SourceIdentity: 'grant-000002' })).rejects.toMatchObject({ name: 'AccessDenied' });
    await expect(chained(first, { Tags: [{ Key: 'grant', Value: '2' }] })).rejects.toMatchObject({
      name: 'InvalidParameterValue',
    });
  });

  it('are refused to a role that does not trust them', async () => {
    const trust = {
      Effect: 'Allow',
      Principal: { AWS: `arn:aws:iam::${aws.id}:root` },
      Action: 'sts:AssumeRole',
    } as const;
    const { arn } = await aws.makeRole({ name: 'plain', trust: [trust] });
    const plain = await makeBroker(aws, 'other', [{ Effect: 'Allow', Action: STS, Resource: arn }]);
    await expect(grant({ RoleArn: arn }, plain)).resolves.toHaveProperty('sessionToken');
    await expect(grant({ RoleArn: arn, SourceIdentity: 'somebody' }, plain)).rejects.toMatchObject({
      name: 'AccessDenied',
    });
  });
});

describe('limits', () => {
  it('refuses more than 10 240 characters of inline policies without counting whitespace', async () => {
    const ids = (count: number) => Array.from({ length: count }, (_, at) => `g${String(at).padStart(11, '0')}`);
    await expect(fence(...ids(640))).resolves.toBeUndefined();
    await expect(fence(...ids(700))).rejects.toMatchObject({ name: 'LimitExceededException' });
    const PolicyDocument = documentOf([READ]).replaceAll(',', `,${' '.repeat(20_000)}`);
    await fence('one');
    await expect(
      iam().send(new PutRolePolicyCommand({ RoleName: 'agent', PolicyName: 'wide', PolicyDocument })),
    ).resolves.toHaveProperty('$metadata.httpStatusCode', 200);
  });

  it('refuses durations, session policies, tags and source identities that STS refuses', async () => {
    const refused = async (input: Partial<AssumeRoleCommandInput>, name: string) =>
      await expect(grant(input), JSON.stringify(input)).rejects.toMatchObject({ name });
    await refused({ DurationSeconds: 899 }, 'ValidationError');
    await refused({ DurationSeconds: 3601 }, 'ValidationError');
    await refused({ SourceIdentity: 'a' }, 'ValidationError');
    await refused({ SourceIdentity: 'not this one' }, 'ValidationError');
    await refused({ Tags: [{ Key: 'grant', Value: 'a*' }] }, 'ValidationError');
    await refused({ Policy: documentOf([READ]).padEnd(2049) }, 'ValidationError');
    await refused(
      { Policy: '{"Version":"2012-10-17","Statement":[{"Effect":"Perhaps"}]}' },
      'MalformedPolicyDocumentException',
    );
    aws.knobs.packedBytes = 50;
    await refused({ Policy: documentOf([READ]) }, 'PackedPolicyTooLargeException');
  });

  it('throttles IAM and STS, each by its own bucket', async () => {
    aws.knobs.rates.iam = { perSecond: 0.001, burst: 2 };
    await fence('one');
    await fence('two');
    await expect(fence('three')).rejects.toMatchObject({ name: 'Throttling' });
    await expect(grant()).resolves.toHaveProperty('sessionToken');
    aws.knobs.rates.sts = { perSecond: 0.001, burst: 0, code: 'ThrottlingException' };
    await expect(grant()).rejects.toMatchObject({ name: 'ThrottlingException' });
  });
});

it('keeps the sessions of a role that is gone from doing anything, also when another takes its name', async () => {
  const keys = await grant();
  await aws.removeRole('agent');
  expect(await read(keys)).toBe('InvalidAccessKeyId');
  await expect(fence('one')).rejects.toMatchObject({ name: 'NoSuchEntityException' });
  await expect(grant()).rejects.toMatchObject({ name: 'AccessDenied' });
  await aws.makeRole({ name: 'agent', policies: { own: [READ] } });
  expect([await read(keys), await read(await grant())]).toEqual(['InvalidAccessKeyId', 'read']);
});

it('ends sessions when they expire, by its own clock', async () => {
  const keys = await grant({ DurationSeconds: 900 });
  aws.advance(600_000);
  expect(await read(keys)).toBe('read');
  aws.advance(300_000);
  expect(await read(keys)).toBe('ExpiredToken');
});

it('refuses signatures of a clock that is far from its own, and says its own time', async () => {
  aws.knobs.clockOffsetMs = 20_000;
  const { $metadata } = await new STSClient(clientOf(aws, broker)).send(new GetCallerIdentityCommand({}));
  expect($metadata.httpStatusCode).toBe(200);
  aws.knobs.clockOffsetMs = 400_000;
  await expect(grant()).rejects.toMatchObject({ name: 'SignatureDoesNotMatch' });
});

it('takes a permission away from a running broker', async () => {
  await fence('one');
  aws.putPolicy('broker', 'own', [{ Effect: 'Allow', Action: STS, Resource: RoleArn }]);
  await expect(fence('two')).rejects.toMatchObject({ name: 'AccessDenied' });
  expect(aws.policies('agent').get('fence')).toContain('one');
});

it('refuses, hangs, drops and garbles what a test says, before or after doing it', async () => {
  const names = async () => (await iam().send(new ListRolePoliciesCommand({ RoleName: 'agent' }))).PolicyNames;
  const put = (PolicyName: string, abortSignal?: AbortSignal) =>
    iam().send(
      new PutRolePolicyCommand({ RoleName: 'agent', PolicyName, PolicyDocument: documentOf([READ]) }),
      abortSignal === undefined ? {} : { abortSignal },
    );
  const faults = {
    refused: { kind: 'error', status: 500, code: 'ServiceFailure' },
    dropped: { kind: 'drop' },
    'dropped-done': { kind: 'drop', done: true },
    garbled: { kind: 'garbled', body: '<PutRolePolicyResponse><Response' },
    hung: { kind: 'hang', done: true },
    slow: { kind: 'slow', ms: 20 },
  } as const;
  aws.knobs.fault = ({ policy = '' }) => Object.entries(faults).find(([name]) => name === policy)?.[1];
  await expect(put('refused')).rejects.toMatchObject({ name: 'ServiceFailureException' });
  await expect(put('dropped')).rejects.toThrow(/hang up|ECONNRESET/);
  await expect(put('dropped-done')).rejects.toThrow(/hang up|ECONNRESET/);
  await expect(put('garbled')).rejects.toThrow(/expected|closing|tag|parse|unclosed/i);
  const controller = new AbortController();
  const hung = put('hung', controller.signal);
  await expect.poll(() => aws.policies('agent').has('hung')).toBe(true);
  controller.abort();
  await expect(hung).rejects.toMatchObject({ name: 'AbortError' });
  await expect(put('slow')).resolves.toHaveProperty('$metadata.httpStatusCode', 200);
  expect(await names()).toEqual(['dropped-done', 'hung', 'own', 'slow']);
});

it('lets a policy ask for the boundary of the role that is written to', async () => {
  const bounded = await aws.makeRole({ name: 'bounded', policies: { own: [READ] }, boundary: [READ] });
  const boundary = { StringEquals: { 'iam:PermissionsBoundary': `arn:aws:iam::${aws.id}:policy/bounded-boundary` } };
  const careful = await makeBroker(aws, 'careful', [
    { Effect: 'Allow', Action: 'iam:PutRolePolicy', Resource: [bounded.arn, RoleArn], Condition: boundary },
  ]);
  const put = (RoleName: string) =>
    iam(careful).send(new PutRolePolicyCommand({ RoleName, PolicyName: 'fence', PolicyDocument: documentOf([READ]) }));
  await expect(put('bounded')).resolves.toHaveProperty('$metadata.httpStatusCode', 200);
  await expect(put('agent')).rejects.toMatchObject({ name: 'AccessDenied' });
});
