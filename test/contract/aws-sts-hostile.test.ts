import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ProviderError } from '../../src/provider.ts';
import { provider } from '../../providers/aws-sts/index.ts';
import { never } from '../../providers/aws-sts/boundary.ts';
import { epochOf } from '../../providers/aws-sts/document.ts';
import { assume, deriveFrom, makeBroker, type PolicyStatement } from '../support/aws-account.ts';
import { type AwsStandIn, startAwsStandIn } from '../support/aws-stand-in/server.ts';
import {
  type AwsHouse,
  furnish,
  mintGrant,
  OWN as READ,
  patience,
  read,
  readsMarch,
  rightsOn,
  viewOf,
} from './aws-sts-fixture.ts';

/** What AWS, and others who have hands on the account, do to a fence: on the stand-in, whose knobs can be turned. */

let aws: AwsStandIn;
let house: AwsHouse;
let config: ReturnType<typeof readsMarch>;
let session: ReturnType<AwsHouse['open']>;

beforeEach(async () => {
  aws = await startAwsStandIn();
  house = await furnish(aws);
  config = readsMarch(house.roles[0] ?? '');
  session = house.open();
});
afterEach(async () => {
  await session.close();
  await aws.stop();
});

const fences = () => [...aws.policies('agent').keys()].filter((name) => name.startsWith('mayfly-fence-'));
const puts = () => aws.calls.filter(({ action }) => action === 'PutRolePolicy').length;
const fault = (action: string, made: ReturnType<AwsStandIn['knobs']['fault']>, times = 1) => {
  let left = times;
  aws.knobs.fault = (call) => (call.action === action && left-- > 0 ? made : undefined);
};

async function errorOf(work: Promise<unknown>): Promise<ProviderError> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (error instanceof ProviderError) return error;
  throw new Error('no ProviderError', { cause: error });
}

