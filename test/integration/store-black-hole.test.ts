import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { type House, startHouse } from '../support/house.ts';
import { type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts';

let server: PostgresServer;
let proxy: TcpProxy;
let house: House;
beforeAll(async () => {
  server = await startPostgres({ version: 18 });
  proxy = await startTcpProxy(server.port);
  house = await startHouse({ server, storePort: proxy.port, env: { MAYFLY_SWEEP_SECONDS: '1' } });
});
afterAll(async () => {
  // Before the broker: what hangs there would hang its stop too.
  await proxy?.close();
  await house?.stop();
  await server?.stop();
});

test('connections to the store that hang for ever are given up, and what is overdue is ended', async () => {
  const client = house.client();
  const { task } = await client.openTask(await house.sign());
  const { grant } = await client.issue(task.id, { entitlement: 'ledger-db/read-invoices', ttl_seconds: 6 });
  const id = grant.id.slice(4);
  proxy.blackHole();
  const calls = Array.from({ length: 4 }, () => client.task(task.id).catch((error: Error) => error.message));
  // The sweeper looks every second: by then its connection hangs with the others.
  await vi.waitFor(
    async () =>
      expect(
        await house.onStore(
          `SELECT 1 FROM mayfly.grants WHERE id = $1 AND deadline < clock_timestamp() - interval '1 second'`,
          [id],
        ),
      ).toHaveLength(1),
    { timeout: 60_000, interval: 100 },
  );
  expect(await house.onStore('SELECT state FROM mayfly.grants WHERE id = $1', [id])).toEqual([{ state: 'active' }]);
  proxy.heal();
  await vi.waitFor(
    async () =>
      expect(
        await house.onStore(
          'SELECT g.state, r.state AS revocation FROM mayfly.grants g JOIN mayfly.revocations r ON r.grant_id = g.id WHERE g.id = $1',
          [id],
        ),
      ).toEqual([{ state: 'revoked', revocation: 'clean' }]),
    { timeout: 60_000, interval: 100 },
  );
  await Promise.all(calls);
  expect(await client.task(task.id)).toMatchObject({ state: 'active', grants: [{ ended_by: 'expired' }] });
});
