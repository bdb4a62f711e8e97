import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { Queue } from 'bullmq';
import type { House } from '../../support/house.ts';
import { type Lease, redis, USUAL_QUEUE, type UsualSettings } from './usual-scheme.ts';

/** A way to end credentials, in a process of its own that can be killed. */
export interface Scheme {
  readonly name: 'usual' | 'mayfly';
  /** All its roles begin so. */
  readonly prefix: string;
  mint(count: number, ttlSeconds: number): Promise<readonly Lease[]>;
  /** Ends all that is alive before its time. Answers when that is decided, not when it is done. */
  endNow(): Promise<void>;
  /** Whether something is being ended at this moment. */
  ending(): Promise<boolean>;
  kill(): Promise<void>;
  restart(): Promise<void>;
  stop(): Promise<void>;
}

export function mayflyScheme(house: House): Scheme {
  const tasks: string[] = [];
  return {
    name: 'mayfly',
    prefix: 'mfy_',
    mint: async (count, ttlSeconds) => {
      const client = house.client();
      const { task } = await client.openTask(await house.sign());
      tasks.push(task.id);
      const asked = { entitlement: 'ledger-db/read-invoices', ttl_seconds: ttlSeconds };
      const issued = await Promise.all(Array.from({ length: count }, () => client.issue(task.id, asked)));
      return issued.map(({ grant, credential }) => ({
        username: String(credential['username']),
        password: String(credential['password']),
        due: Date.parse(grant.deadline),
      }));
    },
    endNow: async () => {
      const client = house.client();
      for (const task of tasks.splice(0)) await client.cancel(task);
    },
    ending: async () => {
      const running = await house.onStore(`SELECT FROM mayfly.revocations WHERE state = 'running' LIMIT 1`);
      return running.length > 0;
    },
    kill: () => house.broker.signal('SIGKILL'),
    restart: async () => {
      house.broker = await house.restart();
    },
    stop: async () => {},
  };
}

export async function usualScheme(settings: UsualSettings): Promise<Scheme> {
  const connection = redis(settings.redisUrl);
  const queue = new Queue(USUAL_QUEUE, { connection });
  queue.on('error', () => {});
  let child = await startUsual(settings);
  return {
    name: 'usual',
    prefix: 'usual_',
    mint: async (count, ttlSeconds) => child.ask<Lease[]>({ mint: count, ttlSeconds }),
    endNow: async () => {
      await child.ask({ endNow: true });
    },
    ending: async () => (await queue.getActiveCount()) > 0,
    kill: () => child.kill(),
    restart: async () => {
      child = await startUsual(settings);
    },
    stop: async () => {
      await child.kill();
      await queue.close();
      connection.disconnect();
    },
  };
}

interface Usual {
  ask<T>(order: object): Promise<T>;
  kill(): Promise<void>;
}

/** It ends with this process: its input ends then. */
async function startUsual(settings: UsualSettings): Promise<Usual> {
  const tsx = pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href;
  const main = fileURLToPath(new URL('./usual-main.ts', import.meta.url));
  const child = spawn(process.execPath, ['--import', tsx, main], { stdio: ['pipe', 'pipe', 'inherit'] });
  const answers = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const ended = once(child, 'exit');
  const ask = async <T>(order: object): Promise<T> => {
    child.stdin.write(`${JSON.stringify(order)}\n`);
    const line = await answers.next();
    if (line.done === true) throw new Error('the usual scheme’s process ended');
    return JSON.parse(line.value) as T;
  };
  await ask(settings);
  return {
    ask,
    kill: async () => {
      child.kill('SIGKILL');
      await ended;
    },
  };
}