describe('the fence', () => {
  test('is written once for many, and not again for those that it denies', async () => {
    const grants = await Promise.all(Array.from({ length: 10 }, () => mintGrant(session, config)));
    const refs = grants.map(({ ref }) => ref);
    const first = await session.fence(refs, patience(), viewOf());
    expect(first.every(({ ok }) => ok)).toBe(true);
    await session.fence(refs.slice(3), patience(), viewOf());
    expect({ puts: puts(), fences: fences().length }).toEqual({ puts: 1, fences: 1 });
    const verdicts = await session.verify(refs, patience());
    expect(verdicts.filter((verdict) => verdict.ok && verdict.contained)).toHaveLength(10);
  });

  test('is called in force only when it is: after its propagation, not after its acceptance', async () => {
    const grant = await mintGrant(session, config);
    aws.knobs.propagationMs = () => 3_000;
    await session.fence([grant.ref], patience(), viewOf());
    expect(await read(house, grant)).toBe('read');
    const began = Date.now();
    await expect
      .poll(() => session.verify([grant.ref], patience()), { timeout: 30_000 })
      .toMatchObject([{ contained: true }]);
    expect(Date.now() - began).toBeGreaterThan(1_500);
    expect(await read(house, grant)).toBe('AccessDenied');
  });

  test('that nobody knows to be written is written again by another name, and the late one can only deny', async () => {
    const [lost, next] = [await mintGrant(session, config), await mintGrant(session, config)];
    fault('PutRolePolicy', { kind: 'drop', done: true });
    const [failed] = await session.fence([lost.ref], patience(), viewOf(next));
    expect(failed).toMatchObject({ ok: false, error: { errorClass: 'retryable' } });
    const [again] = await session.fence([lost.ref], patience(), viewOf(next));
    expect(again).toMatchObject({ ok: true });
    expect(fences()).toHaveLength(2);
    expect(await read(house, lost)).toBe('AccessDenied');
    expect(await read(house, next)).toBe('read');
  });

  test('of a broker that died goes on denying, and a new one neither reads nor removes it before its time', async () => {
    const [before, after] = [await mintGrant(session, config), await mintGrant(session, config)];
    await session.fence([before.ref], patience(), viewOf(after));
    const successor = house.open();
    const [found] = await successor.verify([before.ref], patience());
    expect(found).toMatchObject({ ok: true, contained: false });
    await successor.fence([after.ref], patience(), viewOf());
    expect(fences()).toHaveLength(2);
    expect([await read(house, before), await read(house, after)]).toEqual(['AccessDenied', 'AccessDenied']);
    await successor.close();
  });

  test('stays while anything that it denies could still be used', async () => {
    const grant = await mintGrant(session, config, { seconds: 60 });
    const view = viewOf();
    await session.fence([grant.ref], patience(), view);
    expect(fences()).toHaveLength(1);
    const past = {
      ...grant.ref,
      deadline: new Date(Date.now() - 60_000),
      facts: { ...grant.ref.facts, deadline_ms: 0 },
    };
    const [reaped] = await session.reap([past], patience(), viewOf());
    expect(reaped).toMatchObject({ ok: true });
    expect(fences()).toHaveLength(1);
  });

  test('that another hand has touched is an alarm and stays as it is; the denials go on elsewhere', async () => {
    const [first, second] = [await mintGrant(session, config), await mintGrant(session, config)];
    await session.fence([first.ref], patience(), viewOf(second));
    const [name = ''] = fences();
    const foreign = [{ Effect: 'Allow' as const, Action: 's3:*', Resource: '*' }];
    aws.putPolicy('agent', name, foreign);
    const [verdict] = await session.verify([first.ref], patience());
    expect(verdict).toMatchObject({ ok: false, error: { errorClass: 'misconfigured' } });
    const outcomes = await session.fence([first.ref, second.ref], patience(), viewOf());
    expect(outcomes.every(({ ok }) => ok)).toBe(true);
    expect([await read(house, first), await read(house, second)]).toEqual(['AccessDenied', 'AccessDenied']);
    expect(aws.policies('agent').get(name)).toContain('"Allow"');
    expect(house.logged).toContainEqual(expect.objectContaining({ alert: 'foreign_fence' }));
    const refused = await errorOf(session.guarantee(config, patience()));
    expect(refused.errorClass).toBe('misconfigured');
  });

  test('beyond its budget takes the cut, which lets live what lives; and beyond that the whole role, and says whom', async () => {
    const small = house.open({ policy_characters: 3_000 });
    const grants = await Promise.all(Array.from({ length: 30 }, () => mintGrant(small, config)));
    const live = await mintGrant(small, config);
    const [first] = await small.fence(
      grants.map(({ ref }) => ref),
      patience(),
      viewOf(live),
    );
    expect(first).toMatchObject({ ok: true, evidence: { form: 'list-by-tag' } });
    const more = await Promise.all(Array.from({ length: 40 }, () => mintGrant(small, config)));
    const [wide] = await small.fence(
      more.map(({ ref }) => ref),
      patience(),
      viewOf(live),
    );
    expect(wide).toMatchObject({ ok: true, evidence: { form: 'role-wide' }, besides: [live.ref.handle] });
    expect(house.logged).toContainEqual(expect.objectContaining({ alert: 'fence_role_wide', lost: 1 }));
    await expect
      .poll(
        () =>
          small.verify(
            more.map(({ ref }) => ref),
            patience(),
          ),
        { timeout: 30_000 },
      )
      .toMatchObject(more.map(() => ({ contained: true })));
    expect(await read(house, live)).toBe('AccessDenied');
    // What is minted since is not cut, and stays so while the one that was cut ends, too.
    const fresh = await mintGrant(small, config);
    const [next] = await small.fence([live.ref], patience(), viewOf(fresh));
    expect(next).toMatchObject({ ok: true, evidence: { form: 'watermark' } });
    expect(next).not.toHaveProperty('besides');
    expect(await read(house, fresh)).toBe('read');
    await small.close();
  });
});

test('a session derives none for itself, also in ways that AWS adds one day', async () => {
  aws.putPolicy('agent', 'open', [{ Effect: 'Allow', Action: '*', Resource: '*' }]);
  const everything = [{ Effect: 'Allow', Action: '*', Resource: '*' }];
  const wide = provider.entitlementSchema.parse({ role: house.roles[0], statements: everything });
  const { keys } = await mintGrant(session, wide);
  await expect(deriveFrom(aws, keys)).rejects.toMatchObject({ name: 'AccessDenied' });
});

