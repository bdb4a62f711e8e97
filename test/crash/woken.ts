import type { StepName } from '../../src/domain/step.ts';
import type { Fall, RunningBroker } from '../support/broker-process.ts';
import { cancel, type Play, type Scenario } from './scenarios.ts';
import { soon } from './verdict.ts';
import { plain, type World } from './world.ts';

export const stops = (...steps: StepName[]): Fall[] => steps.map((step) => ({ step, signal: 'SIGSTOP' }));

/** Stops the broker at the step; later ones are only told of, or stop it too. */
async function stopAt(world: World, step: StepName, later: readonly Fall[], act: Play['act']): Promise<void> {
  const { broker } = world.house;
  await broker.fallAt([...stops(step), ...later]);
  // What it was asked is answered when it wakes, or never.
  act?.().catch(() => {});
  await soon(broker.reached(step), step);
  world.away();
}

/**
 * Others take over and finish; then it wakes and goes on as if nothing had been.
 * @param later One of them shows that it went on: which, is a race of its heartbeat against its work.
 */
export async function overtaken(
  world: World,
  step: StepName,
  later: readonly StepName[],
  scenario: Scenario,
): Promise<void> {
  const { act, after } = await scenario(world);
  const { broker } = world.house;
  await stopAt(
    world,
    step,
    later.map((each) => ({ step: each, signal: 'SIGCONT' })),
    act,
  );
  await withReplica(world, [], async (replica) => {
    world.url = replica.url;
    world.back();
    await after();
    await broker.signal('SIGCONT');
    await soon(Promise.race(later.map((each) => broker.reached(each))), later.join(' or '));
  });
}

/** It wakes while another has its obligations in hand: what it writes then must not count. */
export async function rivalled(
  world: World,
  [step, later]: readonly [StepName, StepName],
  scenario: Scenario,
): Promise<void> {
  const { act, after } = await scenario(world);
  const { broker } = world.house;
  await stopAt(world, step, stops(later), act);
  await withReplica(world, stops('fence.before'), async (replica) => {
    await soon(replica.reached('fence.before'), 'a claim of the other replica');
    world.back();
    const held = () =>
      world.eye.store(
        `SELECT id, claim_number, claimed_by FROM mayfly.revocations WHERE state = 'running' ORDER BY id`,
      );
    const before = await held();
    await broker.signal('SIGCONT');
    await soon(broker.reached(later), later);
    if (before.length === 0 || JSON.stringify(await held()) !== JSON.stringify(before))
      throw new Error('what one has in hand was written by another');
    await replica.signal('SIGCONT');
    await broker.signal('SIGCONT');
    await after();
  });
}

/** While it sleeps, somebody gives back what it has cut: it must see that before it calls it contained. */
export async function undone(world: World): Promise<void> {
  const { act, after } = await cancel(world);
  const { broker } = world.house;
  await broker.fallAt(stops('fence.after', 'reap.before'));
  act?.().catch(() => {});
  await soon(broker.reached('fence.after'), 'fence.after');
  world.away();
  const fates = await world.eye.fates();
  for (const { id, revocation } of fates) {
    if (revocation === 'running')
      await world.eye.target(`ALTER ROLE mfy_${plain(id).replaceAll('-', '')} LOGIN VALID UNTIL 'infinity'`);
  }
  await broker.signal('SIGCONT');
  // What is called contained by now is looked at before its cleaning, or another end, hides what it was.
  await soon(broker.reached('reap.before'), 'reap.before');
  const lied = (await world.eye.fates()).some((fate) => fate.lied);
  await broker.signal('SIGCONT');
  if (lied) throw new Error('what was called contained was alive');
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
