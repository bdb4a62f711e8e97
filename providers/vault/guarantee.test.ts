import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Secret } from '../../src/provider.ts';
import { provider } from './index.ts';
import { entitlementSchema, targetSchema } from './schema.ts';

let server: Server;
const mounts = { aws: 'aws', pki: 'pki', database: 'database', 'team/db': 'database', novel: 'novel', secret: 'kv' };

beforeAll(async () => {
  server = createServer((request, response) => {
    const auth = { client_token: 's.token', accessor: 'a', lease_duration: 3600, renewable: true };
    const data = Object.fromEntries(
      Object.entries(mounts).map(([mount, type]) => [
        `${mount}/`,
        { type, options: type === 'kv' ? { version: '2' } : null },
      ]),
    );
    const answers: Record<string, object> = {
      '/v1/auth/approle/login': { auth },
      '/v1/sys/mounts': { data },
      '/v1/auth/token/roles/mayfly': { data: { token_explicit_max_ttl: 86_400 } },
    };
    request.resume();
    response.end(JSON.stringify(answers[request.url ?? ''] ?? {}));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
});

async function promised(config: object): Promise<string> {
  const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const auth = { approle: { role_id: 'mayfly', secret_id: 'file:secret-id' } };
  const session = provider.connect(targetSchema.parse({ addresses: [address], auth }), {
    ...{ target: 'vault', installation: 'i', secret: () => new Secret('secret-id'), log: () => {} },
  });
  const entitlement = entitlementSchema.parse({ policies: ['agent'], ...config });
  try {
    return (await session.guarantee(entitlement, AbortSignal.timeout(5000))).revocation;
  } catch (error) {
    return error instanceof Error ? error.message : 'failed';
  } finally {
    await session.close();
  }
}

test('what is promised follows the engine: of what no revocation takes away, and of what is not known, expiry alone', async () => {
  const dynamic = (path: string) => promised({ mode: 'dynamic', path });
  expect(await dynamic('database/creds/readers')).toBe('immediate');
  expect(await dynamic('team/db/creds/readers')).toBe('immediate');
  expect(await dynamic('aws/sts/deploy')).toBe('expiry-only');
  expect(await dynamic('pki/issue/agents')).toBe('expiry-only');
  expect(await dynamic('novel/creds/x')).toBe('expiry-only');
  expect(await dynamic('secret/data/x')).toMatch(/mode kv/);
  expect(await dynamic('absent/creds/x')).toMatch(/no secrets engine/);
  expect(await promised({ mode: 'token' })).toBe('immediate');
  expect(await promised({ mode: 'kv', mount: 'secret', path: 'x' })).toBe('irrevocable');
  expect(await promised({ mode: 'kv', mount: 'secret', path: 'x', version: 1 })).toMatch(/no KV mount of version 1/);
  expect(await promised({ mode: 'kv', mount: 'database', path: 'x' })).toMatch(/no KV mount/);
});