describe('each failure is told for what it is', () => {
  test.each([
    ['AccessDenied', 403, 'denied', false],
    ['Throttling', 400, 'retryable', true],
    ['LimitExceeded', 409, 'retryable', false],
    ['ConcurrentModification', 409, 'retryable', false],
    ['UnmodifiableEntity', 400, 'misconfigured', false],
    ['ServiceFailure', 500, 'retryable', true],
  ] as const)('%s', async (code, status, errorClass, wholeTarget) => {
    const grant = await mintGrant(session, config);
    fault('PutRolePolicy', { kind: 'error', status, code });
    const [outcome] = await session.fence([grant.ref], patience(), viewOf());
    expect(outcome).toMatchObject({ ok: false, error: { errorClass, wholeTarget } });
    const [again] = await session.fence([grant.ref], patience(), viewOf());
    expect(again).toMatchObject({ ok: true });
  });

  test('a deleted role, and one that was made anew, are misconfigured and never gone', async () => {
    const grant = await mintGrant(session, config);
    await aws.removeRole('agent');
    const [fenced] = await session.fence([grant.ref], patience(), viewOf());
    expect(fenced).toMatchObject({ ok: false, error: { errorClass: 'misconfigured' } });
    await furnish(aws, ['agent'], '').catch(() => {});
    await session.close();
    session = house.open();
    const [verdict] = await session.verify([grant.ref], patience());
    expect(verdict).toMatchObject({ ok: false, error: { errorClass: 'misconfigured' } });
  });

  test('a hang is given up in time, and nothing of a secret is in any error', async () => {
    fault('AssumeRole', { kind: 'hang' });
    const signal = AbortSignal.timeout(1_000);
    const began = Date.now();
    const grantId = '00000000-0000-4000-8000-000000000001';
    const deadline = new Date(Date.now() + 60_000);
    const ref = { grantId, handle: session.reserve(grantId), facts: null, deadline };
    const mintBy = new Date(Date.now() + 10_000);
    const request = { grantId, entitlement: 'aws/read', config, params: {}, deadline, notAfter: deadline, mintBy };
    const error = await errorOf(session.mint(ref, request, signal));
    expect(error.errorClass).toBe('retryable');
    expect(Date.now() - began).toBeLessThan(8_000);
    const shown = JSON.stringify([error, error.message, String(error.cause), error.stack]);
    expect(shown).not.toContain(house.broker.secretAccessKey);
    const late = await errorOf(session.mint(ref, { ...request, mintBy: new Date(Date.now() - 1) }, patience()));
    expect(late.errorClass).toBe('gone');
  });

  test('a probe that may not do its action proves nothing', async () => {
    const grant = await mintGrant(session, config);
    await session.fence([grant.ref], patience(), viewOf());
    aws.putPolicy('agent', 'no-probing', [{ Effect: 'Deny', Action: 's3:ListBucket', Resource: '*' }]);
    const [verdict] = await session.verify([grant.ref], patience());
    expect(verdict).toMatchObject({ ok: false, error: { errorClass: 'misconfigured' } });
  });
});

