import { once } from 'node:events';
import { createServer, type Server } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startCli } from '../support/cli.ts';
import { type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { createStore, type TestStore } from '../support/store.ts';

let server: PostgresServer;
let store: TestStore;
let other: Server;
let port: number;

beforeAll(async () => {
  server = await startPostgres({ version: 18 });
  store = await createStore(server, { dev: false });
  other = createServer().listen(0, '127.0.0.1');
  await once(other, 'listening');
  const address = other.address();
  port = typeof address === 'object' && address !== null ? address.port : 0;
});
afterAll(async () => {
  other?.close();
  await server?.stop();
});

test('`mayfly serve` on a port that is taken says so in one sentence, and ends', async () => {
  const env = { MAYFLY_PORT: String(port), MAYFLY_DATABASE_URL: store.runtimeUrl.reveal() };
  const { code, signal, stdout, stderr } = await startCli(['serve'], { env }).ended;
  expect({ code, signal, stdout, stderr }).toEqual({
    code: 1,
    signal: null,
    stdout: '',
    stderr:
      `The broker cannot listen on 127.0.0.1:${port}, since another program does: stop that one ` +
      `(\`lsof -nP -iTCP:${port} -sTCP:LISTEN\` finds it), or choose another port with MAYFLY_PORT.\n`,
  });
});
