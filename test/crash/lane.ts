import { type House, startHouse } from '../support/house.ts';
import type { PostgresServer } from '../support/postgres-servers.ts';
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts';
import { Eye } from './eye.ts';

/** Where cases run one after another: a house, who watches it, and what can stand in its way to the target. */
export interface Lane {
  readonly house: House;
  readonly eye: Eye;
  readonly proxy: TcpProxy;
  close(): Promise<void>;
}

/** The shortest times that production could be set to, and a mint that is given up after four seconds. */
export const QUICK = { MAYFLY_SWEEP_SECONDS: '1', MAYFLY_OVERDUE_SECONDS: '2', MAYFLY_MINT_SECONDS: '4' };

/** @param redisUrl a database of its own in a Redis, or undefined: alarms stand in the store. */
export async function openLane(server: PostgresServer, redisUrl: string | undefined): Promise<Lane> {
  const closing: (() => Promise<unknown>)[] = [];
  const close = async () => {
    for (const one of closing.splice(0).reverse()) await one();
  };
  try {
    const proxy = await startTcpProxy(server.port);
    closing.push(() => proxy.close());
    const house = await startHouse({
      server,
      targetPort: proxy.port,
      inProcess: false,
      env: {
        MAYFLY_PROVIDERS: 'postgres,aws-sts',
        ...QUICK,
        ...(redisUrl === undefined ? {} : { MAYFLY_REDIS_URL: redisUrl }),
      },
    });
    closing.push(() => house.stop());
    const eye = await Eye.open(house);
    closing.push(() => eye.close());
    return { house, eye, proxy, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Lanes for cases that run side by side. One that a case has failed on is closed. */
export class Lanes<L extends { close(): Promise<void> }> {
  readonly #open: (index: number) => Promise<L>;
  readonly #free: L[] = [];
  #opened = 0;
  readonly #most: number;
  readonly #waiting: (() => void)[] = [];
  #used = 0;

  /** @param most Lanes at once. */
  constructor(open: (index: number) => Promise<L>, most: number) {
    this.#open = open;
    this.#most = most;
  }

  async use(work: (lane: L) => Promise<void>): Promise<void> {
    if (this.#used >= this.#most) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    this.#used += 1;
    try {
      const lane = this.#free.pop() ?? (await this.#open(this.#opened++));
      try {
        await work(lane);
        this.#free.push(lane);
      } catch (error) {
        await lane.close();
        throw error;
      }
    } finally {
      this.#used -= 1;
      this.#waiting.shift()?.();
    }
  }

  async close(): Promise<void> {
    for (const lane of this.#free) await lane.close();
  }
}
