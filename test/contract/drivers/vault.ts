import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { provider } from '../../../providers/vault/index.ts';
import { entitlementSchema, targetSchema } from '../../../providers/vault/schema.ts';
import { Secret } from '../../../src/provider.ts';
import { type SealedOpenbao, startOpenbaoOnDisk } from '../../support/openbao.ts';
import { type PostgresServer, startPostgres } from '../../support/postgres-servers.ts';
import {
  type Access,
  type Attempt,
  type Credential,
  type Driver,
  type Lie,
  type System,
  tcpFaults,
} from '../provider/index.ts';
import { ask, type Json, mountDatabase } from '../vault-fixture.ts';

const probe = 'secret/data/agents/acme';
const entitlements: System['entitlements'] = [
  { name: 'vault/token', config: { mode: 'token', policies: ['agent'], probe_path: probe } },
  { name: 'vault/readers', config: { mode: 'dynamic', policies: ['db-readers'], path: 'database/creds/readers' } },
  {
    name: 'vault/tenant',
    config: { mode: 'kv', policies: ['agent'], mount: 'secret', path: 'agents/${tenant}' },
    params: [{ tenant: 'acme' }, { tenant: 'globex' }],
  },
];
/** So long an end may stay unproven where a mint was broken off: less than a server's own 90 s. */
const requestSeconds = 5;
const brokerPolicy = 'sys/policies/acl/mayfly-broker';

/** OpenBao, or the server that `binary` names, with its data on disk, a second one that could be taken for it, and the PostgreSQL that its database engine writes to. */
export function vaultDriver(folder: string, binary = 'bao'): Driver {
  return {
    provider,
    start: async () => {
      const [bao, second, server] = await Promise.all([
        startOpenbaoOnDisk(folder, undefined, { binary, requestSeconds }),
        startOpenbaoOnDisk(folder, undefined, { binary, requestSeconds }),
        startPostgres({ version: 18 }),
      ]);
      const proxy = await tcpFaults(Number(new URL(bao.url).port));
      // The way of the engine to its database.
      const wire = await tcpFaults(server.port);
      const installation = randomUUID();
      const secretId = randomUUID();
      const connection = {
        addresses: [`http://${proxy.host}:${proxy.port}`],
        auth: { approle: { role_id: 'mayfly-contract', secret_id: 'file:secret-id' } },
        max_request_seconds: requestSeconds,
      };
      for (const one of [bao, second]) await prepare(one, connection, installation, secretId, server, wire.port);
      const root = async (method: string, path: string, body?: unknown): Promise<Json> =>
        await ask(bao.url, bao.token, method, path, body);
      const read = async (token: unknown, path: string): Promise<Access> => {
        const { status } = await ask(bao.url, String(token), 'GET', path);
        if (status !== 200 && status !== 403) throw new Error(`reading ${path}: ${status}`);
        return status === 200 ? 'works' : 'refused';
      };
      const query = (credential: Credential, text: string) => asAgent(server, credential, text);
      return {
        connection,
        installation,
        secrets: { 'file:secret-id': secretId },
        entitlements,
        use: async (credential, entitlement, params) => {
          if (entitlement === 'vault/token') return await read(credential['token'], probe);
          if (entitlement === 'vault/readers') return await query(credential, 'SELECT 1');
          // A static value works where it is taken for the right one, for ever.
          return credential['password'] === `of-${String(params?.['tenant'] ?? 'acme')}` ? 'works' : 'refused';
        },
        // A user name is none.
        secretsOf: ({ token, password }) => [token, password].flatMap((one) => (typeof one === 'string' ? [one] : [])),
        look: async (handle, facts) => {
          const { body } = await root('LIST', 'auth/token/accessors');
          const found: string[] = [];
          for (const accessor of body.data.keys as string[]) {
            const { body: known } = await root('POST', 'auth/token/lookup-accessor', { accessor });
            if (known.data?.meta?.mayfly_handle === handle) found.push(`the token of accessor ${accessor}`);
          }
          const lease = facts?.['lease_id'];
          if (lease === undefined) return found;
          const { status } = await root('POST', 'sys/leases/lookup', { lease_id: lease });
          return status === 200 ? [...found, `the lease ${String(lease)}`] : found;
        },
        stop: async () => {
          await Promise.all([proxy.close(), wire.close()]);
          await Promise.all([bao.stop(), second.stop(), server.stop()]);
        },
        exceed: async (credential, entitlement) => {
          const tried: Attempt[] = [];
          if (entitlement === 'vault/token')
            for (const path of [
              'secret/data/other',
              'sys/policies/acl',
              'database/creds/readers',
              'auth/token/lookup-self',
            ])
              tried.push({ what: `read ${path}`, came: await read(credential['token'], path) });
          else if (entitlement === 'vault/readers')
            for (const text of ['CREATE ROLE friend', 'SELECT * FROM pg_authid', 'CREATE TABLE mine (a int)'])
              tried.push({ what: text, came: await query(credential, text) });
          else
            tried.push({
              what: 'of another tenant',
              came: credential['password'] === 'of-globex' ? 'works' : 'refused',
            });
          return tried;
        },
        open: async (credential) => ({ works: () => read(credential['token'], probe), close: async () => {} }),
        foreign: async () => {
          const handle = `mfy-${randomUUID().replaceAll('-', '')}`;
          const made = { policies: ['agent'], display_name: handle, ttl: '3600s' };
          const { body } = await root('POST', 'auth/token/create/mayfly', made);
          const { accessor } = body.auth;
          return {
            handle,
            harmed: async () => {
              const { status } = await root('POST', 'auth/token/lookup-accessor', { accessor });
              return status === 200 ? [] : [`the token ${accessor} is gone`];
            },
          };
        },
        faults: {
          ...proxy,
          apart: async () => {
            const way = await tcpFaults(Number(new URL(bao.url).port));
            return Object.assign(way, { connection: { ...connection, addresses: [`http://${way.host}:${way.port}`] } });
          },
          // Not 204: by that alone an end can not be told from none.
          lies: [lie(200, '{}'), lie(404, '{"errors":[]}')],
        },
        behind: wire,
        // Notes of ends stay until no mint can be on its way: the deadline, and ten seconds.
        shortestLifeSeconds: 2,
        unprovenMillis: 60_000,
        rights: {
          lose: async () => {
            const { body } = await root('GET', brokerPolicy);
            await root('POST', 'sys/policies/acl/kept', { policy: body.data.policy });
            await root('POST', brokerPolicy, { policy: 'path "nothing" { capabilities = ["read"] }' });
          },
          restore: async () => {
            const { body } = await root('GET', 'sys/policies/acl/kept');
            await root('POST', brokerPolicy, { policy: body.data.policy });
          },
        },
        restart: () => bao.restart(),
        replace: async () => {
          proxy.lead(Number(new URL(second.url).port));
          return async () => proxy.lead(Number(new URL(bao.url).port));
        },
      };
    },
  };
}

