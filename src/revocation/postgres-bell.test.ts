import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import { expect, test } from 'vitest';
import { PostgresBell } from './postgres-bell.ts';

test('a bell whose first connections are cut off tries again, and keeps this process from nothing else', async () => {
  const connections: Socket[] = [];
  const store = createServer((socket) => {
    connections.push(socket);
    socket.on('error', () => {});
    socket.once('data', () => socket.destroy());
  });
  store.listen(0, '127.0.0.1');
  await once(store, 'listening');
  const address = store.address();
  const port = typeof address === 'object' ? address?.port : undefined;
  const failures: Error[] = [];
  const bell = new PostgresBell({
    queue: 'mayfly-test',
    url: `postgres://nobody@127.0.0.1:${port}/none`,
    worker: {},
    ring: () => {},
    failed: (error) => failures.push(error),
  });
  try {
    while (connections.length < 5) await once(store, 'connection');
    expect(failures.length).toBeLessThan(50);
  } finally {
    await bell.close();
    store.close();
  }
});
