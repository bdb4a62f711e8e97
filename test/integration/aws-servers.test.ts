import { GetCallerIdentityCommand, STSClient } from '@aws-sdk/client-sts';
import { DeleteRolePolicyCommand, GetRolePolicyCommand, IAMClient, PutRolePolicyCommand } from '@aws-sdk/client-iam';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startAwsStandIn } from '../support/aws-stand-in/server.ts';
import {
  accountOf,
  assume,
  type AwsAccount,
  type AwsKeys,
  clientOf,
  documentOf,
  makeBroker,
  type PolicyStatement,
  tryToRead,
} from '../support/aws-account.ts';
import { findMiniStack, startMiniStack } from '../support/ministack.ts';

/** What the tests of the provider rest on: two servers that have nothing in common enforce the same policies. */
const BUCKET = 'reports';
const READ: PolicyStatement = { Effect: 'Allow', Action: 's3:GetObject', Resource: `arn:aws:s3:::${BUCKET}/*` };
const ministack = await findMiniStack();

interface Started {
  readonly account: AwsAccount;
  stop(): Promise<void>;
}
const servers: readonly (readonly [string, boolean, () => Promise<Started>])[] = [
  [
    'MiniStack',
    ministack !== undefined,
    async () => {
      const server = await startMiniStack(ministack ?? '');
      return { account: accountOf(server), stop: () => server.stop() };
    },
  ],
  [
    'the stand-in',
    true,
    async () => {
      const account = await startAwsStandIn();
      return { account, stop: () => account.stop() };
    },
  ],
];