function lie(status: number, body: string): Lie {
  const head = `HTTP/1.1 ${status} X\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n`;
  return { what: `${status} ${body}`, answer: () => `${head}${body}` };
}

async function prepare(
  bao: SealedOpenbao,
  connection: object,
  installation: string,
  secretId: string,
  server: PostgresServer,
  port: number,
): Promise<void> {
  const root = async (method: string, path: string, body?: unknown): Promise<Json> => {
    const { status, body: answer } = await ask(bao.url, bao.token, method, path, body);
    if (status >= 400) throw new Error(`${method} ${path}: ${status} ${JSON.stringify(answer)}`);
    return answer;
  };
  const admin = new URL(bao.url);
  admin.password = bao.token;
  const declared = entitlements.map(({ name, config }) => ({
    ...{ name, maxTtlSeconds: 3600, config: entitlementSchema.parse(config) },
  }));
  await provider.preparation?.apply?.(
    new Secret(admin.href),
    targetSchema.parse(connection),
    declared,
    installation,
    new Secret(''),
  );
  await root('POST', 'auth/approle/role/mayfly-broker/custom-secret-id', { secret_id: secretId });
  await root('POST', 'sys/mounts/secret', { type: 'kv', options: { version: '2' } });
  await mountDatabase({ root }, server, port);
  await root('POST', 'sys/policies/acl/agent', { policy: 'path "secret/data/agents/*" { capabilities = ["read"] }' });
  for (const tenant of ['acme', 'globex'])
    await root('POST', `secret/data/agents/${tenant}`, { data: { password: `of-${tenant}` } });
}

/** One statement, past everything, with a login of its own. */
async function asAgent(server: PostgresServer, credential: Credential, text: string): Promise<Access> {
  const { username, password } = credential;
  const at = { host: '127.0.0.1', port: server.port, database: 'postgres' };
  const client = new pg.Client({ ...at, user: String(username), password: String(password) });
  client.on('error', () => {});
  try {
    await client.connect();
    await client.query(text);
    return 'works';
  } catch (error) {
    // No such login, or no such right.
    if (error instanceof pg.DatabaseError && /^(28|42501)/.test(error.code ?? '')) return 'refused';
    throw error;
  } finally {
    await client.end().catch(() => {});
  }
}
