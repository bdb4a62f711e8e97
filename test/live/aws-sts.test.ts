import {
  DeleteRolePolicyCommand,
  GetRoleCommand,
  GetRolePolicyCommand,
  IAMClient,
  ListRolePoliciesCommand,
  PutRolePolicyCommand,
} from '@aws-sdk/client-iam';
import { AssumeRoleCommand, GetCallerIdentityCommand, STSClient } from '@aws-sdk/client-sts';
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { epochOf, read as readFence } from '../../providers/aws-sts/document.ts';
import type { AwsEntitlement } from '../../providers/aws-sts/index.ts';
import type { Ref, Session } from '../../src/provider.ts';
import { documentOf, type PolicyStatement } from '../support/aws-account.ts';
import { liveAccount, type LiveGrant } from './account.ts';

/**
 * What the provider promises, and what was only read of AWS or shown on test servers, by its effect in a real account. What was measured is
 * printed. `providers/aws-sts/LIVE.md` says what the account must have.
 */
const aws = liveAccount(process.env);
const iam = new IAMClient(aws.settings);
const RoleName = aws.role.slice(aws.role.lastIndexOf('/') + 1);
/** Not in the name of the fence, which leaves it alone. */
const PolicyName = 'mayfly-live-test';
/** Long enough for an end to be worth a write, and short enough to wait for. */
const LIFE = 300;
let session: Session<AwsEntitlement>;

beforeAll(() => {
  session = aws.open();
});
afterAll(async () => {
  await iam.send(new DeleteRolePolicyCommand({ RoleName, PolicyName })).catch(() => {});
  await removeFences();
  await session.close();
});

const patience = (seconds = 120) => AbortSignal.timeout(seconds * 1000);

/** Tries it until it was refused for ten seconds on end: what is in force somewhere may not be elsewhere. */
async function untilRefused(what: string, grant: LiveGrant): Promise<void> {
  const began = performance.now();
  const [limit, quiet] = [aws.propagationSeconds * 5000, 10_000];
  let [first, last] = [Number.POSITIVE_INFINITY, began];
  for (let now = began; now - Math.max(last, began) < quiet; now = performance.now()) {
    const came = await aws.read(grant);
    if (came === 'read') last = performance.now();
    else if (came === 'AccessDenied') first = Math.min(first, performance.now());
    else throw new Error(`AWS answered ${came}`);
    if (last - began > limit) throw new Error(`it still works after ${(limit / 1000).toFixed(0)} s`);
    await sleep(200);
  }
  const after = (at: number) => `${((at - began) / 1000).toFixed(1)} s`;
  console.log(`${what}: refused first after ${after(first)}, let through for the last time after ${after(last)}`);
}

async function put(statements: readonly PolicyStatement[]): Promise<void> {
  await iam.send(new PutRolePolicyCommand({ RoleName, PolicyName, PolicyDocument: documentOf(statements) }));
}

const denyBy = (Condition: NonNullable<PolicyStatement['Condition']>): PolicyStatement[] => [
  { Effect: 'Deny', Action: '*', Resource: '*', Condition },
];

/** Those of this run: all that they deny is past its deadline then. */
async function removeFences(): Promise<void> {
  const { PolicyNames = [] } = await iam.send(new ListRolePoliciesCommand({ RoleName }));
  for (const name of PolicyNames.filter((one) => epochOf(one) !== null)) {
    const { PolicyDocument = '' } = await iam.send(new GetRolePolicyCommand({ RoleName, PolicyName: name }));
    const says = readFence(decodeURIComponent(PolicyDocument));
    if (says?.installation !== aws.mark) continue;
    await sleep(Math.max(0, says.until - Date.now()));
    await iam.send(new DeleteRolePolicyCommand({ RoleName, PolicyName: name }));
  }
}

test('check finds the account as it must be, and plays its canary', async () => {
  const steps = await session.check({ name: 'live/read-march', config: aws.entitlement }, patience(240));
  for (const { step, ok, says } of steps) console.log(`${ok ? 'ok' : 'NOT OK'} ${step}: ${says}`);
  expect(steps.filter(({ ok }) => !ok)).toEqual([]);
});

test('a credential does what it was granted and no more, and says how its policy was packed', async () => {
  const grant = await aws.mint(session, LIFE);
  expect(await aws.read(grant)).toBe('read');
  expect(await aws.read(grant, 'april')).toBe('AccessDenied');
  console.log(`session policy and tags are packed to ${String(grant.ref.facts?.['packed_policy_percent'])}%`);
});

test('an early end is in force in the promised time and stays so, its proof holds, and its sibling goes on', async () => {
  const [grant, sibling] = [await aws.mint(session, LIFE), await aws.mint(session, LIFE)];
  expect(await aws.read(grant)).toBe('read');
  const [fenced] = await session.fence([grant.ref], patience(), aws.view(sibling));
  expect(fenced).toMatchObject({ ok: true, evidence: { form: 'list' } });
  await untilRefused('early end by a list', grant);
  const proven = async () => (await session.verify([grant.ref], patience()))[0];
  await expect.poll(proven, { timeout: 120_000, interval: 1000 }).toMatchObject({ ok: true, contained: true });
  expect(await aws.read(sibling)).toBe('read');
  const who = new STSClient({ ...aws.settings, credentials: { ...grant.keys } });
  const said = await who.send(new GetCallerIdentityCommand({}));
  expect(said.Arn, 'a denied session may still ask who it is').toContain(grant.ref.handle);
});

