import { setTimeout as pause } from 'node:timers/promises';
import pg from 'pg';
import { freePort } from '../../support/free-port.ts';
import { type House, startHouse } from '../../support/house.ts';
import { redisAvailable, type RedisServer, startRedis } from '../../support/redis-server.ts';
import { startTcpProxy, type TcpProxy } from '../../support/tcp-proxy.ts';
import { type PostgresServer, startPostgres } from '../../support/postgres-servers.ts';
import { Agent } from './agents.ts';
import { BENCH_FILES, DURABLE } from './bench-house.ts';
import { mayflyScheme, type Scheme, usualScheme } from './schemes.ts';
import { type Lease, USUAL_TABLE } from './usual-scheme.ts';

const READERS = 'usual_readers_of_all';

export interface StageOptions {
  /** Credentials under each scheme. */
  readonly count: number;
  readonly backoffMillis: number;
}

/**
 * Both schemes side by side: one Postgres, one Redis, and between them and the target one proxy, so that a fault meets both at the
 * same moment. Agents reach the target without it.
 */
export class Stage {
  readonly count: number;
  readonly house: House;
  readonly redis: RedisServer;
  readonly proxy: TcpProxy;
  readonly schemes: readonly Scheme[];
  readonly #server: PostgresServer;
  #agents: Agent[] = [];
  #before: ReadonlySet<string> = new Set();
  #endedAt: number | undefined;
  #unheld: readonly string[] = [];

  private constructor(
    count: number,
    parts: { server: PostgresServer; redis: RedisServer; proxy: TcpProxy; house: House; schemes: Scheme[] },
  ) {
    this.count = count;
    this.house = parts.house;
    this.redis = parts.redis;
    this.proxy = parts.proxy;
    this.schemes = parts.schemes;
    this.#server = parts.server;
  }

  static async open({ count, backoffMillis }: StageOptions): Promise<Stage> {
    if (!redisAvailable()) throw new Error('this benchmark needs a redis-server: the usual scheme stands on it');
    const server = await startPostgres({ version: 18, settings: DURABLE });
    const redis = await startRedis();
    const proxy = await startTcpProxy(server.port);
    const house = await startHouse({
      server,
      inProcess: false,
      targetPort: proxy.port,
      env: { MAYFLY_REDIS_URL: redis.url },
      files: BENCH_FILES,
    });
    const storeUrl = await server.createDatabase('usual_store');
    const usual = await usualScheme({
      redisUrl: redis.url,
      storeUrl,
      targetUrl: server.superuserUrl(house.targetDatabase).replace(`:${server.port}/`, `:${proxy.port}/`),
      readers: READERS,
      backoffMillis,
    });
    const stage = new Stage(count, { server, redis, proxy, house, schemes: [usual, mayflyScheme(house)] });
    await house.onTarget(`CREATE ROLE ${READERS}; GRANT CONNECT ON DATABASE ${house.targetDatabase} TO ${READERS};
      GRANT USAGE ON SCHEMA billing TO ${READERS}; GRANT SELECT ON ALL TABLES IN SCHEMA billing TO ${READERS}`);
    await stage.#prepareStore(storeUrl);
    return stage;
  }

  async #prepareStore(url: string): Promise<void> {
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    await client.query(USUAL_TABLE);
    await client.end();
  }

  /** Forgets what earlier faults left. */
  async begin(): Promise<void> {
    await this.#dismiss();
    this.#agents = [];
    this.#endedAt = undefined;
    this.#unheld = [];
    this.#before = new Set(await this.#roles());
  }

  /** Credentials under each scheme, each with a session open. @returns when the first and the last of them are due. */
  async hold(ttlSeconds: number, cursor = false): Promise<{ readonly first: number; readonly last: number }> {
    const { host, port } = this.#server;
    const place = { host, port, database: this.house.targetDatabase };
    const minted = await Promise.all(this.schemes.map(async (scheme) => scheme.mint(this.count, ttlSeconds)));
    this.#agents = minted.flat().map((lease) => new Agent(lease, place, cursor));
    await Promise.all(this.#agents.map(async (agent) => agent.start()));
    const dues = this.leases.map(({ due }) => due);
    const [first, last] = [Math.min(...dues), Math.max(...dues)];
    if (Date.now() > first - 1_000) throw new Error('too slow here for such a life: raise --ttl');
    return { first, last };
  }

  get leases(): readonly Lease[] {
    return this.#agents.map(({ lease }) => lease);
  }

  /** Ends all before their time, which is due now. */
  async endNow(): Promise<void> {
    this.#endedAt = Date.now();
    await Promise.all(this.schemes.map(async (scheme) => scheme.endNow()));
  }

  /** Neither scheme reaches the target until `back`; agents do. */
  async cutOff(): Promise<void> {
    this.proxy.retarget(await freePort());
    this.proxy.cut();
  }

  back(): void {
    this.proxy.retarget(this.#server.port);
  }

  /** What stands in the target now is what the fault is about, though nobody holds its secrets. */
  async noteRoles(): Promise<void> {
    this.#unheld = await this.#newRoles();
  }

  /** Lets agents read on until then, and counts. */
  async watch(until: number): Promise<readonly Seen[]> {
    await pause(Math.max(0, until - Date.now()));
    await this.#dismiss();
    const roles = await this.#newRoles();
    return this.schemes.map(({ name, prefix }) => {
      const mine = this.#agents.filter(({ lease }) => lease.username.startsWith(prefix));
      return {
        scheme: name,
        held: mine.length,
        unheld: this.#unheld.filter((role) => role.startsWith(prefix)).length,
        reading: mine.filter(({ lastRead }) => lastRead > until - 2_000).length,
        roles: roles.filter((role) => role.startsWith(prefix)).length,
        lastReadSeconds: Math.max(
          0,
          ...mine.map(({ lastRead, lease }) => (lastRead - (this.#endedAt ?? lease.due)) / 1000),
        ),
      };
    });
  }

  async #dismiss(): Promise<void> {
    await Promise.all(this.#agents.map(async (agent) => agent.stop()));
  }

  async #newRoles(): Promise<string[]> {
    return (await this.#roles()).filter((role) => !this.#before.has(role));
  }

  async #roles(): Promise<string[]> {
    const rows = await this.house.onTarget<{ rolname: string }>(
      String.raw`SELECT rolname FROM pg_roles WHERE rolname ~ '^(mfy_|usual_[0-9a-f]{16}$)'`,
    );
    return rows.map(({ rolname }) => rolname);
  }

  async close(): Promise<void> {
    await this.#dismiss();
    for (const scheme of this.schemes) await scheme.stop();
    await this.house.stop();
    await this.proxy.close();
    await this.redis.stop();
    await this.#server.stop();
  }
}

export interface Seen {
  readonly scheme: Scheme['name'];
  readonly held: number;
  /** Roles that were made and whose secrets nobody got. */
  readonly unheld: number;
  /** Credentials with which something was still read at the end of the watch. */
  readonly reading: number;
  /** Roles still in the target then. */
  readonly roles: number;
  /** From due to the last thing that anybody read. */
  readonly lastReadSeconds: number;
}
