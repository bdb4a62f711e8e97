import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { type Access, type Credential, type Driver, tcpFaults } from '../provider/index.ts';
import { provider } from './provider.ts';

const own: Readonly<Record<string, string>> = { 'cache/invoices': 'invoices:1', 'cache/tenant': 'tenant:acme:1' };

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = Object(server.address());
  server.close();
  return Number(port);
}

/** Each `redis-server` has a folder of its own, with users for the broker, an application and us. */
async function startRedis(passwords: { broker: string; admin: string }): Promise<Server> {
  const folder = mkdtempSync(join(tmpdir(), 'redis-acl-'));
  const aclfile = join(folder, 'users.acl');
  const users = [
    'user default off',
    `user admin on >${passwords.admin} ~* &* +@all`,
    `user broker on >${passwords.broker} ~mayfly:* &* +@all`,
  ];
  writeFileSync(aclfile, `${users.join('\n')}\n`);
  const port = await freePort();
  const args = ['--port', String(port), '--bind', '127.0.0.1', '--dir', folder, '--aclfile', aclfile];
  const run = () => spawn('redis-server', [...args, '--appendonly', 'yes', '--save', ''], { stdio: 'ignore' });
  let child = run();
  process.once('exit', () => child.kill('SIGKILL'));
  const login = { host: '127.0.0.1', port, username: 'admin', password: passwords.admin };
  const admin = new Redis({ ...login, maxRetriesPerRequest: null, retryStrategy: () => 50 });
  admin.on('error', () => {});
  await admin.mset('invoices:1', '10', 'tenant:acme:1', '10', 'tenant:globex:1', '20', 'salaries:1', '100');
  const end = async (): Promise<void> => {
    const gone = once(child, 'exit');
    child.kill('SIGTERM');
    await gone;
  };
  return {
    port,
    admin,
    restart: async () => {
      await end();
      child = run();
      await admin.ping();
    },
    stop: async () => {
      admin.disconnect();
      await end();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** How many commands stand in a piece of what a client sent. */
function commandsIn(piece: Buffer): number {
  return String(piece).match(/\*\d+\r\n\$/g)?.length ?? 0;
}

interface Server {
  readonly port: number;
  readonly admin: Redis;
  readonly restart: () => Promise<void>;
  readonly stop: () => Promise<void>;
}

export const driver: Driver = {
  provider,
  start: async () => {
    const passwords = { broker: randomUUID(), admin: randomUUID() };
    const [server, second] = [await startRedis(passwords), await startRedis(passwords)];
    const proxy = await tcpFaults(server.port, '!nonsense\r\n');
    const { admin } = server;

    /** A login as an agent has it, past the proxy. */
    const login = async (credential: Credential): Promise<Redis> => {
      const { username, password } = credential;
      const as = { port: server.port, username: String(username), password: String(password) };
      const redis = new Redis({ ...as, lazyConnect: true, enableReadyCheck: false, retryStrategy: () => null });
      redis.on('error', () => {});
      await redis.connect();
      return redis;
    };
    const access = async (work: () => Promise<unknown>): Promise<Access> =>
      await work().then(
        () => 'works',
        (error: unknown) => {
          if (/NOPERM|WRONGPASS|NOAUTH|Connection is closed/.test(String(error))) return 'refused';
          throw error;
        },
      );
    const using = async (credential: Credential, ...command: [string, ...string[]]): Promise<Access> =>
      await access(async () => {
        const redis = await login(credential);
        await redis.call(...command).finally(() => redis.disconnect());
      });
    const mustExist = async (name: string): Promise<readonly string[]> =>
      (await admin.call('ACL', 'GETUSER', name)) === null ? [`${name} is gone`] : [];

    const connection = { host: '127.0.0.1', port: proxy.port, user: 'broker', password: 'env:REDIS_PASSWORD' };

    return {
      connection,
      installation: randomUUID(),
      secrets: { 'env:REDIS_PASSWORD': passwords.broker },
      entitlements: [
        { name: 'cache/invoices', config: { keys: ['invoices:*'], commands: ['+get', '+mget'] } },
        {
          name: 'cache/tenant',
          config: { keys: ['tenant:{tenant}:*'], commands: ['+@read'] },
          params: [{ tenant: 'acme' }, { tenant: 'globex' }],
        },
      ],
      use: (credential, entitlement, params) =>
        using(
          credential,
          'GET',
          params === undefined ? (own[entitlement] ?? '') : `tenant:${String(params['tenant'])}:1`,
        ),
      secretsOf: ({ password }) => [String(password)],
      look: async (handle) => {
        const clients = String(await admin.call('CLIENT', 'LIST')).split('\n');
        const open = clients.filter((line) => line.split(' ').includes(`user=${handle}`));
        return (await admin.call('ACL', 'GETUSER', handle)) === null ? open : [...open, `the user ${handle}`];
      },
      stop: async () => {
        await proxy.close();
        await Promise.all([server.stop(), second.stop()]);
      },
      exceed: async (credential, entitlement) => {
        const key = own[entitlement] ?? '';
        const tried = [
          ['GET', 'salaries:1'],
          ['SET', key, '0'],
          ['DEL', key],
          ['KEYS', '*'],
          ['ACL', 'LIST'],
          ['FLUSHALL'],
        ];
        return await Promise.all(
          tried.map(async ([name = '', ...rest]) => {
            return { what: [name, ...rest].join(' '), came: await using(credential, name, ...rest) };
          }),
        );
      },
      open: async (credential, entitlement) => {
        const redis = await login(credential);
        return {
          works: () => access(() => redis.get(own[entitlement] ?? '')),
          close: async () => redis.disconnect(),
        };
      },
      foreign: async () => {
        const handle = `mayfly:${randomUUID()}:${randomUUID()}`;
        await admin.call('ACL', 'SETUSER', handle, 'on', '>somebody-else', '~*', '+get');
        return { handle, harmed: () => mustExist(handle) };
      },
      faults: {
        ...proxy,
        apart: async () => {
          const way = await tcpFaults(server.port);
          return Object.assign(way, { connection: { ...connection, port: way.port } });
        },
        lies: [
          { what: 'nil', answer: (piece) => '$-1\r\n'.repeat(commandsIn(piece)) },
          { what: '0', answer: (piece) => ':0\r\n'.repeat(commandsIn(piece)) },
          { what: 'an empty list', answer: (piece) => '*0\r\n'.repeat(commandsIn(piece)) },
        ],
      },
      without: { behind: 'Redis makes nothing elsewhere' },
      rights: {
        lose: async () => void (await admin.call('ACL', 'SETUSER', 'broker', '-acl')),
        restore: async () => void (await admin.call('ACL', 'SETUSER', 'broker', '+acl')),
      },
      restart: server.restart,
      replace: async () => {
        proxy.lead(second.port);
        return async () => proxy.lead(server.port);
      },
    };
  },
};
