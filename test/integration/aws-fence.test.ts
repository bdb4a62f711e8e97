import { randomUUID } from 'node:crypto';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { read } from '../../providers/aws-sts/document.ts';
import { handleOf } from '../../providers/aws-sts/handle.ts';
import { provider } from '../../providers/aws-sts/index.ts';
import { type Ref, Secret } from '../../src/provider.ts';
import {
  assume,
  type AwsKeys,
  deriveFrom,
  makeBroker,
  type PolicyStatement,
  tryToRead,
} from '../support/aws-account.ts';
import { type AwsStandIn, startAwsStandIn } from '../support/aws-stand-in/server.ts';

/** Several brokers write the fence of one role, each its own policy: what they leave each other of the quota, and what they take over. */
const READ: PolicyStatement[] = [
  { Effect: 'Allow', Action: 's3:GetObject', Resource: 'arn:aws:s3:::reports/*' },
  { Effect: 'Allow', Action: 's3:ListBucket', Resource: 'arn:aws:s3:::reports' },
  { Effect: 'Allow', Action: 'sts:DecodeAuthorizationMessage', Resource: '*' },
];
const signal = AbortSignal.timeout(170_000);
const installation = randomUUID();

let aws: AwsStandIn;
let keys: AwsKeys;
let roleArn: string;
let writer: bigint;