describe('check', () => {
  const failing = async () => {
    const steps = await session.check({ name: 'aws/read', config }, patience(60));
    return steps.filter(({ ok }) => !ok).map(({ step }) => step);
  };

  test('finds a broker that runs by long-term keys, and one whose own session has a source identity', async () => {
    const user = await aws.makeUser('operator', rightsOn([...house.roles, `arn:aws:iam::${aws.id}:role/broker`]));
    await session.close();
    session = house.open({}, user);
    expect(await failing()).toEqual(['broker']);
    await session.close();
    const RoleArn = `arn:aws:iam::${aws.id}:role/broker`;
    session = house.open(
      {},
      await assume(aws, user, { RoleArn, RoleSessionName: 'broker', SourceIdentity: 'operator' }),
    );
    const steps = await session.check({ name: 'aws/read', config }, patience(60));
    expect(steps).toContainEqual({
      ...{ step: 'mint', ok: false },
      says: expect.stringContaining('carries the source identity operator'),
    });
  });

  test('finds a clock that is off, and a role without its boundary', async () => {
    aws.knobs.clockOffsetMs = 20_000;
    expect(await failing()).toContain('clock');
    aws.knobs.clockOffsetMs = 0;
    await session.close();
    session = house.open({ permissions_boundary: `arn:aws:iam::${aws.id}:policy/another` });
    expect(await failing()).toContain('boundary');
  });

  test('finds a boundary that leaves a way to more, lacks what is granted, or bounds nothing', async () => {
    const checked = async (boundary: readonly PolicyStatement[]) => {
      const { arn } = await aws.makeRole({ name: 'bounded', boundary, policies: { own: READ } });
      const own = house.open({ roles: [{ arn }] }, await makeBroker(aws, 'bounded-broker', rightsOn([arn])));
      const steps = await own.check({ name: 'aws/read', config: readsMarch(arn) }, patience(60));
      await own.close();
      await aws.removeRole('bounded');
      return steps;
    };
    const deny = { Effect: 'Deny' as const, Action: [...never], Resource: '*' };
    const list = { Effect: 'Allow' as const, Action: 's3:ListBucket', Resource: '*' };
    const all = { Effect: 'Allow' as const, Action: '*', Resource: '*' };
    const open = await checked([all, { ...deny, Condition: { Bool: { 'aws:MultiFactorAuthPresent': 'false' } } }]);
    expect(open).toContainEqual({ step: 'never', ok: false, says: expect.stringContaining('iam:Add*') });
    expect(open).toContainEqual({
      step: 'bounds',
      ok: true,
      warns: true,
      says: expect.stringContaining('all actions'),
    });
    const old = never.filter((action) => !action.startsWith('sts:'));
    expect(await checked([all, { ...deny, Action: [...old, 'sts:AssumeRole*'] }])).toContainEqual({
      ...{ step: 'never', ok: false, says: expect.stringContaining('under no condition: sts:*') },
    });
    expect(await checked([list, deny])).toContainEqual({
      ...{ step: 'bounds', ok: false, says: expect.stringContaining('does not allow s3:GetObject') },
    });
  });

  test('finds a deadline that does not end a session, and writes nothing under a number that a writer would have to pass', async () => {
    await session.check({ name: 'aws/read', config }, patience(60));
    const names = aws.calls.flatMap(({ action, policy }) => (action === 'PutRolePolicy' ? [policy ?? ''] : []));
    expect(names).toHaveLength(1);
    expect(epochOf(names[0] ?? '')).toBeLessThan(BigInt(Date.parse('2020-01-01')) * 1000n);
    // What conditions look at is a minute behind what everybody is told.
    aws.advance(-3_600_000);
    const behind = await furnish(aws, ['behind'], 'late-');
    aws.advance(3_540_000);
    const late = behind.open();
    const steps = await late.check({ name: 'aws/read', config: readsMarch(behind.roles[0] ?? '') }, patience(60));
    expect(steps).toContainEqual({ step: 'deadline', ok: false, says: expect.stringContaining('let through') });
    await late.close();
  });

  test('finds nothing wrong with what `target prepare` prints, which is all that a broker needs', async () => {
    const { arn } = { arn: `arn:aws:iam::${aws.id}:role/printed` };
    const printing = provider.targetSchema.parse({
      ...house.config,
      ...{ roles: [{ arn }], permissions_boundary: `arn:aws:iam::${aws.id}:policy/printed-boundary` },
    });
    const granted = readsMarch(arn);
    const entitlements = [{ name: 'aws/read', maxTtlSeconds: 900, config: granted }];
    const text = await provider.preparation?.script(printing, entitlements, 'installation', null);
    const printed = JSON.parse(text ?? '');
    await aws.makeRole({
      ...{ name: 'printed', policies: { own: READ }, trust: printed.role_trust_policy.Statement },
      boundary: printed.permissions_boundary.policy.Statement,
    });
    const keys = await makeBroker(aws, 'mayfly-broker', printed.broker_policy.Statement);
    const { permissions_boundary: boundary } = printing;
    const own = house.open({ roles: [{ arn }], permissions_boundary: boundary }, keys);
    const steps = await own.check({ name: 'aws/read', config: granted }, patience(60));
    expect(steps.filter(({ ok, warns }) => !ok || warns === true)).toEqual([]);
    await own.close();
    // Whoever else, or without the tags that a fence goes by, gets nothing.
    const asked = { RoleArn: arn, RoleSessionName: 'stranger', SourceIdentity: 'abcdefghijkl' };
    const tags = [
      { Key: 'mayfly-grant', Value: 'abcdefghijkl' },
      { Key: 'mayfly-issued', Value: '1800000000' },
    ];
    const TransitiveTagKeys = ['mayfly-grant', 'mayfly-issued'];
    await assume(aws, keys, { ...asked, Tags: tags, TransitiveTagKeys });
    for (const wrong of [
      { ...asked },
      { ...asked, Tags: tags },
      { ...asked, Tags: tags, TransitiveTagKeys: ['mayfly-grant'] },
      { ...asked, Tags: tags.slice(0, 1), TransitiveTagKeys: ['mayfly-grant'] },
      { ...asked, Tags: [...tags, { Key: 'other', Value: 'x' }], TransitiveTagKeys },
      { ...asked, SourceIdentity: 'admin', Tags: tags, TransitiveTagKeys },
    ])
      await expect(assume(aws, keys, wrong)).rejects.toMatchObject({ name: 'AccessDenied' });
    await expect(assume(aws, house.broker, { ...asked, Tags: tags, TransitiveTagKeys })).rejects.toMatchObject({
      name: 'AccessDenied',
    });
  });
});