test('a credential is dead at its own deadline, far below 900 s, with no write', async () => {
  const grant = await aws.mint(session, 60);
  expect(await aws.read(grant)).toBe('read');
  for (;;) {
    const asked = Date.now();
    const came = await aws.read(grant);
    if (came === 'AccessDenied') break;
    expect(came).toBe('read');
    expect(asked).toBeLessThan(grant.ref.deadline.getTime() + 5000);
    await sleep(200);
  }
  console.log(`refused ${((Date.now() - grant.ref.deadline.getTime()) / 1000).toFixed(1)} s after the deadline`);
  const [verdict] = await session.verify([grant.ref], patience());
  expect(verdict).toMatchObject({ ok: true });
});

test('a credential gets no other one, and no word with IAM', async () => {
  const grant = await aws.mint(session, LIFE);
  const sts = new STSClient({ ...aws.settings, credentials: { ...grant.keys } });
  const next = { RoleArn: aws.role, RoleSessionName: 'mayfly-live-test' };
  await expect(sts.send(new AssumeRoleCommand(next))).rejects.toMatchObject({ name: 'AccessDenied' });
  const own = new IAMClient({ ...aws.settings, credentials: { ...grant.keys } });
  await expect(own.send(new GetRoleCommand({ RoleName }))).rejects.toMatchObject({ name: 'AccessDenied' });
});

test('each of the keys that drive a fence denies alone: the source identity, the tag, the time of its mint', async () => {
  for (const key of ['aws:SourceIdentity', 'aws:PrincipalTag/mayfly-grant']) {
    const [grant, sibling] = [await aws.mint(session, LIFE), await aws.mint(session, LIFE)];
    await put(denyBy({ StringEquals: { [key]: [grant.ref.handle] } }));
    await untilRefused(`deny by ${key}`, grant);
    expect(await aws.read(sibling)).toBe('read');
  }
  const [grant, sibling] = [await aws.mint(session, LIFE), await aws.mint(session, LIFE)];
  const issued = Number(grant.ref.facts?.['issued_s']);
  const cut = (second: number) => ({ NumericLessThanIfExists: { 'aws:PrincipalTag/mayfly-issued': String(second) } });
  const only = { StringEquals: { 'aws:PrincipalTag/mayfly-grant': [grant.ref.handle] } };
  await put(denyBy({ ...cut(issued + 1), ...only }));
  await untilRefused('deny by the time of its mint', grant);
  expect(await aws.read(sibling)).toBe('read');
  await put(denyBy({ ...cut(issued), ...only }));
  await expect.poll(() => aws.read(grant), { timeout: 120_000, interval: 1000 }).toBe('read');
  await put(denyBy({ StringEquals: { 'aws:SourceIdentity': ['nobody'] } }));
});

test('the cut denies what is old and not listed, and neither what is listed nor what is new', async () => {
  const [ended, living] = [await aws.mint(session, LIFE), await aws.mint(session, LIFE)];
  // The cut stays a minute behind.
  await sleep(70_000);
  const little = aws.open({ policy_characters: await roomFor(2000) });
  const crowd = Array.from({ length: 60 }, (): Ref => {
    const grantId = randomUUID();
    return { ...ended.ref, grantId, handle: little.reserve(grantId) };
  });
  const [fenced] = await little.fence([ended.ref, ...crowd], patience(), aws.view(living));
  expect(fenced).toMatchObject({ ok: true, evidence: { form: 'watermark' } });
  const fresh = await aws.mint(session, LIFE);
  expect(await aws.read(fresh)).toBe('read');
  await untilRefused('early end by the cut', ended);
  expect([await aws.read(living), await aws.read(fresh)]).toEqual(['read', 'read']);
  await little.close();
});

test('more than 10 240 characters are refused, and whitespace is not counted', async () => {
  const listed = (count: number) =>
    denyBy({ StringEquals: { 'aws:SourceIdentity': Array(count).fill('nobody-000000') } });
  await expect(put(listed(700))).rejects.toMatchObject({ name: 'LimitExceededException' });
  const spaced = documentOf(listed(10)).replaceAll(',', `,${' '.repeat(2000)}`);
  await iam.send(new PutRolePolicyCommand({ RoleName, PolicyName, PolicyDocument: spaced }));
});

/** The quota that leaves so many characters beside what stands at the role. */
async function roomFor(characters: number): Promise<number> {
  const { PolicyNames = [] } = await iam.send(new ListRolePoliciesCommand({ RoleName }));
  let taken = 0;
  for (const name of PolicyNames) {
    const { PolicyDocument = '' } = await iam.send(new GetRolePolicyCommand({ RoleName, PolicyName: name }));
    taken += decodeURIComponent(PolicyDocument).replaceAll(/\s/g, '').length;
  }
  return taken + characters;
}
