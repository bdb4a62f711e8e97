import { afterEach, beforeEach, expect, test } from 'vitest';
import { type AwsHouse, furnish, mintGrant, patience, read, readsMarch, viewOf } from '../contract/aws-sts-fixture.ts';
import { type AwsStandIn, startAwsStandIn } from '../support/aws-stand-in/server.ts';

/** What shows that a fence of AWS is in force, and what only looks like it. */

let aws: AwsStandIn;
let house: AwsHouse;
let session: ReturnType<AwsHouse['open']>;

beforeEach(async () => {
  aws = await startAwsStandIn();
  house = await furnish(aws);
  session = house.open();
});
afterEach(async () => {
  await session.close();
  await aws.stop();
});

const mint = async () => await mintGrant(session, readsMarch(house.roles[0] ?? ''), { seconds: 3000 });
const NEVER = 1_000_000_000;
/** Access keys that asked what probes ask, each once. */
const asked = (from: number, to?: number) => [
  ...new Set(
    aws.calls
      .slice(from, to)
      .filter(({ action }) => action === 'ListBucket')
      .map(({ accessKeyId }) => accessKeyId),
  ),
];
const lastWrite = () => aws.calls.findLastIndex(({ action }) => action === 'PutRolePolicy');

test('a probe that comes to its own end is no proof, where the fence is never in force', async () => {
  const grant = await mint();
  aws.knobs.propagationMs = () => NEVER;
  expect(await session.fence([grant.ref], patience(), viewOf())).toMatchObject([{ ok: true }]);
  // It has some seconds left of its ten minutes.
  aws.knobs.clockOffsetMs = 593_000;
  const until = performance.now() + 12_000;
  while (performance.now() < until) {
    const [verdict] = await session.verify([grant.ref], patience(30));
    expect(verdict).not.toMatchObject({ contained: true });
  }
  aws.knobs.clockOffsetMs = 0;
  expect(await read(house, grant)).toBe('read');
});

test('nor one that comes to it while it is asked, on a machine that slept', async () => {
  const grant = await mint();
  aws.knobs.propagationMs = () => NEVER;
  expect(await session.fence([grant.ref], patience(), viewOf())).toMatchObject([{ ok: true }]);
  let asks = 0;
  aws.knobs.fault = ({ action }) => {
    if (action === 'ListBucket' && ++asks === 3) aws.knobs.clockOffsetMs = 700_000;
    return undefined;
  };
  for (let left = 5; left > 0; left -= 1) {
    const [verdict] = await session.verify([grant.ref], patience(30));
    expect(verdict).not.toMatchObject({ contained: true });
  }
  expect(asks).toBeGreaterThanOrEqual(3);
});

test('a role that refuses everybody for a moment is no proof', async () => {
  const grant = await mint();
  aws.knobs.propagationMs = () => NEVER;
  expect(await session.fence([grant.ref], patience(), viewOf())).toMatchObject([{ ok: true }]);
  let asks = 0;
  aws.knobs.fault = ({ action }) =>
    action === 'ListBucket' && ++asks <= 3 ? { kind: 'error', status: 403, code: 'AccessDenied' } : undefined;
  const [verdict] = await session.verify([grant.ref], patience(30));
  expect(verdict).toMatchObject({ ok: false, error: { errorClass: 'misconfigured' } });
  expect(await read(house, grant)).toBe('read');
});

test('who is refused was let through before the write, and who stands beside it is refused by the next', async () => {
  const end = async () => {
    const grant = await mint();
    const began = aws.calls.length;
    expect(await session.fence([grant.ref], patience(), viewOf())).toMatchObject([{ ok: true }]);
    const written = lastWrite();
    await expect.poll(() => session.verify([grant.ref], patience())).toMatchObject([{ contained: true }]);
    return { before: asked(0, written), after: asked(written), asksAfter: aws.calls.length - began };
  };
  const first = await end();
  expect(first.before).toHaveLength(1);
  const [denied = ''] = first.before;
  expect(first.after).toContain(denied);
  const [sibling = ''] = first.after.filter((key) => key !== denied);
  const second = await end();
  expect(second.before).toEqual(expect.arrayContaining([denied, sibling]));
  expect(second.after).toContain(sibling);
  expect(second.after).not.toContain(denied);
});

test('a write does not wait for a probe that can not be had; nothing is proven until there is one', async () => {
  const grant = await mint();
  let refused = true;
  aws.knobs.fault = ({ action }) =>
    action === 'AssumeRole' && refused ? { kind: 'error', status: 400, code: 'Throttling' } : undefined;
  expect(await session.fence([grant.ref], patience(), viewOf())).toMatchObject([{ ok: true }]);
  expect(await read(house, grant)).toBe('AccessDenied');
  expect(await session.verify([grant.ref], patience())).not.toMatchObject([{ contained: true }]);
  refused = false;
  await expect
    .poll(async () => {
      await session.fence([grant.ref], patience(), viewOf());
      return await session.verify([grant.ref], patience());
    })
    .toMatchObject([{ contained: true }]);
});
