import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { type AwsHouse, furnish, mintGrant, patience, read, readsMarch, viewOf } from '../contract/aws-sts-fixture.ts';
import { type AwsStandIn, startAwsStandIn } from '../support/aws-stand-in/server.ts';

/** The broker's own clock is set, or it runs on a machine that woke: what is over is over by AWS's clock alone. */

let aws: AwsStandIn;
let house: AwsHouse;
let config: ReturnType<typeof readsMarch>;

beforeEach(async () => {
  aws = await startAwsStandIn();
  house = await furnish(aws);
  config = readsMarch(house.roles[0] ?? '');
});
afterEach(async () => {
  await aws.stop();
});

const real = Date.now;
/** The broker's clock, and not AWS's. */
const setClock = (step: number) => {
  vi.spyOn(Date, 'now').mockImplementation(() => real() + step);
  aws.knobs.clockOffsetMs = -step;
};
const fences = () => [...aws.policies('agent').keys()].filter((name) => name.startsWith('mayfly-fence-'));

test.each([
  ['the process that minted it', (session: ReturnType<AwsHouse['open']>) => session],
  ['one that never heard AWS', () => house.open()],
])('a clock that is set an hour ahead ends nothing by itself: %s', async (_, choose) => {
  const minting = house.open();
  const grant = await mintGrant(minting, config);
  setClock(3_600_000);
  const session = choose(minting);
  const before = aws.calls.length;
  expect(await session.verify([grant.ref], patience())).not.toMatchObject([{ contained: true }]);
  expect(aws.calls.length).toBeGreaterThan(before);
  expect(await session.fence([grant.ref], patience(), viewOf())).toMatchObject([{ ok: true }]);
  expect(fences()).not.toEqual([]);
  // Tried again, as the broker does it: the first request of each client tells it how late it is.
  const end = async () => {
    await session.fence([grant.ref], patience(), viewOf());
    return await session.verify([grant.ref], patience());
  };
  await expect.poll(end).toMatchObject([{ contained: true, clean: false, evidence: { by: 'fence' } }]);
  setClock(0);
  expect(await read(house, grant)).toBe('AccessDenied');
});

test('with AWS away nothing is called over, however late it seems', async () => {
  const session = house.open();
  const grant = await mintGrant(session, config, { seconds: 60 });
  vi.spyOn(Date, 'now').mockImplementation(() => real() + 3_600_000);
  const woken = performance.now() + 3_600_000;
  vi.spyOn(performance, 'now').mockImplementation(() => woken);
  aws.knobs.fault = () => ({ kind: 'drop' });
  const failed = { ok: false, error: { errorClass: 'retryable', wholeTarget: true } };
  expect(await session.verify([grant.ref], patience())).toMatchObject([failed]);
  expect(await session.reap([grant.ref], patience(), viewOf())).toMatchObject([failed]);
  expect(await session.fence([grant.ref], patience(), viewOf())).toMatchObject([{ ok: false }]);
});

test.each([240_000, 3_600_000])('a clock that is set %i ms ahead takes nothing out of the fence', async (step) => {
  const session = house.open();
  const grant = await mintGrant(session, config, { seconds: 200 });
  expect(await session.fence([grant.ref], patience(), viewOf())).toMatchObject([{ ok: true }]);
  setClock(step);
  const reaped = await session.reap([grant.ref], patience(), viewOf());
  expect(reaped).toMatchObject([{ ok: true, notBefore: expect.any(Date) }]);
  setClock(0);
  expect(await read(house, grant)).toBe('AccessDenied');
});

test('what a store forgot that failed over is not over at the deadline that it knows', async () => {
  const minting = house.open();
  const { ref, keys, request } = await mintGrant(minting, config, { seconds: 3 });
  const facts = { ...ref.facts, not_after_ms: real() + 3_000_000 };
  const until = new Date(real() + 60_000);
  const renewed = await minting.renew?.({ ...ref, facts }, until, patience(), request);
  const { access_key_id: id, secret_access_key: secret, session_token: token } = renewed?.secret?.reveal() ?? {};
  const agents = { accessKeyId: String(id), secretAccessKey: String(secret), sessionToken: String(token) };
  expect(agents.accessKeyId).not.toBe(keys.accessKeyId);
  // Another process, to which the store tells what it still knows.
  const session = house.open();
  const known = { ...ref, facts, setBackAt: new Date() };
  const isOver = async () => (await session.verify([ref], patience()))[0];
  await expect.poll(isOver).toMatchObject({ contained: true, evidence: { by: 'deadline' } });
  expect(await session.verify([known], patience())).toMatchObject([{ ok: true, contained: false }]);
  const end = async () => {
    await session.fence([known], patience(), viewOf());
    return await session.verify([known], patience());
  };
  await expect.poll(end).toMatchObject([{ contained: true, clean: false, evidence: { by: 'fence' } }]);
  expect(await read(house, { ref, keys: agents, request })).toBe('AccessDenied');
  const [reaped] = await session.reap([known], patience(), viewOf());
  expect(reaped).toMatchObject({ ok: true, notBefore: expect.any(Date) });
});

test('the first mint of a process asks AWS for its time, so that the deadline is by AWS’s clock', async () => {
  setClock(240_000);
  const grant = await mintGrant(house.open(), config, { seconds: 20 });
  const aheadOfAws = Number(grant.ref.facts?.['deadline_ms']) - real();
  expect(aheadOfAws).toBeLessThanOrEqual(21_100);
});
