import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { freePort } from './free-port.ts';

export interface RedisServer {
  readonly url: string;
  flush(): Promise<void>;
  /** Everything that stands in it, as text; nothing of it is compressed. */
  dump(): Promise<string>;
  kill(): Promise<void>;
  start(): Promise<void>;
  stop(): Promise<void>;
}

/** Whether there is a Redis to start. Where there must be one, in CI, its absence is a failure. */
export function redisAvailable(): boolean {
  const found = spawnSync('redis-server', ['--version']).status === 0;
  if (!found && process.env['CI'] === 'true') throw new Error('redis-server is missing');
  if (!found) console.warn('SKIPPED: redis-server is not installed, so nothing is tested on Redis.');
  return found;
}

/** A Redis of its own, durable as production's: every write is on disk. */
export async function startRedis(): Promise<RedisServer> {
  const port = await freePort();
  const folder = mkdtempSync(join(tmpdir(), 'mayfly-redis-'));
  const url = `redis://127.0.0.1:${port}`;
  let child: ReturnType<typeof spawn> | undefined;
  const start = async () => {
    // Ends with its parent: `cat` sees the end of the pipe when this process dies, however it dies.
    const script = `redis-server --port ${port} --bind 127.0.0.1 --dir "${folder}" --appendonly yes --appendfsync always --save "" --rdbcompression no --databases 256 --maxmemory-policy noeviction >/dev/null & server=$!; (cat >/dev/null; kill -9 $server 2>/dev/null) & wait $server`;
    child = spawn('sh', ['-c', `exec 3<&0; ${script.replace('cat >', 'cat <&3 >')}`], {
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    await ready(url);
  };
  const kill = async () => {
    if (child === undefined) return;
    const gone = once(child, 'exit');
    child.stdin?.end();
    await gone;
    child = undefined;
  };
  await start();
  const use = async <T>(work: (client: Redis) => Promise<T>): Promise<T> => {
    const client = new Redis(url, { maxRetriesPerRequest: 1 });
    client.on('error', () => {});
    try {
      return await work(client);
    } finally {
      client.disconnect();
    }
  };
  return {
    url,
    flush: () => use(async (client) => void (await client.flushall())),
    dump: () =>
      use(async (client) => {
        const keys = await client.keys('*');
        const values = await Promise.all(keys.map((key) => client.dumpBuffer(key)));
        return [...keys, ...values.map((value) => value?.toString('latin1') ?? '')].join('\n');
      }),
    kill,
    start,
    stop: async () => {
      await kill();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

async function ready(url: string): Promise<void> {
  const client = new Redis(url, { retryStrategy: () => 20, maxRetriesPerRequest: null });
  client.on('error', () => {});
  try {
    await client.ping();
  } finally {
    client.disconnect();
  }
}
