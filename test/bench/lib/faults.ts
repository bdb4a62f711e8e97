import { setTimeout as pause } from 'node:timers/promises';
import type { Stage } from './stage.ts';

export interface FaultOptions {
  readonly outageSeconds: number;
  readonly backoffSeconds: number;
}

export interface Fault {
  readonly name: string;
  /** Brings both schemes into it. @returns when the credentials were due, and since when nothing hinders their end. */
  run(stage: Stage): Promise<{ readonly due: number; readonly free?: number }>;
}

const TTL_SECONDS = 10;

export function faults({ outageSeconds, backoffSeconds }: FaultOptions): readonly Fault[] {
  // Three attempts are over after one back-off and another of twice its length.
  const longSeconds = 3 * backoffSeconds + 20;
  return [
    { name: 'none', run: async (stage) => ({ due: await stage.hold(TTL_SECONDS) }) },
    { name: 'a cursor is open', run: async (stage) => ({ due: await stage.hold(TTL_SECONDS, true) }) },
    {
      name: 'the queue’s store is flushed',
      run: async (stage) => {
        const due = await stage.hold(TTL_SECONDS);
        await stage.redis.flush();
        return { due };
      },
    },
    {
      name: `the target is out of reach for ${outageSeconds} s when they are due`,
      run: async (stage) => {
        const due = await stage.hold(TTL_SECONDS);
        await until(due - 2_000);
        await stage.cutOff();
        await until(due - 2_000 + outageSeconds * 1000);
        stage.back();
        return { due, free: Date.now() };
      },
    },
    {
      name: `they are ended early while it is out of reach for ${longSeconds} s`,
      run: async (stage) => {
        await stage.hold(580);
        await stage.cutOff();
        const due = Date.now();
        await Promise.all(stage.schemes.map(async (scheme) => scheme.endNow()));
        await until(due + longSeconds * 1000);
        stage.back();
        return { due, free: Date.now() };
      },
    },
    {
      name: 'the worker is killed while it ends them',
      run: async (stage) => {
        const due = await stage.hold(TTL_SECONDS);
        await until(due - 500);
        // Longer than it takes to see that one is at work, so that its statement is still on its way.
        stage.proxy.delay(1_000);
        await Promise.all(
          stage.schemes.map(async (scheme) => {
            while (!(await scheme.ending())) await pause(5);
            await scheme.kill();
          }),
        );
        stage.proxy.delay(0);
        await Promise.all(stage.schemes.map(async (scheme) => scheme.restart()));
        return { due };
      },
    },
    { name: 'the broker is killed between mint and write', run: killedAfterMint },
    {
      name: 'each owns a table',
      run: async (stage) => {
        const due = await stage.hold(TTL_SECONDS);
        for (const { username } of stage.leases)
          await stage.house.onTarget(
            `CREATE TABLE billing.of_${username} (); ALTER TABLE billing.of_${username} OWNER TO ${username}`,
          );
        return { due };
      },
    },
  ];
}

/** The target makes them and the answer never comes. Nobody has those secrets, so that only roles are counted. */
async function killedAfterMint(stage: Stage): Promise<{ due: number }> {
  // Connections that stand, since a new one can not be made any more.
  await stage.hold(TTL_SECONDS);
  await stage.begin();
  stage.proxy.swallowAnswers();
  const due = Date.now() + TTL_SECONDS * 1000;
  const minting = stage.schemes.map(async (scheme) => scheme.mint(stage.count, TTL_SECONDS).catch(() => []));
  const patience = Date.now() + 3_000;
  while (Date.now() < patience) await pause(50);
  for (const scheme of stage.schemes) await scheme.kill();
  stage.proxy.heal();
  stage.proxy.cut();
  await Promise.all(stage.schemes.map(async (scheme) => scheme.restart()));
  await Promise.all(minting);
  return { due };
}

async function until(moment: number): Promise<void> {
  await pause(Math.max(0, moment - Date.now()));
}