for (const [name, here, start] of servers) {
  describe.skipIf(!here)(`${name}, as AWS,`, () => {
    let server: Started;
    let account: AwsAccount;
    let broker: AwsKeys;
    let RoleArn: string;

    beforeAll(async () => {
      server = await start();
      account = server.account;
      await account.makeBucket(BUCKET, ['march', 'april']);
      RoleArn = (await account.makeRole({ name: 'agent', policies: { own: [READ] } })).arn;
      const sts = ['sts:AssumeRole', 'sts:SetSourceIdentity', 'sts:TagSession'];
      const iam = ['iam:PutRolePolicy', 'iam:GetRolePolicy', 'iam:DeleteRolePolicy'];
      broker = await makeBroker(account, 'broker', [
        { Effect: 'Allow', Action: sts, Resource: RoleArn },
        { Effect: 'Allow', Action: iam, Resource: RoleArn },
      ]);
    });
    afterAll(async () => {
      await server.stop();
    });

    const grant = async (id: string, policy: readonly PolicyStatement[] = [READ], minted?: string) =>
      await assume(account, broker, {
        RoleArn,
        RoleSessionName: id,
        SourceIdentity: id,
        Tags: [{ Key: 'grant', Value: id }, ...(minted === undefined ? [] : [{ Key: 'minted', Value: minted }])],
        TransitiveTagKeys: ['grant'],
        DurationSeconds: 900,
        Policy: documentOf(policy),
      });
    const read = async (keys: AwsKeys, key = 'march') => await tryToRead(account, keys, BUCKET, key);
    const put = async (statements: readonly PolicyStatement[]) => {
      const PolicyDocument = documentOf(statements);
      await new IAMClient(clientOf(account, broker)).send(
        new PutRolePolicyCommand({ RoleName: 'agent', PolicyName: 'fence', PolicyDocument }),
      );
    };
    const deny = (condition: PolicyStatement['Condition']): PolicyStatement => ({
      Effect: 'Deny',
      Action: '*',
      Resource: '*',
      ...(condition !== undefined && { Condition: condition }),
    });

    it('denies the session whose tag the fence names, and no sibling, until the fence is taken away', async () => {
      const [ended, sibling] = [await grant('tag-ended-01'), await grant('tag-other-01')];
      expect([await read(ended), await read(sibling)]).toEqual(['read', 'read']);
      await put([deny({ StringEquals: { 'aws:PrincipalTag/grant': ['tag-ended-01'] } })]);
      expect([await read(ended), await read(sibling)]).toEqual(['AccessDenied', 'read']);
      const shown = await new IAMClient(clientOf(account, broker)).send(
        new GetRolePolicyCommand({ RoleName: 'agent', PolicyName: 'fence' }),
      );
      expect(decodeURIComponent(shown.PolicyDocument ?? '')).toContain('tag-ended-01');
      await new IAMClient(clientOf(account, broker)).send(
        new DeleteRolePolicyCommand({ RoleName: 'agent', PolicyName: 'fence' }),
      );
      expect(await read(ended)).toBe('read');
    });

    it('denies by `aws:userid`, and by the time of issue', async () => {
      const [ended, sibling] = [await grant('uid-ended-01'), await grant('uid-other-01')];
      await put([deny({ StringLike: { 'aws:userid': ['*:uid-ended-01'] } })]);
      expect([await read(ended), await read(sibling)]).toEqual(['AccessDenied', 'read']);
      const later = new Date(Date.now() + 3_600_000).toISOString();
      await put([deny({ DateLessThan: { 'aws:TokenIssueTime': later } })]);
      expect([await read(ended), await read(sibling)]).toEqual(['AccessDenied', 'AccessDenied']);
      await put([
        deny({
          DateLessThan: { 'aws:TokenIssueTime': later },
          StringNotEquals: { 'aws:PrincipalTag/grant': ['uid-other-01'] },
        }),
      ]);
      expect([await read(ended), await read(sibling)]).toEqual(['AccessDenied', 'read']);
      await put([deny({ StringEquals: { 'aws:PrincipalTag/grant': ['nobody'] } })]);
    });

    it('denies by a number in a tag, and by that it is not there', async () => {
      const [old, fresh] = [await grant('old-00000001', [READ], '999'), await grant('fresh-000001', [READ], '1000')];
      const none = await grant('untagged-001');
      await put([deny({ NumericLessThanIfExists: { 'aws:PrincipalTag/minted': '1000' } })]);
      expect([await read(old), await read(fresh), await read(none)]).toEqual(['AccessDenied', 'read', 'AccessDenied']);
      await put([
        deny({
          NumericLessThanIfExists: { 'aws:PrincipalTag/minted': '1000' },
          StringNotEquals: { 'aws:PrincipalTag/grant': ['old-00000001'] },
        }),
      ]);
      expect([await read(old), await read(fresh), await read(none)]).toEqual(['read', 'read', 'AccessDenied']);
      await put([deny({ StringEquals: { 'aws:PrincipalTag/grant': ['nobody'] } })]);
    });

    it('lets a session policy narrow the role and end it at the deadline, and not widen it', async () => {
      const until = (instant: number) =>
        deny({ DateGreaterThanEquals: { 'aws:CurrentTime': new Date(instant).toISOString() } });
      const narrow = await grant('narrow-00001', [{ ...READ, Resource: `arn:aws:s3:::${BUCKET}/april` }]);
      expect([await read(narrow), await read(narrow, 'april')]).toEqual(['AccessDenied', 'read']);
      const wide = await grant('wide-0000001', [{ Effect: 'Allow', Action: 's3:*', Resource: '*' }]);
      await account.makeBucket('secrets', ['plan']);
      expect(await tryToRead(account, wide, 'secrets', 'plan')).toBe('AccessDenied');
      expect(await read(await grant('alive-000001', [READ, until(Date.now() + 600_000)]))).toBe('read');
      expect(await read(await grant('dead-0000001', [READ, until(Date.now() - 2000)]))).toBe('AccessDenied');
    });

    it('lets the permissions boundary bound the role', async () => {
      const { arn } = await account.makeRole({
        name: 'bounded',
        policies: { own: [{ Effect: 'Allow', Action: 's3:*', Resource: '*' }] },
        boundary: [{ ...READ, Resource: `arn:aws:s3:::${BUCKET}/april` }],
      });
      const starter = await account.makeUser('bounded-user', [{ Effect: 'Allow', Action: 'sts:*', Resource: arn }]);
      const keys = await assume(account, starter, { RoleArn: arn, RoleSessionName: 'bounded' });
      expect([await read(keys), await read(keys, 'april')]).toEqual(['AccessDenied', 'read']);
    });

    it('tells a fenced session who it is all the same', async () => {
      const ended = await grant('who-ended-01');
      await put([deny({ StringEquals: { 'aws:PrincipalTag/grant': ['who-ended-01'] } })]);
      expect(await read(ended)).toBe('AccessDenied');
      const said = await new STSClient(clientOf(account, ended)).send(new GetCallerIdentityCommand({}));
      expect(said.Arn).toBe(`arn:aws:sts::${account.id}:assumed-role/agent/who-ended-01`);
      expect(said.UserId).toMatch(/^AROA[0-9A-Z]{17}:who-ended-01$/);
    });

    it('refuses a role that does not trust the caller, tags that it may not set, and keys that are not its own', async () => {
      const trust = (Action: string): PolicyStatement[] => [
        { Effect: 'Allow', Principal: { AWS: `arn:aws:iam::${account.id}:root` }, Action },
      ];
      await account.makeRole({ name: 'untagged', trust: trust('sts:AssumeRole') });
      await account.makeRole({ name: 'stranger', trust: trust('sts:AssumeRoleWithSAML') });
      const starter = await account.makeUser('any-role', [{ Effect: 'Allow', Action: 'sts:*', Resource: '*' }]);
      const take = async (role: string, Tags?: { Key: string; Value: string }[], by = starter) =>
        await assume(account, by, {
          RoleArn: `arn:aws:iam::${account.id}:role/${role}`,
          RoleSessionName: 'anybody',
          ...(Tags !== undefined && { Tags }),
        });
      await expect(take('stranger')).rejects.toMatchObject({ name: 'AccessDenied' });
      await expect(take('nowhere')).rejects.toMatchObject({ name: 'AccessDenied' });
      await expect(take('untagged')).resolves.toHaveProperty('sessionToken');
      await expect(take('untagged', [{ Key: 'grant', Value: 'x' }])).rejects.toMatchObject({ name: 'AccessDenied' });
      await expect(take('untagged', [], { ...starter, accessKeyId: 'AKIA0000000000000000' })).rejects.toMatchObject({
        name: 'InvalidClientTokenId',
      });
      await expect(take('untagged', [], { ...broker, sessionToken: 'no' })).rejects.toMatchObject({
        name: 'InvalidClientTokenId',
      });
      await expect(grant('fenced-iam-1')).resolves.toHaveProperty('sessionToken');
    });

    it('knows no policy and no role that is gone', async () => {
      const iam = new IAMClient(clientOf(account, broker));
      const get = async (RoleName: string) =>
        await iam.send(new GetRolePolicyCommand({ RoleName, PolicyName: 'nothing' }));
      await expect(get('agent')).rejects.toMatchObject({ name: 'NoSuchEntityException' });
      await expect(get('broker')).rejects.toMatchObject({ name: 'AccessDenied' });
    });
  });
}
