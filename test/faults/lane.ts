import pg from 'pg';
import { Eye } from '../crash/eye.ts';
import { type Lane, QUICK } from '../crash/lane.ts';
import { type House, startHouse } from '../support/house.ts';
import { startStandby } from '../support/postgres-standby.ts';
import { type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { type RedisServer, startRedis } from '../support/redis-server.ts';
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts';

const STORE = { max_connections: 400 };

/** A house whose store and Redis are its own to break, each behind a proxy as the target is. */
export interface FaultLane extends Lane {
  readonly storeProxy: TcpProxy;
  /** Where alarms stand there. */
  readonly redis: { readonly server: RedisServer; readonly proxy: TcpProxy } | undefined;
  /** The server that the store is in now. */
  storeServer: PostgresServer;
  /** What can take its place. */
  standby?: PostgresServer;
  /** A replica of it that streams from that port. */
  replicate(port: number): Promise<PostgresServer>;
  /** The broker, and who watches it, find the store there from now on. */
  moveStore(server: PostgresServer): Promise<void>;
}

export async function openLane(targetServer: PostgresServer, withRedis: boolean): Promise<FaultLane> {
  const closing: (() => Promise<unknown>)[] = [];
  const close = async () => {
    for (const one of closing.splice(0).reverse()) await one();
  };
  const proxied = async (port: number) => {
    const proxy = await startTcpProxy(port);
    closing.push(() => proxy.close());
    return proxy;
  };
  try {
    const storeServer = await startPostgres({ version: 18, settings: STORE });
    closing.push(() => storeServer.stop());
    const redisServer = withRedis ? await startRedis() : undefined;
    closing.push(async () => redisServer?.stop());
    const redis = redisServer && { server: redisServer, proxy: await proxied(Number(new URL(redisServer.url).port)) };
    const proxy = await proxied(targetServer.port);
    const storeProxy = await proxied(storeServer.port);
    const house = await startHouse({
      ...{ server: storeServer, targetServer, inProcess: false },
      ...{ targetPort: proxy.port, storePort: storeProxy.port },
      env: {
        ...QUICK,
        MAYFLY_ORPHAN_GRACE_SECONDS: '5',
        ...(redis && { MAYFLY_REDIS_URL: `redis://127.0.0.1:${redis.proxy.port}` }),
      },
    });
    closing.push(() => house.stop());
    const eye = await Eye.open(house);
    closing.push(() => eye.close());
    const lane: FaultLane = {
      ...{ house, eye, proxy, storeProxy, redis, storeServer, close },
      replicate: async (port) => {
        const standby = await startStandby({ ...lane.storeServer, port }, { name: 'next', settings: STORE });
        closing.unshift(() => standby.stop());
        const streams = `SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'`;
        while ((await asSuperuser(lane.storeServer, 'postgres', streams)).length === 0)
          await new Promise((resolve) => setTimeout(resolve, 100));
        return standby;
      },
      moveStore: async (server) => {
        lane.storeServer = server;
        storeProxy.retarget(server.port);
        storeProxy.cut();
        await eye.follow(ownersUrl(house, server.port));
      },
    };
    return lane;
  } catch (error) {
    await close();
    throw error;
  }
}

function ownersUrl(house: House, port: number): string {
  const url = new URL(house.store.ownerUrl.reveal());
  url.port = String(port);
  return url.href;
}

/** The replica is the store from now on. */
export async function promote(lane: FaultLane, standby: PostgresServer): Promise<void> {
  await asSuperuser(standby, 'postgres', 'SELECT pg_promote()');
  await lane.moveStore(standby);
}

export async function asSuperuser<R extends pg.QueryResultRow>(
  server: PostgresServer,
  database: string,
  text: string,
): Promise<R[]> {
  const client = new pg.Client({ connectionString: server.superuserUrl(database) });
  await client.connect();
  try {
    return (await client.query<R>(text)).rows;
  } finally {
    await client.end();
  }
}
