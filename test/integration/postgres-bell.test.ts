import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { PostgresBell } from '../../src/revocation/postgres-bell.ts';
import { type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { createStore, type TestStore } from '../support/store.ts';
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts';

let server: PostgresServer;
let store: TestStore;
let proxy: TcpProxy;
beforeAll(async () => {
  server = await startPostgres({ version: 18 });
  store = await createStore(server);
  proxy = await startTcpProxy(server.port);
});
afterAll(async () => {
  await proxy?.close();
  await server?.stop();
});

test('a bell that could not reach the store at first rings once it can', async () => {
  proxy.retarget(1);
  const url = new URL(store.runtimeUrl.reveal());
  url.port = String(proxy.port);
  const rung: (string | undefined)[] = [];
  const failures: Error[] = [];
  const bell = new PostgresBell({
    queue: 'mayfly-test',
    url: url.href,
    worker: { concurrency: 1 },
    ring: (id) => rung.push(id),
    failed: (error) => failures.push(error),
  });
  try {
    await vi.waitFor(() => expect(failures.length).toBeGreaterThan(0), { timeout: 60_000 });
    await expect(bell.set([{ jobId: 'at-none' }])).rejects.toBeInstanceOf(Error);
    proxy.retarget(server.port);
    await vi.waitFor(() => bell.set([{ jobId: 'at-once', removeOnComplete: true }]), {
      timeout: 60_000,
      interval: 100,
    });
    await vi.waitFor(() => expect(rung).toContain('at-once'), { timeout: 60_000 });
  } finally {
    await bell.close();
  }
});
