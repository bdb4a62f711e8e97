import { setTimeout as pause } from 'node:timers/promises';
import type { Stage } from './stage.ts';

export interface FaultOptions {
  readonly outageSeconds: number;
  readonly backoffSeconds: number;
  /** Enough to mint all and to log in with each. */
  readonly ttlSeconds: number;
}

export interface Fault {
  readonly name: string;
  /** Brings both schemes into it. @returns since when all are due and nothing hinders their end. */
  run(stage: Stage): Promise<number>;
}

export function faults({ outageSeconds, backoffSeconds, ttlSeconds }: FaultOptions): readonly Fault[] {
  // Three attempts are over after one back-off and another of twice its length.
  const longSeconds = 3 * backoffSeconds + 20;
  return [
    { name: 'none', run: async (stage) => (await stage.hold(ttlSeconds)).last },
    { name: 'a cursor is open', run: async (stage) => (await stage.hold(ttlSeconds, true)).last },
    {
      name: 'the queue’s store is flushed',
      run: async (stage) => {
        const { last } = await stage.hold(ttlSeconds);
        await stage.redis.flush();
        return last;
      },
    },
    {
      name: `the target is out of reach for ${outageSeconds} s when they are due`,
      run: async (stage) => {
        const { first } = await stage.hold(ttlSeconds);
        await until(first - 1_000);
        await stage.cutOff();
        await until(first - 1_000 + outageSeconds * 1000);
        stage.back();
        return Date.now();
      },
    },
    {
      name: `they are ended early while it is out of reach for ${longSeconds} s`,
      run: async (stage) => {
        await stage.hold(580);
        await stage.cutOff();
        const ended = Date.now();
        await stage.endNow();
        await until(ended + longSeconds * 1000);
        stage.back();
        return Date.now();
      },
    },
    {
      name: 'the worker is killed while it ends them',
      run: async (stage) => {
        const { first, last } = await stage.hold(ttlSeconds);
        await until(first - 500);
        // Longer than it takes to see that one is at work, so that its statement is still on its way.
        stage.proxy.delay(1_000);
        await Promise.all(
          stage.schemes.map(async (scheme) => {
            while (!(await scheme.ending())) {
              if (Date.now() > last + 10_000) throw new Error(`${scheme.name} was not seen to end anything`);
              await pause(5);
            }
            await scheme.kill();
          }),
        );
        stage.proxy.delay(0);
        await Promise.all(stage.schemes.map(async (scheme) => scheme.restart()));
        return last;
      },
    },
    { name: 'the broker is killed between mint and write', run: (stage) => killedAfterMint(stage, ttlSeconds) },
    {
      name: 'each owns a table',
      run: async (stage) => {
        const { last } = await stage.hold(ttlSeconds);
        for (const { username } of stage.leases)
          await stage.house.onTarget(
            `CREATE TABLE billing.of_${username} (); ALTER TABLE billing.of_${username} OWNER TO ${username}`,
          );
        return last;
      },
    },
  ];
}

/** The target makes them and the answer never comes. Nobody has those secrets, so that only roles are counted. */
async function killedAfterMint(stage: Stage, ttlSeconds: number): Promise<number> {
  // Connections that stand and were just used: a new one can not be made any more, and one that stood idle is asked first.
  await Promise.all(stage.schemes.map(async (scheme) => scheme.mint(stage.count, ttlSeconds)));
  await stage.begin();
  stage.proxy.swallowAnswers();
  const due = Date.now() + ttlSeconds * 1000;
  const minting = stage.schemes.map(async (scheme) => scheme.mint(stage.count, ttlSeconds).catch(() => []));
  const patience = Date.now() + 3_000;
  while (Date.now() < patience) await pause(50);
  await stage.noteRoles();
  for (const scheme of stage.schemes) await scheme.kill();
  stage.proxy.heal();
  stage.proxy.cut();
  await Promise.all(stage.schemes.map(async (scheme) => scheme.restart()));
  await Promise.all(minting);
  return due;
}

async function until(moment: number): Promise<void> {
  await pause(Math.max(0, moment - Date.now()));
}
