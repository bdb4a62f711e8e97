import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { ProblemError } from '../../src/client/index.ts';
import { releasedGrantBody } from '../../src/http/answers.ts';
import { hasten } from '../../src/store/claims.ts';
import { ask } from '../support/ask.ts';
import { type Operators, operatorsOf } from '../support/operators.ts';
import { type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { type Standing, startSyntheticHouse, type SyntheticHouse } from '../support/synthetic/house.ts';

const OVERDUE_SECONDS = 2;
const POLICIES = `
@id("all") permit (principal, action, resource);
@id("static-secrets") @accepts("irrevocable") permit (principal, action, resource == Mayfly::Entitlement::"kv/use");
`;

let server: PostgresServer;
let house: SyntheticHouse;
let operators: Operators;
beforeAll(async () => {
  server = await startPostgres({ version: 18 });
  house = await startSyntheticHouse(
    server,
    { vault: 'handles', sts: 'expiry-only', late: 'expiry-only', kv: 'irrevocable', unnamed: 'irrevocable' },
    { MAYFLY_OVERDUE_SECONDS: String(OVERDUE_SECONDS) },
    POLICIES,
  );
  operators = operatorsOf(house);
});
afterAll(async () => {
  await house?.stop();
  await server?.stop();
});

async function issued(target: string, ttl = 300) {
  const task = await house.openTask(target);
  const { id, revocation } = await house.issue(task, target, ttl);
  return { task, id, revocation: revocation.id, handle: id.replace('grt_', 'syn-') };
}

async function eventually<T>(look: () => Promise<T>, timeout = 30_000): Promise<T> {
  return await vi.waitFor(look, { timeout, interval: 50 });
}

async function until(id: string, expected: Partial<Standing>): Promise<Standing> {
  return await eventually(async () => {
    const standing = await house.standing(id);
    expect(standing).toMatchObject(expected);
    return standing;
  });
}

async function typesOf(task: string): Promise<string[]> {
  return (await house.client.timeline(task)).map(({ type }) => type);
}

async function metrics(): Promise<string> {
  return (await ask(house.url, 'GET', '/metrics')).text;
}

describe('what can only expire', () => {
  test('and is ended early waits for its native expiry, visibly: no failure, nothing overdue, and gone then', async () => {
    const { task, id, revocation, handle } = await issued('sts', 6);
    await house.client.complete(task);
    const waiting = await eventually(async () => {
      const { items } = await operators.queue('?state=waiting&target=sts');
      expect(items).toHaveLength(1);
      return items[0];
    });
    expect(waiting).toMatchObject({ id: revocation, guarantee: 'expiry-only', attempts: 1, ended_by: 'completed' });
    expect(waiting?.native_expiry_at).toBe(waiting?.deadline);
    expect(waiting).not.toHaveProperty('last_error');
    expect(house.target('sts').system.accepts(handle)).toBe(true);
    const attempted = (await house.client.timeline(task)).find(({ type }) => type === 'revocation.attempted');
    expect(attempted?.payload).toMatchObject({
      outcome: 'waits',
      says: `waits for its native expiry at ${waiting?.deadline}`,
    });

    // A target that came back hastens what backed off, and not what waits for its time.
    await hasten({ query: async ({ text, values }) => await house.onStore(text, [...values]) }, 'sts');
    expect(
      await house.onStore('SELECT try_at >= due_at AS kept FROM mayfly.revocations WHERE id = $1', [
        revocation.slice(4),
      ]),
    ).toEqual([{ kept: true }]);

    // Tried all the same when an operator says so, to no other end.
    expect((await operators.post(`/v1/revocations/${revocation}/retry`)).status).toBe(202);
    await until(id, { revocation: 'due', attempts: 2, last_error: null });

    const { evidence } = await until(id, { state: 'revoked', revocation: 'clean' });
    expect(evidence).toMatchObject({ cut: false, seen: expect.stringMatching(/expired|absent/) });
    const { revocation: after } = await operators.story(revocation);
    expect(Date.parse(after.contained_at ?? '')).toBeGreaterThan(Date.parse(after.deadline));
    expect(after).not.toHaveProperty('native_expiry_at');
    expect(await typesOf(task)).not.toContain('revocation.overdue');
    const text = await metrics();
    expect(text).toContain('mayfly_revocation_verify_failures_total{target="sts"} 0');
    expect(text).not.toContain('mayfly_revocation_failures_total{target="sts"');
  });

  test('and is released early is answered with the time at which its end is owed', async () => {
    const { id } = await issued('sts', 4);
    const token = await operators.token('operator');
    const { status, body } = await ask(house.url, 'DELETE', `/v1/grants/${id}`, { token });
    const { grant } = releasedGrantBody.parse(body);
    expect(status).toBe(202);
    // A worker may have it in hand by then.
    const { revocation, deadline = '' } = grant;
    expect(['due', 'running']).toContain(revocation?.state);
    expect(Date.parse(revocation?.due_at ?? '')).toBeGreaterThan(Date.parse(deadline));
    await until(id, { state: 'revoked', revocation: 'clean' });
  });

  test('and reaches its deadline is not late while clocks may differ', async () => {
    const { task, id } = await issued('sts', 2);
    await until(id, { state: 'revoked', ended_by: 'expired' });
    expect(await typesOf(task)).not.toContain('revocation.overdue');
  });

  test('is overdue when it outlives its native expiry and the skew', async () => {
    const late = house.target('late');
    // Its clock stands far behind: it accepts the credential long after its deadline.
    late.turn(-600_000);
    const { task, id, revocation, handle } = await issued('late', 1);
    await house.client.complete(task);
    await eventually(async () => expect(await typesOf(task)).toContain('revocation.overdue'));
    expect(late.system.accepts(handle)).toBe(true);
    const { revocation: shown, events } = await operators.story(revocation);
    expect(shown).toMatchObject({ overdue_since: expect.any(String), last_error: 'retryable' });
    expect(shown).not.toHaveProperty('native_expiry_at');
    const overdue = events.find(({ type }) => type === 'revocation.overdue');
    expect(Date.parse(overdue?.ts ?? '')).toBeGreaterThan(Date.parse(shown.deadline) + OVERDUE_SECONDS * 1000);
    late.turn(600_000);
    await until(id, { state: 'revoked', revocation: 'clean' });
  });
});

describe('what can not be taken back', () => {
  test('is denied unless a policy that permits it accepts that by name', async () => {
    const task = await house.openTask('unnamed', 'kv');
    const refused: unknown = await house.issue(task, 'unnamed').catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(ProblemError);
    expect(refused).toMatchObject({
      code: 'denied_by_policy',
      problem: { reasons: [expect.stringContaining('irrevocable')] },
    });
    expect(house.target('unnamed').count('mint')).toBe(0);
    expect((await house.issue(task, 'kv')).state).toBe('active');
    await house.client.complete(task);
  });

  test('ends revoked, with what remains said in the evidence, the timeline and the queue, and is counted apart', async () => {
    const residual = 'value may be known';
    const counted = async (target: string) =>
      (await operators.queue()).counts.find((count) => count.target === target)?.residual ?? 0;
    const before = await counted('kv');
    const { task, id, revocation } = await issued('kv');
    await house.client.complete(task);
    expect((await until(id, { state: 'revoked', revocation: 'clean' })).evidence).toMatchObject({ residual });
    const contained = (await house.client.timeline(task)).find(({ type }) => type === 'revocation.contained');
    expect(contained?.payload).toMatchObject({ residual });
    expect((await operators.story(revocation)).revocation).toMatchObject({ guarantee: 'irrevocable', residual });
    expect(await counted('kv')).toBeGreaterThan(before);

    const plain = await issued('vault');
    await house.client.complete(plain.task);
    expect((await until(plain.id, { revocation: 'clean' })).evidence).not.toHaveProperty('residual');
    expect((await operators.story(plain.revocation)).revocation).not.toHaveProperty('residual');
    expect(await counted('vault')).toBe(0);
    await eventually(async () => {
      const text = await metrics();
      expect(text).toContain('mayfly_grants_residual{target="vault"} 0');
      expect(text).toContain(`mayfly_grants_residual{target="kv"} ${await counted('kv')}`);
    });
  });

  test('is counted once, also when it comes back and is ended again', async () => {
    const { task, id } = await issued('kv');
    await house.client.complete(task);
    await until(id, { revocation: 'clean' });
    const count = async () => await house.onStore(`SELECT ended FROM mayfly.residuals WHERE target = 'kv'`);
    const before = await count();
    const grant = id.replace('grt_', '');
    await house.onStore(`UPDATE mayfly.grants SET state = 'revoking' WHERE id = $1`, [grant]);
    expect(await count()).not.toEqual(before);
    await house.onStore(`UPDATE mayfly.grants SET state = 'revoked' WHERE id = $1`, [grant]);
    expect(await count()).toEqual(before);
  });
});
