import type { StepName } from '../../src/domain/step.ts';
import type { Fall, RunningBroker } from '../support/broker-process.ts';
import { cancel, type Play, type Scenario } from './scenarios.ts';
import { soon } from './verdict.ts';
import { plain, type World } from './world.ts';

export const stops = (...steps: StepName[]): Fall[] => steps.map((step) => ({ step, signal: 'SIGSTOP' }));

/** Stops the broker at the step, and again at the later one when it was woken. */
async function stopAt(world: World, steps: readonly [StepName, StepName], act: Play['act']): Promise<void> {
  const { broker } = world.house;
  await broker.fallAt(stops(...steps));
  // What it was asked is answered when it wakes, or never.
  act?.().catch(() => {});
  await soon(broker.reached(steps[0]), steps[0]);
  world.away();
}

/** Lets it go on to the later step, and from there. */
async function wake({ house: { broker } }: World, later: StepName, there: () => Promise<void> = async () => {}) {
  await broker.signal('SIGCONT');
  await soon(broker.reached(later), later);
  await there();
  await broker.signal('SIGCONT');
}

/** Others take over and finish; then it wakes and goes on as if nothing had been. */
export async function overtaken(world: World, steps: readonly [StepName, StepName], scenario: Scenario): Promise<void> {
  const { act, after } = await scenario(world);
  await stopAt(world, steps, act);
  await withReplica(world, [], async (replica) => {
    world.url = replica.url;
    world.back();
    await after();
    await wake(world, steps[1]);
  });
}

/** It wakes while another has its obligations in hand: what it writes then must not count. */
export async function rivalled(world: World, steps: readonly [StepName, StepName], scenario: Scenario): Promise<void> {
  const { act, after } = await scenario(world);
  await stopAt(world, steps, act);
  await withReplica(world, stops('fence.before'), async (replica) => {
    await soon(replica.reached('fence.before'), 'a claim of the other replica');
    world.back();
    const held = () =>
      world.eye.store(
        `SELECT id, claim_number, claimed_by FROM mayfly.revocations WHERE state = 'running' ORDER BY id`,
      );
    const before = await held();
    await wake(world, steps[1], async () => {
      if (before.length === 0 || JSON.stringify(await held()) !== JSON.stringify(before))
        throw new Error('what one has in hand was written by another');
      await replica.signal('SIGCONT');
    });
    await after();
  });
}

/** While it sleeps, somebody gives back what it has cut: it must see that before it calls it contained. */
export async function undone(world: World): Promise<void> {
  const { act, after } = await cancel(world);
  const { broker } = world.house;
  await broker.fallAt(stops('fence.after'));
  act?.().catch(() => {});
  await soon(broker.reached('fence.after'), 'fence.after');
  world.away();
  const fates = await world.eye.fates();
  for (const { id, revocation } of fates) {
    if (revocation === 'running')
      await world.eye.target(`ALTER ROLE mfy_${plain(id).replaceAll('-', '')} LOGIN VALID UNTIL 'infinity'`);
  }
  await broker.signal('SIGCONT');
  world.back();
  await after();
}

async function withReplica(
  world: World,
  falls: readonly Fall[],
  work: (replica: RunningBroker) => Promise<void>,
): Promise<void> {
  const replica = await world.house.startReplica({}, falls);
  try {
    await work(replica);
  } finally {
    await world.house.broker.signal('SIGCONT');
    world.url = world.house.url;
    await replica.stop();
  }
}
