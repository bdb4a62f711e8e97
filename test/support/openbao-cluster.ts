import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { freePort } from './free-port.ts';
import { answers, makeServerFolder, type ServerProcess, startServer } from './server-process.ts';

interface ClusterNode {
  readonly url: string;
  readonly home: string;
  readonly server: ServerProcess;
}

/** Three nodes that share one log: any one of them can be lost. */
export interface OpenbaoCluster {
  readonly urls: readonly string[];
  /** The root token. */
  readonly token: string;
  /** The one that is active now. */
  active(): Promise<string>;
  /** Dies at once. */
  kill(url: string): Promise<void>;
  stop(): Promise<void>;
}

const initialSchema = z.object({ keys: z.array(z.string()), root_token: z.string() });

const configurationSchema = z.object({
  data: z.object({ config: z.object({ servers: z.array(z.object({ voter: z.boolean() })) }) }),
});

/** Each of them may be elected. @param folder With the binary. */
export async function startOpenbaoCluster(folder: string): Promise<OpenbaoCluster> {
  const nodes: ClusterNode[] = [];
  const killed = new Set<string>();
  const start = async (): Promise<ClusterNode> => {
    const home = makeServerFolder('openbao');
    const url = `http://127.0.0.1:${await freePort()}`;
    const autopilot = { autopilot_reconcile_interval: '500ms', autopilot_update_interval: '500ms' };
    const raft = { path: home, node_id: `node-${nodes.length}`, performance_multiplier: 1, ...autopilot };
    const config = join(home, 'config.json');
    const inside = `127.0.0.1:${await freePort()}`;
    const listener = [{ tcp: { address: new URL(url).host, cluster_address: inside, tls_disable: true } }];
    const addresses = { api_addr: url, cluster_addr: `http://${inside}` };
    writeFileSync(config, JSON.stringify({ storage: { raft }, listener, ...addresses }));
    const run = makeServerFolder('openbao-run');
    const server = startServer(run, join(folder, 'bao'), ['server', `-config=${config}`]);
    nodes.push({ url, home, server });
    await server.ready(async () => (await fetch(`${url}/v1/sys/health`)).status > 0);
    return { url, home, server };
  };
  const post = async (url: string, path: string, body: object): Promise<unknown> =>
    await (await fetch(`${url}/v1/${path}`, { method: 'POST', body: JSON.stringify(body) })).json();

  const first = await start();
  const initial = initialSchema.parse(await post(first.url, 'sys/init', { secret_shares: 1, secret_threshold: 1 }));
  const key = { key: initial.keys[0] };
  await post(first.url, 'sys/unseal', key);
  await first.server.ready(() => answers(`${first.url}/v1/sys/health`));
  for (let more = 0; more < 2; more += 1) {
    const node = await start();
    await post(node.url, 'sys/storage/raft/join', { leader_api_addr: first.url });
    await post(node.url, 'sys/unseal', key);
    await node.server.ready(() => answers(`${node.url}/v1/sys/health?standbyok=true`));
  }
  const headers = { 'x-vault-token': initial.root_token };
  const stabilization = JSON.stringify({ server_stabilization_time: '500ms' });
  const storage = `${first.url}/v1/sys/storage/raft`;
  await fetch(`${storage}/autopilot/configuration`, { method: 'POST', headers, body: stabilization });
  await first.server.ready(async () => {
    const { data } = configurationSchema.parse(await (await fetch(`${storage}/configuration`, { headers })).json());
    return data.config.servers.filter(({ voter }) => voter).length === 3;
  });
  const activeOf = async (): Promise<string | undefined> => {
    for (const { url } of nodes) if (await answers(`${url}/v1/sys/health`).catch(() => false)) return url;
    return undefined;
  };
  return {
    urls: nodes.map(({ url }) => url),
    token: initial.root_token,
    active: async () => {
      let found: string | undefined;
      const alive = nodes.find(({ url }) => !killed.has(url));
      await alive?.server.ready(async () => (found = await activeOf()) !== undefined);
      if (found === undefined) throw new Error('no node is active');
      return found;
    },
    kill: async (url) => {
      killed.add(url);
      await nodes.find((node) => node.url === url)?.server.stop();
    },
    stop: async () => {
      for (const { server, home } of nodes) {
        await server.stop();
        rmSync(home, { recursive: true, force: true });
      }
    },
  };
}
