import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { StepName } from '../../src/domain/step.ts';
import type { Credential } from '../../src/client/index.ts';
import { redisAvailable, type RedisServer, startRedis } from '../support/redis-server.ts';
import {
  entitlements,
  haveSystems,
  startThreeSystems,
  type System,
  SYSTEMS,
  type ThreeSystems,
} from '../support/three-systems.ts';
import { QUICK } from './lane.ts';
import { soon } from './verdict.ts';

/** All by `npm run test:crash`; `npm test` runs none of it. */
const backend = process.env['MAYFLY_CRASH_BACKEND'];

/** Where the broker is killed while it makes a credential in each of three systems, and while it takes them back. */
const making = ['intend.after', 'mint.before', 'mint.after', 'activate.before', 'activate.after'] as const;
const ending = [
  ...(['end.after', 'claim.after', 'fence.before', 'fence.after', 'verify-contained.before'] as const),
  ...(['verify-contained.after', 'contain.before', 'contain.after', 'reap.before', 'reap.after'] as const),
];

interface Held {
  readonly system: System;
  readonly credential: Credential;
}

describe.skipIf(!haveSystems)('a broker that works in three systems and is killed', () => {
  let systems: ThreeSystems;
  let redis: RedisServer | undefined;
  let neighbours: readonly Held[];

  beforeAll(async () => {
    redis = backend === 'redis' && redisAvailable() ? await startRedis() : undefined;
    const alarms = redis === undefined ? {} : { MAYFLY_REDIS_URL: redis.url };
    systems = await startThreeSystems({ inProcess: false, env: { ...QUICK, ...alarms } });
    neighbours = await hold(await open());
  });
  afterAll(async () => {
    await systems?.stop();
    await redis?.stop();
  });
  beforeEach(({ skip }) => skip(backend === 'redis' && redis === undefined, 'redis-server is not installed'));

  async function open(): Promise<string> {
    const names = SYSTEMS.map((system) => entitlements[system].confidential);
    return (await systems.house.client().openTask(await systems.house.sign({ entitlements: names }))).task.id;
  }

  async function hold(task: string): Promise<Held[]> {
    const client = systems.house.client();
    return await Promise.all(
      SYSTEMS.map(async (system) => {
        const ask = { entitlement: entitlements[system].confidential, ttl_seconds: 600 };
        return { system, credential: (await client.issue(task, ask)).credential };
      }),
    );
  }

  async function working(held: readonly Held[]): Promise<System[]> {
    const works = await Promise.all(held.map(({ system, credential }) => systems.works(system, credential)));
    return held.filter((_, index) => works[index]).map(({ system }) => system);
  }

  async function killAt(step: StepName, act: () => Promise<unknown>): Promise<void> {
    const { house } = systems;
    await house.broker.fallAt([{ step, signal: 'SIGKILL' }]);
    const cut = act().catch(() => {});
    await soon(house.broker.reached(step), step);
    await house.broker.signal('SIGKILL');
    await cut;
    house.broker = await house.restart();
  }

  /** What any system still has of the task, as its own administrator sees it. */
  async function leftOf(task: string): Promise<string[]> {
    const { house, vault } = systems;
    const grants = await house.onStore<{ handle: string; target: string; state: string; revocation: string }>(
      `SELECT g.handle, g.target, g.state, r.state AS revocation FROM mayfly.grants g JOIN mayfly.revocations r ON r.grant_id = g.id WHERE g.task_id = $1`,
      [task.replace('task_', '')],
    );
    const unended = grants.filter(
      ({ state, revocation }) => state !== 'revoked' || !['contained', 'clean'].includes(revocation),
    );
    const handles = grants.map(({ handle }) => handle);
    const roles = await house.onTarget<{ rolname: string }>('SELECT rolname FROM pg_roles WHERE rolname = ANY ($1)', [
      handles,
    ]);
    const { data } = await vault.root('LIST', 'auth/token/accessors');
    const tokens = await Promise.all(
      data.keys.map(
        async (accessor: string) =>
          await vault.root('POST', 'auth/token/lookup-accessor', { accessor }).catch(() => undefined),
      ),
    );
    const marked = tokens.filter((token) => handles.some((handle) => JSON.stringify(token ?? null).includes(handle)));
    return [
      ...unended.map(({ handle, target, state, revocation }) => `${handle} of ${target}: ${state}, ${revocation}`),
      ...roles.map(({ rolname }) => `role ${rolname}`),
      ...marked.map(({ data: { display_name: name } }) => `token ${name}`),
    ];
  }

  /** Logins that the engine of the vault has made. */
  async function logins(): Promise<number> {
    const made = await systems.house.onTarget(`SELECT FROM pg_roles WHERE rolname LIKE 'v-%' AND rolcanlogin`);
    return made.length;
  }

  async function isOver(task: string): Promise<void> {
    await expect.poll(async () => await leftOf(task), { timeout: 120_000 }).toEqual([]);
    // The neighbours' own.
    await expect.poll(logins, { timeout: 60_000 }).toBe(1);
    expect(await working(neighbours)).toEqual(SYSTEMS);
  }

  test.each(making)('at %s, while it makes one in each', { timeout: 300_000 }, async (step) => {
    const task = await open();
    await killAt(step, async () => await hold(task));
    await systems.house.client().cancel(task);
    await isOver(task);
    expect(await leftOf(task)).toEqual([]);
  });

  test.each(ending)('at %s, while it takes them back', { timeout: 300_000 }, async (step) => {
    const task = await open();
    const held = await hold(task);
    expect(await working(held)).toEqual(SYSTEMS);
    await killAt(step, async () => await systems.house.client().complete(task, { wait: 60 }));
    await isOver(task);
    expect(await working(held)).toEqual([]);
  });
});
