import { faultsOfEvidence } from './evidence.ts';
import { heal } from './scenarios.ts';
import { PATIENCE_MILLIS, type World } from './world.ts';

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

/** Plays it beside a neighbour who must notice nothing, ends what is still open, and looks from outside. */
export async function judge(world: World, play: (world: World) => Promise<void>): Promise<Verdict> {
  const { eye } = world;
  const faults: string[] = [];
  // The lane's earlier cases were judged by themselves.
  const earlier = new Set((await eye.fates()).map(({ id }) => id));
  try {
    const neighbour = await world.hold(await world.open());
    await play(world);
    await world.use(neighbour);
  } catch (error) {
    faults.push(String(error));
  }
  heal(world);
  const left = await world.finish();
  const fates = (await eye.fates()).filter(({ id }) => !earlier.has(id));
  const lateMillis = Math.max(0, ...fates.map((fate) => fate.lateMillis));
  const allowed = world.awayMillis + world.graceMillis + LEASE_MILLIS + SWEEP_MILLIS + SLACK_MILLIS;
  if (lateMillis > allowed)
    faults.push(`${lateMillis.toFixed(0)} ms late, where ${allowed.toFixed(0)} are to be expected`);
  for (const { id, lied } of fates) if (lied) faults.push(`${id} was called contained, and was seen alive after that`);
  faults.push(...left, ...(await faultsOfEvidence(eye)));
  return { faults, leftBehind: left.length, lateMillis };
}

/** @throws Error when it takes too long. */
export async function soon<T>(work: Promise<T>, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: in vain`)), PATIENCE_MILLIS);
  });
  return await Promise.race([work, late]).finally(() => clearTimeout(timer));
}
