import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { AssumeRoleCommand, GetCallerIdentityCommand, STSClient } from '@aws-sdk/client-sts';
import { provider } from '../../providers/aws-sts/index.ts';
import { accountOf, clientOf, makeBroker } from '../support/aws-account.ts';
import { startAwsStandIn } from '../support/aws-stand-in/server.ts';
import { findMiniStack, startMiniStack } from '../support/ministack.ts';
import { type AwsHouse, furnish, mintGrant, patience, read, readsMarch, rightsOn, viewOf } from './aws-sts-fixture.ts';

/** The AWS provider on two servers that have nothing in common, by the effect of what its credentials may do. */

const ministack = await findMiniStack();

const servers = [
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
] as const;

for (const [name, here, start] of servers) {
  describe.skipIf(!here)(`on ${name}`, () => {
    let house: AwsHouse;
    let stop: () => Promise<unknown>;
    let config: ReturnType<typeof readsMarch>;

    beforeAll(async () => {
      const server = await start();
      stop = server.stop;
      house = await furnish(server.account);
      config = readsMarch(house.roles[0] ?? '');
    }, 120_000);
    afterAll(() => stop?.());

    test('a credential does exactly what it was granted, and after its early end nothing, while its sibling goes on', async () => {
      const session = house.open();
      const grant = await mintGrant(session, config);
      const sibling = await mintGrant(session, config);
      expect(await read(house, grant)).toBe('read');
      expect(await read(house, grant, 'april')).toBe('AccessDenied');
      const [before] = await session.verify([grant.ref], patience());
      expect(before).toMatchObject({ ok: true, contained: false });

      const [fenced] = await session.fence([grant.ref], patience(), viewOf(sibling));
      expect(fenced).toMatchObject({ ok: true, evidence: { form: 'list' } });
      const [after] = await session.verify([grant.ref], patience());
      expect(after).toMatchObject({
        ok: true,
        contained: true,
        clean: false,
        evidence: { by: 'fence', probe_refused: 3 },
      });
      expect(await read(house, grant)).toBe('AccessDenied');
      expect(await read(house, sibling)).toBe('read');

      const [reaped] = await session.reap([grant.ref], patience(), viewOf(sibling));
      expect(reaped).toMatchObject({ ok: true, notBefore: expect.any(Date) });
      await session.close();
    }, 60_000);

    test('a credential is dead at its deadline, with no write at all', async () => {
      const session = house.open();
      const grant = await mintGrant(session, config, { seconds: 3 });
      expect(await read(house, grant)).toBe('read');
      await expect.poll(() => read(house, grant), { timeout: 20_000, interval: 200 }).toBe('AccessDenied');
      expect(Date.now()).toBeGreaterThan(grant.ref.deadline.getTime() - 2_000);
      const [fenced] = await session.fence([grant.ref], patience(), viewOf());
      expect(fenced).toMatchObject({ ok: true, evidence: { ends_natively_at: expect.any(String) } });
      await expect
        .poll(() => session.verify([grant.ref], patience()), { timeout: 20_000 })
        .toMatchObject([{ contained: true, clean: true, evidence: { by: 'deadline' } }]);
      await session.close();
    }, 60_000);

    test('a credential derives no other one, whatever its role and its entitlement allow', async () => {
      const everything = { Effect: 'Allow' as const, Action: '*', Resource: '*' };
      const { arn } = await house.account.makeRole({ name: 'open', policies: { own: [everything] } });
      const own = await makeBroker(house.account, 'open-broker', rightsOn([arn]));
      const session = house.open({ roles: [{ arn }] }, own);
      const wide = provider.entitlementSchema.parse({ role: arn, statements: [everything] });
      const grant = await mintGrant(session, wide);
      expect(await read(house, grant)).toBe('read');
      const sts = new STSClient(clientOf(house.account, grant.keys));
      const next = { RoleArn: arn, RoleSessionName: 'next' };
      await expect(sts.send(new AssumeRoleCommand(next))).rejects.toMatchObject({ name: 'AccessDenied' });
      await expect(sts.send(new GetCallerIdentityCommand({}))).resolves.toMatchObject({ Arn: expect.any(String) });
      await session.close();
    }, 60_000);

    test('check finds nothing wrong', async () => {
      const session = house.open();
      const steps = await session.check({ name: 'aws/read', config }, patience(60));
      expect(steps.filter(({ ok }) => !ok)).toEqual([]);
      expect(steps.map(({ step }) => step)).toEqual([
        ...['broker', 'clock', 'boundary', 'never', 'session', 'mint'],
        ...['use', 'deadline', 'never', 'fence', 'verify'],
      ]);
      await session.close();
    }, 90_000);
  });
}
