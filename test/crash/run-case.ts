import type { Case } from './table.ts';
import { faultsOfEvidence } from './evidence.ts';
import type { Lane } from './lane.ts';
import { heal } from './scenarios.ts';
import { PATIENCE_MILLIS, World } from './world.ts';

/** A claim of a dead worker holds so long. */
const LEASE_MILLIS = 5_000;
const SWEEP_MILLIS = 1_000;
/** For a machine that has other things to do: retries, logins, the looks from outside. */
const SLACK_MILLIS = 6_000;

export interface Verdict {
  /** What is wrong: empty when all is well. */
  readonly faults: readonly string[];
  readonly leftBehind: number;
  /** From due to the last moment at which a credential was seen alive in the target, the worst of them. */
  readonly lateMillis: number;
}

/** The broker falls at the step, comes back, and is looked at from outside. */
export async function runCase({ house, eye, proxy }: Lane, { step, scenario }: Case): Promise<Verdict> {
  const world = new World(house, eye, proxy);
  const faults: string[] = [];
  const neighbour = await world.hold(await world.open());
  const fall = { step, signal: 'SIGKILL' } as const;
  try {
    const play = await scenario(world);
    if (play.act === undefined) {
      const started = world.restart([fall]).then(
        (broker) => broker.reached(step),
        (error: unknown) => {
          if (!String(error).includes(step)) throw error;
        },
      );
      await soon(started, step);
    } else {
      await house.broker.fallAt([fall]);
      const cut = play.act().then(
        () => {},
        () => {},
      );
      await soon(house.broker.reached(step), step);
      await world.kill();
      await cut;
    }
    await world.kill();
    await world.restart();
    await play.after();
    await world.use(neighbour);
  } catch (error) {
    faults.push(String(error));
  }
  heal(world);
  await world.finish();
  const left = await eye.leftBehind();
  const fates = await eye.fates();
  const lateMillis = Math.max(0, ...fates.map((fate) => fate.lateMillis));
  const allowed = world.awayMillis + LEASE_MILLIS + SWEEP_MILLIS + SLACK_MILLIS;
  faults.push(
    ...left,
    ...fates.filter(({ lied }) => lied).map(({ id }) => `${id} was called contained and was seen alive after that`),
    ...(lateMillis > allowed
      ? [`${lateMillis.toFixed(0)} ms late, where ${allowed.toFixed(0)} are to be expected`]
      : []),
    ...(await faultsOfEvidence(eye)),
  );
  return { faults, leftBehind: left.length, lateMillis };
}

async function soon(work: Promise<unknown>, step: string): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${step} was never reached`)), PATIENCE_MILLIS);
  });
  await Promise.race([work, late]).finally(() => clearTimeout(timer));
}
