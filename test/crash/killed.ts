import type { StepName } from '../../src/domain/step.ts';
import type { Scenario } from './scenarios.ts';
import { soon } from './verdict.ts';
import type { World } from './world.ts';

/** The broker is killed at the step, and another starts in its place. */
export async function killAt(world: World, step: StepName, scenario: Scenario): Promise<void> {
  const { house } = world;
  const fall = { step, signal: 'SIGKILL' } as const;
  const { act, after } = await scenario(world);
  if (act === undefined) {
    const started = world.restart([fall]).then(
      (broker) => broker.reached(step),
      (error: unknown) => {
        if (!String(error).includes(step)) throw error;
      },
    );
    await soon(started, step);
    await world.kill();
  } else {
    await house.broker.fallAt([fall]);
    const cut = act().catch(() => {});
    await soon(house.broker.reached(step), step);
    await world.kill();
    await cut;
  }
  await world.restart();
  await after();
}
