import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
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

export interface OpenbaoServer extends Pick<ServerProcess, 'log' | 'stop'> {
  readonly url: string;
  /** The root token. */
  readonly token: string;
}

/** A server of its own in dev mode: unsealed, everything in memory. @param folder With its binary. */
export async function startOpenbao(folder: string): Promise<OpenbaoServer> {
  const url = `http://127.0.0.1:${await freePort()}`;
  const token = randomUUID();
  const args = [
    'server',
    '-dev',
    '-dev-no-store-token',
    `-dev-root-token-id=${token}`,
    `-dev-listen-address=${new URL(url).host}`,
  ];
  const server = startServer(makeServerFolder('openbao'), join(folder, 'bao'), args);
  await server.ready(() => answers(`${url}/v1/sys/health`));
  return { url, token, log: () => server.log(), stop: () => server.stop() };
}
