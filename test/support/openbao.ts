import { randomUUID } from 'node:crypto';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { freePort } from './free-port.ts';
import type { GoServer } from './go-server.ts';
import { answers, makeServerFolder, type ServerProcess, startServer } from './server-process.ts';

const version = '2.4.0';
export const openbaoSources: GoServer = {
  name: 'openbao',
  version,
  binaries: ['bao'],
  variables: [`github.com/openbao/openbao/version.fullVersion=${version}`],
};

/** A server with this API, built: OpenBao, or another of those in its family. */
export interface VaultFlavour {
  /** With its version: `OpenBao 2.4.0`. */
  readonly name: string;
  /** Undefined where there is none. */
  readonly folder: string | undefined;
  readonly binary: string;
}

export interface OpenbaoServer extends Pick<ServerProcess, 'log' | 'stop'> {
  readonly url: string;
  /** The root token. */
  readonly token: string;
}

/** A server of its own in dev mode: unsealed, everything in memory. @param folder With its binary. */
export async function startOpenbao(folder: string, binary = 'bao'): Promise<OpenbaoServer> {
  const url = `http://127.0.0.1:${await freePort()}`;
  const token = randomUUID();
  const args = [
    'server',
    '-dev',
    '-dev-no-store-token',
    `-dev-root-token-id=${token}`,
    `-dev-listen-address=${new URL(url).host}`,
  ];
  const server = startServer(makeServerFolder('openbao'), join(folder, binary), args);
  await server.ready(() => answers(`${url}/v1/sys/health`));
  return { url, token, log: () => server.log(), stop: () => server.stop() };
}

export interface SealedOpenbao extends OpenbaoServer {
  /** Without TLS, for whom a test needs no CA for. The same as `url` where there is none. */
  readonly plainUrl: string;
  /** Goes down and comes back at the same address with its data, unsealed. */
  restart(): Promise<void>;
  unseal(): Promise<void>;
}

/** A server of its own with its data on disk, initialised and unsealed. @param tls Its certificate and key, in files. */
export async function startOpenbaoOnDisk(
  folder: string,
  tls?: { readonly certificate: string; readonly key: string },
  /** Its program, and how long it works on one request at most: its own 90 s by default. */
  { binary = 'bao', requestSeconds = 90 }: { readonly binary?: string; readonly requestSeconds?: number } = {},
): Promise<SealedOpenbao> {
  const home = makeServerFolder('openbao');
  const port = await freePort();
  const url = `${tls === undefined ? 'http' : 'https'}://127.0.0.1:${port}`;
  // What an administrator does goes by a listener of its own, so that no test needs the CA for that.
  const plain = `http://127.0.0.1:${tls === undefined ? port : await freePort()}`;
  const listen = (at: string, over: object) => ({
    tcp: { address: new URL(at).host, max_request_duration: `${requestSeconds}s`, ...over },
  });
  const listeners = [listen(plain, { tls_disable: true })];
  if (tls !== undefined) listeners.push(listen(url, { tls_cert_file: tls.certificate, tls_key_file: tls.key }));
  const config = join(home, 'config.json');
  const settings = { storage: { file: { path: join(home, 'data') } }, listener: listeners, api_addr: plain };
  writeFileSync(config, JSON.stringify(settings));
  const ask = async (path: string, body: object): Promise<Record<string, unknown>> => {
    const response = await fetch(`${plain}/v1/${path}`, { method: 'POST', body: JSON.stringify(body) });
    return z.record(z.string(), z.unknown()).parse(await response.json());
  };
  const start = async (): Promise<ServerProcess> => {
    const process = startServer(makeServerFolder('openbao-run'), join(folder, binary), ['server', `-config=${config}`]);
    await process.ready(async () => (await fetch(`${plain}/v1/sys/health`)).status > 0);
    return process;
  };
  let server = await start();
  const initial = z
    .object({ keys: z.array(z.string()), root_token: z.string() })
    .parse(await ask('sys/init', { secret_shares: 1, secret_threshold: 1 }));
  const unseal = async (): Promise<void> => {
    await ask('sys/unseal', { key: initial.keys[0] });
    await server.ready(() => answers(`${plain}/v1/sys/health`));
  };
  await unseal();
  return {
    ...{ url, plainUrl: plain, token: initial.root_token, unseal },
    log: () => server.log(),
    restart: async () => {
      await server.stop();
      server = await start();
      await unseal();
    },
    stop: async () => {
      await server.stop();
      rmSync(home, { recursive: true, force: true });
    },
  };
}
