import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { freePort } from '../support/free-port.ts';
import { type House, startHouse } from '../support/house.ts';
import { startPostgres, type PostgresServer } from '../support/postgres-servers.ts';
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts';

const COUNT = 12;
const patiently = { timeout: 60_000, interval: 10 };

describe('a target that says nothing at all', () => {
  let server: PostgresServer;
  let proxy: TcpProxy;
  let house: House;

  beforeAll(async () => {
    server = await startPostgres({ version: 18 });
    proxy = await startTcpProxy(server.port);
    house = await startHouse({ server, targetPort: proxy.port, inProcess: false });
  });
  afterAll(async () => {
    await house?.stop();
    await proxy?.close();
    await server?.stop();
  });

  async function breaker(): Promise<number> {
    const text = await (await fetch(`${house.url}/metrics`)).text();
    return Number(/^mayfly_breaker_state\{target="ledger-db"\} (\d)$/m.exec(text)?.[1] ?? 0);
  }

  async function attempts(): Promise<number> {
    const [row] = await house.onStore<{ sum: number }>('SELECT sum(attempts)::int AS sum FROM mayfly.revocations');
    return row?.sum ?? 0;
  }

  async function lastTry(): Promise<Date | undefined> {
    const [row] = await house.onStore<{ at: Date }>('SELECT max(last_error_at) AS at FROM mayfly.revocations');
    return row?.at;
  }

  test('is left alone but for a probe of one, and all is ended once it is back, whenever its next try was', async () => {
    const client = house.client();
    const { task } = await client.openTask(await house.sign());
    const asked = Array.from({ length: COUNT }, () =>
      client.issue(task.id, { entitlement: 'ledger-db/read-invoices' }),
    );
    await Promise.all(asked);
    proxy.retarget(await freePort());
    proxy.cut();
    await client.cancel(task.id);
    await vi.waitFor(async () => expect(await breaker()).toBe(2), patiently);

    // From here on everything is far from its next try of its own.
    await house.onStore(
      `UPDATE mayfly.revocations SET try_at = clock_timestamp() + interval '1 hour' WHERE state = 'due'`,
    );
    const before = await attempts();
    for (let probes = 1; probes <= 2; probes += 1) {
      const last = await lastTry();
      await vi.waitFor(async () => expect(await lastTry()).not.toEqual(last), patiently);
      // What is said of one probe counts against one obligation.
      expect(await attempts()).toBeLessThanOrEqual(before + probes + 1);
      await house.onStore(
        `UPDATE mayfly.revocations SET try_at = clock_timestamp() + interval '1 hour' WHERE state = 'due'`,
      );
    }

    proxy.retarget(server.port);
    await vi.waitFor(async () => {
      const rows = await house.onStore<{ state: string }>('SELECT DISTINCT state FROM mayfly.revocations');
      expect(rows).toEqual([{ state: 'clean' }]);
    }, patiently);
    expect(await breaker()).toBe(0);
    await vi.waitFor(async () => {
      const told = await house.onStore(
        `SELECT resource, payload->>'state' AS state FROM mayfly.audit_events WHERE type = 'target.breaker' ORDER BY ts`,
      );
      expect(told).toEqual(['open', 'closed'].map((state) => ({ resource: 'ledger-db', state })));
    }, patiently);
  });
});
