import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { type ErrorClass, ProviderError } from '../../src/provider.ts';
import { type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { answers, badHandle, hangs, isDeaf, lies, refuses } from '../support/synthetic/faults.ts';
import { type Standing, startSyntheticHouse, type SyntheticHouse } from '../support/synthetic/house.ts';
import type { Fault, SyntheticTarget } from '../support/synthetic/target.ts';

let server: PostgresServer;
let house: SyntheticHouse;
let target: SyntheticTarget;
beforeAll(async () => {
  server = await startPostgres({ version: 18 });
  house = await startSyntheticHouse(server, { vault: 'handles', other: 'handles' }, { MAYFLY_OVERDUE_SECONDS: '2' });
  target = house.target('vault');
});
afterAll(async () => {
  await house?.stop();
  await server?.stop();
});

afterEach(() => target.faults.clear());

/** As many grants of one task, each with its handle. */
async function live(count: number, name = 'vault', ttl?: number) {
  const task = await house.openTask(name);
  const issued = await Promise.all(Array.from({ length: count }, () => house.issue(task, name, ttl)));
  return { task, grants: issued.map(({ id }) => ({ id, handle: id.replace('grt_', 'syn-') })) };
}

/** One grant, its task ended. */
async function ended(name = 'vault', ttl?: number) {
  const { task, grants } = await live(1, name, ttl);
  const [grant] = grants;
  if (grant === undefined) throw new Error('nothing was issued');
  await house.client.complete(task);
  return { task, ...grant };
}

function until(id: string, expected: Partial<Standing>, timeout = 20_000): Promise<Standing> {
  return vi.waitFor(
    async () => {
      const standing = await house.standing(id);
      expect(standing).toMatchObject(expected);
      return standing;
    },
    { timeout, interval: 25 },
  );
}

/** Waits until an attempt has failed. That it is tried again shows when what failed it is over. */
async function afterATry(id: string): Promise<Standing> {
  return await vi.waitFor(
    async () => {
      const standing = await house.standing(id);
      expect(standing.revocation).not.toBe('running');
      expect(standing.last_error).not.toBeNull();
      return standing;
    },
    { timeout: 60_000, interval: 25 },
  );
}

test('a fence that says it did and did not: never contained, until the target refuses the credential', async () => {
  target.faults.set('fence', lies);
  const { id, handle } = await ended();
  expect(await afterATry(id)).toMatchObject({ state: 'revoking', revocation: 'due', last_error: 'retryable' });
  expect(target.system.accepts(handle)).toBe(true);
  target.faults.delete('fence');
  await until(id, { state: 'revoked', revocation: 'clean', last_error: null });
  expect(target.system.accepts(handle)).toBe(false);
});

test('a reap that says it did and did not: contained, never clean, until nothing is left', async () => {
  target.faults.set('reap', lies);
  const { id, handle } = await ended();
  expect(await afterATry(id)).toMatchObject({ state: 'revoked', revocation: 'contained' });
  expect(target.system.find(handle)).toBeDefined();
  target.faults.delete('reap');
  await until(id, { revocation: 'clean' });
  expect(target.system.find(handle)).toBeUndefined();
});

const contained = { ok: true, contained: true, clean: true, evidence: { seen: 'refused' } };

test.each([
  ['denied', 'permission denied'],
  ['retryable', 'throttled'],
  ['retryable', 'unavailable'],
  ['misconfigured', 'no such engine'],
] as const)('%s (%s) at the fence is never success, whatever is seen', async (errorClass, says) => {
  target.faults.set('fence', refuses(errorClass, says));
  target.faults.set(
    'verify',
    answers((honest) => honest.map(() => contained)),
  );
  const { id, handle } = await ended();
  expect(await afterATry(id)).toMatchObject({ state: 'revoking', revocation: 'due', last_error: errorClass });
  expect(target.system.accepts(handle)).toBe(true);
  target.faults.clear();
  await until(id, { state: 'revoked', revocation: 'clean' });
});

test('“already gone” is a success only if the target shows it', async () => {
  const gone = { ok: false, error: new ProviderError('gone', 'There is no such identity.') };
  target.faults.set('fence', { answer: async ({ refs }) => refs.map(() => gone) });
  const { id, handle } = await ended();
  expect(await afterATry(id)).toMatchObject({ state: 'revoking', revocation: 'due' });
  expect(target.system.accepts(handle)).toBe(true);
  target.system.cut(handle);
  const { evidence } = await until(id, { state: 'revoked', revocation: 'clean' });
  expect(evidence).toMatchObject({ already_gone: true });
  target.faults.clear();
});

test('another system behind the name: never gone, until the one in which it was made is back', async () => {
  const { task, grants } = await live(1);
  const [{ id, handle } = { id: '', handle: '' }] = grants;
  const before = target.replace();
  await house.client.complete(task);
  expect(await afterATry(id)).toMatchObject({ state: 'revoking', revocation: 'due', last_error: 'misconfigured' });
  expect(before.accepts(handle)).toBe(true);
  target.system = before;
  await until(id, { state: 'revoked', revocation: 'clean' });
  expect(before.accepts(handle)).toBe(false);
});

test('targets that hang, whether they end when they are told to or not: the attempt is over with its time-out, and the next one succeeds', async () => {
  const sick = { vault: hangs, other: isDeaf };
  const grants = await Promise.all(
    Object.entries(sick).map(async ([name, fault]) => {
      house.target(name).faults.set('fence', fault);
      return { name, ...(await ended(name)) };
    }),
  );
  for (const { id, name, handle } of grants) {
    await until(id, { state: 'revoking', revocation: 'due', last_error: 'retryable' }, 30_000);
    expect(house.target(name).system.accepts(handle)).toBe(true);
    house.target(name).faults.clear();
  }
  for (const { id } of grants) await until(id, { state: 'revoked', revocation: 'clean' });
});

const circle: Record<string, unknown> = {};
circle['self'] = circle;

describe('an answer that is none', () => {
  const wrong: readonly (readonly [string, 'fence' | 'verify', Fault])[] = [
    ['nothing', 'fence', answers(() => undefined)],
    ['no list', 'fence', answers(() => ({ ok: true, evidence: {} }))],
    ['one too many', 'fence', answers((honest) => [...honest, ...honest])],
    ['nothing', 'verify', answers(() => null)],
    ['text', 'verify', answers(() => 'contained')],
    ['one too many', 'verify', answers((honest) => [...honest, contained])],
    ['one too few', 'verify', answers((honest) => honest.slice(1))],
    ['nulls', 'verify', answers((honest) => honest.map(() => null))],
    ['no evidence', 'verify', answers((honest) => honest.map(() => ({ ...contained, evidence: undefined })))],
    ['text for yes', 'verify', answers((honest) => honest.map(() => ({ ...contained, contained: 'no' })))],
    [
      'evidence that no store keeps',
      'verify',
      answers((honest) => honest.map(() => ({ ...contained, evidence: circle }))),
    ],
  ];
  test.each(wrong)('%s from %s: nothing is contained by it, and it is tried again', async (_, operation, fault) => {
    target.faults.set(operation, fault);
    const { task, grants } = await live(2);
    await house.client.complete(task);
    for (const { id } of grants) expect(await afterATry(id)).toMatchObject({ state: 'revoking', revocation: 'due' });
    target.faults.clear();
    for (const { id } of grants) await until(id, { state: 'revoked', revocation: 'clean' });
  });

  test('clean without contained is not clean', async () => {
    const { task, grants } = await live(1);
    const [{ id } = { id: '' }] = grants;
    const reap = target.holds.hold('reap.sent');
    await house.client.complete(task);
    await reap.reached;
    target.faults.set(
      'verify',
      answers((honest) => honest.map(() => ({ ...contained, contained: false }))),
    );
    reap.release();
    expect(await afterATry(id)).toMatchObject({ revocation: 'contained', last_error: 'retryable' });
    target.faults.clear();
    await until(id, { revocation: 'clean' });
  });
});

const oddClass = new ProviderError('retryable', 'odd');
Object.assign(oddClass, { errorClass: 'odd' });

describe('one bad handle in a batch', () => {
  const bad: readonly (readonly [string, unknown, ErrorClass])[] = [
    ['is denied', { ok: false, error: new ProviderError('denied', 'May not.') }, 'denied'],
    ['gets no answer', undefined, 'misconfigured'],
    ['gets evidence that no store keeps', { ok: true, evidence: { count: 1n } }, 'misconfigured'],
    ['gets an error that is none', { ok: false, error: 'boom' }, 'retryable'],
    ['gets an error of a class that there is not', { ok: false, error: oddClass }, 'retryable'],
    [
      'gets an error that the store refuses',
      { ok: false, error: new ProviderError('denied', 'a\0b\ud800c') },
      'denied',
    ],
  ];
  test.each(bad)('%s: its neighbours are contained, and it is not, cut or not', async (_, instead, errorClass) => {
    const { task, grants } = await live(5);
    const [one, ...others] = grants;
    if (one === undefined) throw new Error('nothing was issued');
    target.faults.set('fence', badHandle(one.handle, instead));
    await house.client.complete(task);
    for (const { id } of others) await until(id, { state: 'revoked', revocation: 'clean', attempts: 1 });
    expect(await afterATry(one.id)).toMatchObject({ state: 'revoking', revocation: 'due', last_error: errorClass });
    target.faults.clear();
    await until(one.id, { state: 'revoked', revocation: 'clean' });
  });

  test('shows what a client named itself, which the store refuses: it is contained with its neighbours', async () => {
    const { task, grants } = await live(3);
    const named = { ok: true, evidence: { application: 'a\0b\ud800 \\u0000' } };
    target.faults.set('fence', {
      answer: async ({ refs, honest }) => {
        await honest(refs);
        return refs.map(() => named);
      },
    });
    await house.client.complete(task);
    for (const { id } of grants) {
      const { evidence } = await until(id, { state: 'revoked', revocation: 'clean', attempts: 1 });
      expect(evidence).toMatchObject({ application: 'a\ufffdb\ufffd \\u0000' });
    }
    target.faults.clear();
  });
});

test('a fence that is not seen everywhere yet: not contained, until it is', async () => {
  const slow = house.target('other');
  slow.system.propagationMillis = 60_000;
  const { id, handle } = await ended('other');
  expect(await afterATry(id)).toMatchObject({ state: 'revoking', revocation: 'due', last_error: 'retryable' });
  expect(slow.system.accepts(handle)).toBe(true);
  slow.turn(60_000);
  await until(id, { state: 'revoked', revocation: 'clean' });
});