beforeEach(async () => {
  [writer, passed] = [1n, 0];
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
  const logged: unknown[] = [];
  const session = provider.connect(connection, { target: 'aws', installation, secret, log: (one) => logged.push(one) });
  return {
    logged,
    reap: async (refs: readonly Ref[]) => await session.reap(refs, signal, { live: [], writer, at: new Date() }),
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
function grants(count: number, ago = 0): Ref[] {
  return Array.from({ length: count }, () => {
    const grantId = randomUUID();
    const facts = {
      ...{ account_id: aws.id, role_arn: roleArn, issued_s: Math.floor((Date.now() - ago) / 1000) },
      deadline_ms: Date.now() + 600_000,
    };
    return { grantId, handle: handleOf(grantId), facts, deadline: new Date(Date.now() + 600_000) };
  });
}

const sessionOf = async ({ handle, facts }: Ref) =>
  await assume(aws, keys, {
    RoleArn: roleArn,
    RoleSessionName: `mayfly-${handle}`,
    SourceIdentity: handle,
    Tags: [
      { Key: 'mayfly-grant', Value: handle },
      { Key: 'mayfly-issued', Value: String(facts?.['issued_s']) },
    ],
    TransitiveTagKeys: ['mayfly-grant', 'mayfly-issued'],
  });
const tried = async (session: AwsKeys) => await tryToRead(aws, session, 'reports', 'march');
const now = performance.now.bind(performance);
let passed = 0;
const letPass = (millis: number) => {
  passed += millis;
  vi.spyOn(performance, 'now').mockImplementation(() => now() + passed);
};
/** The next such request is not done before it is released. */
const hold = (action: string) => {
  let release = () => {};
  const until = new Promise<void>((resolve) => {
    release = resolve;
  });
  const held = new Promise<void>((resolve) => {
    aws.knobs.fault = (call) => {
      if (call.action !== action) return undefined;
      aws.knobs.fault = () => undefined;
      resolve();
      return { kind: 'held', until };
    };
  });
  return { held, release: () => release() };
};
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
  letPass(560_000);
  const last = grants(1);
  expect(await next.end(last)).toEqual([]);
  expect(await next.clean(last)).toEqual([]);
  expect(fences()).toContain(before);
  letPass(61_000);
  expect(await next.clean(last)).toEqual([]);
  expect(fences()).not.toContain(before);
  expect(session && (await tried(session))).toBe('AccessDenied');
});

it('leaves room for brokers that come and go, however much those before them have denied', async () => {
  const [ended, live] = [grants(60), grants(1)];
  const sessions = await Promise.all([ended, live].flatMap((refs) => refs.slice(-1)).map(sessionOf));
  expect(await startBroker().end(ended, live)).toEqual([]);
  const [first] = fences();
  for (let lives = 0; lives < 10; lives += 1) {
    letPass(10_000);
    expect(await startBroker().end(grants(2), live)).toEqual([]);
  }
  expect(fences()).toContain(first);
  expect(await Promise.all(sessions.map(tried))).toEqual(['AccessDenied', 'read']);
});

it('denies what one broker ended though another’s deletion of an old document arrives late', async () => {
  const [one, other] = [startBroker(), startBroker()];
  const [first, second, third] = [grants(1), grants(1), grants(1)];
  const [session] = await Promise.all(third.map(sessionOf));
  expect(await one.end(first)).toEqual([]);
  const [old] = fences();
  expect(await other.end(second)).toEqual([]);
  letPass(560_000);
  expect(await other.end(grants(1))).toEqual([]);
  letPass(61_000);
  const { held, release } = hold('DeleteRolePolicy');
  const cleaning = other.clean(second);
  await held;
  // Its claim lapses meanwhile, and the first one has the turn.
  expect(await one.end(third)).toEqual([]);
  expect(session && (await tried(session))).toBe('AccessDenied');
  release();
  await cleaning;
  await expect.poll(fences).not.toContain(old);
  expect(session && (await tried(session))).toBe('AccessDenied');
});

it('writes again what somebody took away, the next time that something of the role is cleaned', async () => {
  const broker = startBroker();
  const ended = grants(2);
  const [session] = await Promise.all(ended.map(sessionOf));
  expect(await broker.end(ended)).toEqual([]);
  const [taken = ''] = fences();
  aws.putPolicy('agent', taken, undefined);
  expect(session && (await tried(session))).toBe('read');
  letPass(61_000);
  expect(await broker.clean(ended.slice(1))).toEqual([]);
  expect(session && (await tried(session))).toBe('AccessDenied');
  expect(fences()).not.toContain(taken);
  expect(broker.logged).toContainEqual(expect.objectContaining({ alert: 'fence_missing', policies: [taken] }));
  const [first, second] = await broker.reap(ended);
  expect([first, second]).toMatchObject([{ notBefore: expect.any(Date) }, { notBefore: expect.any(Date) }]);
});

it('takes nothing amiss where a broker that began later took over what it wrote', async () => {
  const [one, other] = [startBroker(), startBroker()];
  const ended = grants(3);
  const [session] = await Promise.all(ended.map(sessionOf));
  expect(await one.end(ended)).toEqual([]);
  const [old] = fences();
  expect(await other.end(grants(1))).toEqual([]);
  letPass(560_000);
  expect(await other.end(grants(1))).toEqual([]);
  letPass(61_000);
  expect(await other.clean(grants(1))).toEqual([]);
  expect(fences()).not.toContain(old);
  expect(await one.clean(ended)).toEqual([]);
  expect(fences()).toHaveLength(1);
  expect(one.logged).toEqual([]);
  expect(session && (await tried(session))).toBe('AccessDenied');
});

it('cuts off nothing that was issued since it was told who lives, however long ago that was', async () => {
  const told = new Date(Date.now() - 600_000);
  expect(await startBroker().end(grants(250), [], told)).toEqual([]);
  const document = read(aws.policies('agent').get(fences()[0] ?? '') ?? '');
  expect(document).toMatchObject({ form: 'watermark', cut: expect.any(Number) });
  expect(document?.cut).toBeLessThanOrEqual(told.getTime() - 59_000);
});

it('cuts off with a grant what its session derived for itself, however much later that was issued', async () => {
  // Minted long ago; what is derived is issued now, after the cut.
  const [ended, live] = [grants(250, 600_000), grants(1, 600_000)];
  const [first, living] = await Promise.all([ended, live].flatMap((refs) => refs.slice(0, 1)).map(sessionOf));
  if (first === undefined || living === undefined) throw new Error('no session');
  // The role itself allows it here, so that it is the fence which is seen to refuse.
  const derived = await Promise.all([first, living].map(async (one) => await deriveFrom(aws, one)));
  expect(await Promise.all(derived.map(tried))).toEqual(['read', 'read']);
  expect(await startBroker().end(ended, live)).toEqual([]);
  const text = aws.policies('agent').get(fences()[0] ?? '') ?? '';
  expect(read(text)).toMatchObject({ form: 'watermark', denied: expect.not.arrayContaining([ended[0]?.handle]) });
  expect(await Promise.all([first, ...derived, living].map(tried))).toEqual([
    ...['AccessDenied', 'AccessDenied', 'read', 'read'],
  ]);
  // What bears no time is none of ours.
  const untagged = await assume(aws, keys, { RoleArn: roleArn, RoleSessionName: 'stranger' });
  expect(await tried(untagged)).toBe('AccessDenied');
});
