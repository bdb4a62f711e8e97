import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { ask } from '../support/ask.ts';
import { operatorsOf } from '../support/operators.ts';
import type { Play } from './scenarios.ts';
import type { World } from './world.ts';

const TEST = '/v1/webhooks/listener/test';

/** A webhook is sent a test, and again: each that was committed is told, and marked so. */
export async function test(world: World): Promise<Play> {
  const told = new Set<string>();
  const receiver = createServer((request, response) => {
    told.add(String(request.headers['webhook-id']));
    request.resume();
    response.writeHead(204).end();
  });
  const port = await listen(receiver);
  const webhook = `- { name: listener, dev: true, format: slack, url: "http://127.0.0.1:${port}/", events: [kill.*] }`;
  await world.house.broker.apply({ ...world.house.files, 'webhooks.yaml': webhook });
  const post = async () => {
    const token = await operatorsOf(world.house).token('operator');
    return await ask(world.url, 'POST', TEST, { token });
  };
  return {
    act: async () => {
      for (;;) {
        await post();
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    },
    after: async () => {
      await world.until('a test is asked for', async () => (await post().catch(() => undefined))?.status === 202);
      // Whoever died with one in hand is held for dead, at last.
      await world.eye.store(
        `UPDATE mayfly.webhook_deliveries SET try_at = clock_timestamp() WHERE delivered_at IS NULL`,
      );
      await world.until('all are told', async () => {
        const rows = await world.eye.store<{ id: string; delivered: boolean }>(
          `SELECT event_id AS id, delivered_at IS NOT NULL AS delivered FROM mayfly.webhook_deliveries`,
        );
        return rows.length > 0 && rows.every(({ id, delivered }) => delivered && told.has(`evt_${id}`));
      });
      await world.house.broker.apply(world.house.files);
      await world.eye.store('DELETE FROM mayfly.webhook_deliveries');
      receiver.closeAllConnections();
      receiver.close();
    },
  };
}

async function listen(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return port;
}
