import { soon } from '../crash/verdict.ts';
import { stops } from '../crash/woken.ts';
import { PAYMENTS, type World } from '../crash/world.ts';
import type { RunningBroker } from '../support/broker-process.ts';

/** Of so many replicas one falls asleep with a claim, another takes it over, and the first wakes: what it writes then must not count. */
export async function stale(count: number, world: World): Promise<void> {
  await withReplicas(world, count - 1, async (others) => {
    const all = [world.house.broker, ...others];
    const task = await world.open();
    await world.hold(task);
    await Promise.all(all.map((one) => one.fallAt(stops('contain.before', 'contain.after'))));
    // Whom it asks may be the one that sleeps.
    world
      .client()
      .cancel(task, { wait: 20 })
      .catch(() => {});
    const first = await firstAt('contain.before', all);
    world.away();
    const awake = all.filter((one) => one !== first);
    await Promise.all(awake.map((one) => one.fallAt(stops('fence.before'))));
    const second = await firstAt('fence.before', awake);
    await Promise.all(awake.filter((one) => one !== second).map((one) => one.fallAt([])));
    const held = () => world.eye.store(`SELECT id, claim_number FROM mayfly.revocations WHERE state = 'running'`);
    const before = await held();
    await first.signal('SIGCONT');
    await soon(first.reached('contain.after'), 'contain.after of the one that slept');
    if (before.length !== 1 || JSON.stringify(await held()) !== JSON.stringify(before))
      throw new Error('what one has in hand was written by another');
    for (const one of [first, second]) await one.signal('SIGCONT');
    world.back();
    await world.untilEnded(task);
  });
}

/** One replica's clock is wrong. Alone it ends at their deadlines what another has issued, no sooner and no later. */
export async function wrongClock(offMillis: number, world: World): Promise<void> {
  const { house } = world;
  const replica = await house.startReplica({}, [], offMillis);
  try {
    const [due, later, cancelled] = [await world.open(), await world.open(), await world.open()];
    const waiting = await world.hold(later, { ttl_seconds: 60 });
    await world.hold(cancelled);
    const short = [
      await world.hold(due, { ttl_seconds: 4 }),
      await world.hold(due, { entitlement: PAYMENTS, ttl_seconds: 5 }),
    ];
    await house.broker.signal('SIGKILL');
    try {
      for (const held of short) {
        await world.use(held).catch((error: unknown) => {
          // A slow machine may come too late to see anything.
          if (Date.now() < Date.parse(held.grant.deadline)) throw error;
        });
      }
      await world.untilEnded(due);
      await world.use(waiting);
    } finally {
      await world.restart();
    }
    await world.client().cancel(cancelled, { wait: 30 });
    await world.untilEnded(cancelled);
    await world.use(waiting);
  } finally {
    await replica.stop();
  }
}

async function firstAt(step: 'contain.before' | 'fence.before', all: readonly RunningBroker[]): Promise<RunningBroker> {
  return await soon(Promise.race(all.map(async (one) => one.reached(step).then(() => one))), step);
}

async function withReplicas(
  world: World,
  count: number,
  work: (replicas: readonly RunningBroker[]) => Promise<void>,
): Promise<void> {
  const { house } = world;
  const replicas: RunningBroker[] = [];
  try {
    while (replicas.length < count) replicas.push(await house.startReplica());
    await work(replicas);
  } finally {
    await house.broker.signal('SIGCONT');
    await house.broker.fallAt([]);
    await Promise.all(replicas.map((one) => one.stop()));
  }
}
