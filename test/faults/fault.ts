import { randomUUID } from 'node:crypto';
import { ProblemError } from '../../src/client/index.ts';
import { type Held, PAYMENTS, plain, type World } from '../crash/world.ts';
import type { FaultLane } from './lane.ts';

/** Something that goes wrong for a while. */
export interface Fault {
  /** What must stand before it can. */
  readonly prepare?: (lane: FaultLane) => Promise<void>;
  readonly begin: (lane: FaultLane) => Promise<void>;
  readonly end: (lane: FaultLane) => Promise<void>;
  /** Issuing and ending go on as if nothing were wrong. */
  readonly harmless?: true;
  /** Only the store is away: what reaches its deadline is cut all the same, before it is back. */
  readonly keepsDeadlines?: true;
  /** What hung is given up only so long after its end. Milliseconds. */
  readonly grace?: number;
  /** It lasts at least so long. Milliseconds. */
  readonly lasts?: number;
}

/**
 * One life under a fault: some grants come to their deadline during it, a task is cancelled, an agent asks for more. Whatever was
 * answered then, afterwards all is as if it had been answered at once.
 */
export async function under(fault: Fault, world: World, lane: FaultLane): Promise<void> {
  await fault.prepare?.(lane);
  world.graceMillis = fault.grace ?? 0;
  const [due, cancelled, asking] = [await world.open(), await world.open(), await world.open()];
  await world.hold(cancelled);
  await world.hold(cancelled, { entitlement: PAYMENTS });
  const short = [
    await world.hold(due, { ttl_seconds: 3 }),
    await world.hold(due, { ttl_seconds: 4, entitlement: PAYMENTS }),
  ];
  const key = randomUUID();
  const cancel = async (wait: number) => {
    const { revocations } = await world.client().cancel(cancelled, { wait });
    if (!revocations.every(({ state }) => state === 'contained' || state === 'clean'))
      throw new Error(`a cancel answers ${JSON.stringify(revocations)}`);
  };
  const since = Date.now();
  await fault.begin(lane);
  if (fault.harmless !== true) world.away();
  const answers = Promise.all([cancel(20), world.client(key).issue(asking, { entitlement: PAYMENTS })]);
  const failure = answers.then(
    () => undefined,
    (error: unknown) => error,
  );
  try {
    if (fault.harmless === true) await answers;
    await world.until('deadlines have passed under the fault', async () =>
      short.every((held) => Date.now() > Date.parse(held.grant.deadline) + 1_000),
    );
    if (fault.keepsDeadlines === true) {
      const handles = new Set(short.map(({ grant }) => `mfy_${plain(grant.id).replaceAll('-', '')}`));
      await world.until('what has reached its deadline is cut while the store is away', async () =>
        (await world.eye.look()).every(({ handle, live }) => !live || !handles.has(handle)),
      );
    }
    if (fault.lasts !== undefined)
      await world.until('it has lasted long enough', async () => Date.now() > since + (fault.lasts ?? 0));
    if (fault.harmless === true) await world.untilEnded(due, cancelled);
  } finally {
    await fault.end(lane);
    world.back();
  }
  refuseNothing(await failure);
  await world.patiently(() => cancel(30));
  const held: Held = await world.patiently(() => world.hold(asking, { entitlement: PAYMENTS }, key));
  await world.untilEnded(due, cancelled);
  await world.use(held);
}

/** An agent may be told to come again, and nothing else: neither that it is in the wrong, nor that we do not know what is wrong. */
function refuseNothing(error: unknown): void {
  if (error instanceof ProblemError && error.status !== 503) throw error;
}
