import { randomUUID } from 'node:crypto';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { read } from '../../providers/aws-sts/document.ts';
import { handleOf } from '../../providers/aws-sts/handle.ts';
import { provider } from '../../providers/aws-sts/index.ts';
import { type Ref, Secret } from '../../src/provider.ts';
import { assume, type AwsKeys, makeBroker, type PolicyStatement, tryToRead } from '../support/aws-account.ts';
import { type AwsStandIn, startAwsStandIn } from '../support/aws-stand-in/server.ts';

/** Several brokers write the fence of one role, each its own policy: what they leave each other of the quota, and what they take over. */
const READ: PolicyStatement[] = [
  { Effect: 'Allow', Action: 's3:GetObject', Resource: 'arn:aws:s3:::reports/*' },
  { Effect: 'Allow', Action: 's3:ListBucket', Resource: 'arn:aws:s3:::reports' },
];
const signal = AbortSignal.timeout(170_000);
const installation = randomUUID();

let aws: AwsStandIn;
let keys: AwsKeys;
let roleArn: string;
let writer: bigint;

beforeEach(async () => {
  writer = 1n;
  aws = await startAwsStandIn();
  await aws.makeBucket('reports', ['march']);
  roleArn = (await aws.makeRole({ name: 'agent', policies: { own: READ } })).arn;
  const actions = ['GetRole', 'ListRolePolicies', 'GetRolePolicy', 'PutRolePolicy', 'DeleteRolePolicy'];
  keys = await makeBroker(aws, 'broker', [
    { Effect: 'Allow', Action: ['sts:AssumeRole', 'sts:SetSourceIdentity', 'sts:TagSession'], Resource: roleArn },
    { Effect: 'Allow', Action: actions.map((action) => `iam:${action}`), Resource: roleArn },
  ]);
});
afterEach(async () => {
  await aws.stop();
});

function startBroker() {
  const connection = provider.targetSchema.parse({
    account_id: aws.id,
    region: aws.region,
    roles: [{ arn: roleArn }],
    broker: { access_key_id: 'env:KEY', secret_access_key: 'env:SECRET', session_token: 'env:TOKEN' },
    endpoints: { sts: aws.endpoint, iam: aws.endpoint, s3: aws.endpoint },
    probe: { action: 's3:ListBucket', bucket: 'reports' },
  });
  const secrets: Readonly<Record<string, string>> = {
    'env:KEY': keys.accessKeyId,
    'env:SECRET': keys.secretAccessKey,
    'env:TOKEN': keys.sessionToken ?? '',
  };
  const secret = (reference: string) => new Secret(secrets[reference] ?? '');
  const session = provider.connect(connection, { target: 'aws', installation, secret, log: () => {} });
  return {
    async end(refs: readonly Ref[], live: readonly Ref[] = [], at = new Date()) {
      writer += 1n;
      const outcomes = await session.fence(refs, signal, { live, writer, at });
      return outcomes.filter(({ ok }) => !ok);
    },
    async clean(refs: readonly Ref[]) {
      writer += 1n;
      const outcomes = await session.reap(refs, signal, { live: [], writer, at: new Date() });
      return outcomes.filter(({ ok }) => !ok);
    },
  };
}

/** As a broker keeps them that has just minted them. */
function grants(count: number): Ref[] {
  return Array.from({ length: count }, () => {
    const grantId = randomUUID();
    const issued = Date.now();
    const facts = {
      ...{ account_id: aws.id, role_arn: roleArn, issued_from_ms: issued - 2000, issued_by_ms: issued + 30_000 },
      deadline_ms: Date.now() + 600_000,
    };
    return { grantId, handle: handleOf(grantId), facts, deadline: new Date(Date.now() + 600_000) };
  });
}

const sessionOf = async ({ handle }: Ref) =>
  await assume(aws, keys, {
    RoleArn: roleArn,
    RoleSessionName: `mayfly-${handle}`,
    SourceIdentity: handle,
    Tags: [{ Key: 'mayfly-grant', Value: handle }],
    TransitiveTagKeys: ['mayfly-grant'],
  });
const tried = async (session: AwsKeys) => await tryToRead(aws, session, 'reports', 'march');
const fences = () => [...aws.policies('agent').keys()].filter((name) => name !== 'own');

it('leaves room for each of two brokers, and for the one that follows them', async () => {
  const [first, second, third] = [startBroker(), startBroker(), startBroker()];
  const [ends, more, last, live] = [grants(200), grants(200), grants(5), grants(1)];
  const sessions = await Promise.all([ends, more, last, live].flatMap((refs) => refs.slice(-1)).map(sessionOf));
  expect(await first.end(ends, live)).toEqual([]);
  expect(await second.end(more, live)).toEqual([]);
  expect(await third.end(last, live)).toEqual([]);
  expect(fences()).toHaveLength(3);
  expect(await Promise.all(sessions.map(tried))).toEqual(['AccessDenied', 'AccessDenied', 'AccessDenied', 'read']);
});

it('takes away what a broker before it wrote once its own has been in force for long, and not sooner', async () => {
  const ended = grants(1);
  const [session] = await Promise.all(ended.map(sessionOf));
  expect(await startBroker().end(ended)).toEqual([]);
  const [before] = fences();
  const next = startBroker();
  expect(await next.end(grants(1))).toEqual([]);
  expect(fences()).toContain(before);
  const later = performance.now() + 120_000;
  vi.spyOn(performance, 'now').mockImplementation(() => later);
  const [last] = [grants(1)];
  expect(await next.end(last)).toEqual([]);
  expect(await next.clean(last)).toEqual([]);
  expect(fences()).not.toContain(before);
  expect(session && (await tried(session))).toBe('AccessDenied');
});

it('cuts off nothing that was issued since it was told who lives, however long ago that was', async () => {
  const told = new Date(Date.now() - 600_000);
  expect(await startBroker().end(grants(250), [], told)).toEqual([]);
  const document = read(aws.policies('agent').get(fences()[0] ?? '') ?? '');
  expect(document).toMatchObject({ form: 'watermark', cut: expect.any(Number) });
  expect(document?.cut).toBeLessThanOrEqual(told.getTime() - 59_000);
});
