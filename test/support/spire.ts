import { X509Certificate } from 'node:crypto';
import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { z } from 'zod';
import { makeCertificate } from './certificates.ts';
import { freePort } from './free-port.ts';
import type { GoServer } from './go-server.ts';
import { makeServerFolder, type ServerProcess, startServer } from './server-process.ts';

export const spireSources: GoServer = {
  name: 'spire',
  version: '1.13.3',
  binaries: ['spire-server', 'spire-agent'],
};

/** An X.509-SVID and what leads to the bundle, as PEM. */
export interface X509Svid {
  readonly cert: string;
  readonly key: string;
}

/** What a workload gets, without any secret of its own: it is known by its user id. */
export interface SpireAgent extends Pick<ServerProcess, 'stop'> {
  jwtSvid(id: string, audience: string): Promise<string>;
  x509Svid(id: string): Promise<X509Svid>;
}

export interface SpireServer extends Pick<ServerProcess, 'stop'> {
  /** Of the trust domain's bundle. It asks to be looked at every ten seconds. */
  readonly bundleUrl: string;
  /** Of the authority that the certificate there is from. */
  readonly caFile: string;
  /** The bundle as it is now. */
  bundle(): Promise<string>;
  /** SVIDs by word of its administrator. @param seconds How long they live. */
  jwtSvid(id: string, audience: string, seconds?: number): Promise<string>;
  x509Svid(id: string, seconds?: number): Promise<X509Svid>;
  /** From now on it signs by a new authority of that kind, and agents get new SVIDs. What the one before signed holds until `revoke`. */
  rotate(kind: 'jwt' | 'x509'): Promise<void>;
  /** Takes the authority before the present one out of the bundle. */
  revoke(kind: 'jwt' | 'x509'): Promise<void>;
  /** @param ids Of all workloads with our user id. */
  startAgent(ids: readonly string[]): Promise<SpireAgent>;
}

const authority = z.object({ authority_id: z.string() });
const authorities = z.object({ old: authority });
const prepared = z.object({ prepared_authority: authority });

/**
 * A server of its own.
 * @param binaries The folder with both.
 * @param upstream Its authorities are below one that is not its own: its X.509-SVIDs have two certificates then, and `rotate('x509')` is not for it.
 */
export async function startSpire(binaries: string, trustDomain: string, upstream = false): Promise<SpireServer> {
  const folder = makeServerFolder('spire');
  const socket = join(folder, 'server.sock');
  const [port, bundlePort] = [await freePort(), await freePort()];
  const tls = makeCertificate(folder, ['127.0.0.1']);
  const caFile = join(folder, 'ca.pem');
  const config = join(folder, 'server.conf');
  const above = `UpstreamAuthority "disk" { plugin_data { cert_file_path = "${caFile}", key_file_path = "${join(folder, 'ca.key')}" } }`;
  writeFileSync(
    config,
    `server {
  bind_address = "127.0.0.1"
  bind_port = ${port}
  socket_path = "${socket}"
  trust_domain = "${trustDomain}"
  jwt_issuer = "https://oidc.${trustDomain}"
  data_dir = "${folder}"
  federation {
    bundle_endpoint {
      address = "127.0.0.1"
      port = ${bundlePort}
      refresh_hint = "10s"
      profile "https_web" {
        serving_cert_file {
          cert_file_path = "${tls.certFile}"
          key_file_path = "${tls.keyFile}"
          file_sync_interval = "1h"
        }
      }
    }
  }
}
plugins {
  DataStore "sql" { plugin_data { database_type = "sqlite3", connection_string = "${join(folder, 'store.sqlite3')}" } }
  NodeAttestor "join_token" { plugin_data {} }
  KeyManager "memory" { plugin_data {} }
  ${upstream ? above : ''}
}
`,
  );
  const server = startServer(folder, join(binaries, 'spire-server'), ['run', '-config', config]);
  const run = async (command: string, ...args: readonly string[]): Promise<string> =>
    await output(join(binaries, 'spire-server'), [...command.split(' '), '-socketPath', socket, ...args]);
  const lifetime = (seconds: number | undefined) => (seconds === undefined ? [] : ['-ttl', `${seconds}s`]);
  const old = async (kind: string) =>
    authorities.parse(JSON.parse(await run(`localauthority ${kind} show`, '-output', 'json'))).old.authority_id;
  await server.ready(async () => (await run('healthcheck')) !== '');
  return {
    bundleUrl: `https://127.0.0.1:${bundlePort}`,
    caFile,
    stop: () => server.stop(),
    bundle: () => run('bundle show', '-format', 'spiffe'),
    jwtSvid: async (id, audience, seconds) =>
      (await run('jwt mint', '-spiffeID', id, '-audience', audience, ...lifetime(seconds))).trim(),
    async x509Svid(id, seconds) {
      const into = mkdtempSync(join(folder, 'svid-'));
      await run('x509 mint', '-spiffeID', id, '-write', into, ...lifetime(seconds));
      return { cert: readFileSync(join(into, 'svid.pem'), 'utf8'), key: readFileSync(join(into, 'key.pem'), 'utf8') };
    },
    async rotate(kind) {
      const next = prepared.parse(JSON.parse(await run(`localauthority ${kind} prepare`, '-output', 'json')));
      await run(`localauthority ${kind} activate`, '-authorityID', next.prepared_authority.authority_id);
      await run(`localauthority ${kind} taint`, '-authorityID', await old(kind));
    },
    async revoke(kind) {
      await run(`localauthority ${kind} revoke`, '-authorityID', await old(kind));
    },
    async startAgent(ids) {
      const node = `spiffe://${trustDomain}/node`;
      const token = (await run('token generate', '-spiffeID', node)).replace(/^Token: /, '').trim();
      for (const id of ids)
        await run('entry create', '-parentID', node, '-spiffeID', id, '-selector', `unix:uid:${process.getuid?.()}`);
      return await startAgent({ binaries, trustDomain, port, token, bundle: await run('bundle show') });
    },
  };
}

interface Joining {
  readonly binaries: string;
  readonly trustDomain: string;
  /** The server's. */
  readonly port: number;
  readonly token: string;
  /** As PEM. */
  readonly bundle: string;
}

async function startAgent({ binaries, trustDomain, port, token, bundle }: Joining): Promise<SpireAgent> {
  const folder = makeServerFolder('spire-agent');
  const socket = join(folder, 'agent.sock');
  const config = join(folder, 'agent.conf');
  const bundleFile = join(folder, 'bundle.pem');
  writeFileSync(bundleFile, bundle);
  writeFileSync(
    config,
    `agent {
  data_dir = "${folder}"
  server_address = "127.0.0.1"
  server_port = ${port}
  socket_path = "${socket}"
  trust_bundle_path = "${bundleFile}"
  trust_domain = "${trustDomain}"
  join_token = "${token}"
}
plugins {
  NodeAttestor "join_token" { plugin_data {} }
  KeyManager "memory" { plugin_data {} }
  WorkloadAttestor "unix" { plugin_data {} }
}
`,
  );
  const agent = startServer(folder, join(binaries, 'spire-agent'), ['run', '-config', config]);
  const fetch = (kind: string, ...args: readonly string[]) =>
    output(join(binaries, 'spire-agent'), ['api', 'fetch', kind, '-socketPath', socket, '-timeout', '10s', ...args]);
  await agent.ready(async () => (await fetch('x509')) !== '');
  return {
    stop: () => agent.stop(),
    async jwtSvid(id, audience) {
      const [, svid = ''] = /^\t(\S+)$/m.exec(await fetch('jwt', '-spiffeID', id, '-audience', audience)) ?? [];
      return svid;
    },
    async x509Svid(id) {
      const into = mkdtempSync(join(folder, 'svid-'));
      await fetch('x509', '-write', into);
      const files = readdirSync(into).filter((name) => name.startsWith('svid.') && name.endsWith('.pem'));
      for (const file of files) {
        const cert = readFileSync(join(into, file), 'utf8');
        if (new X509Certificate(cert).subjectAltName !== `URI:${id}`) continue;
        return { cert, key: readFileSync(join(into, file.replace(/pem$/, 'key')), 'utf8') };
      }
      throw new Error(`the agent has no X.509-SVID of ${id}`);
    },
  };
}

async function output(command: string, args: readonly string[]): Promise<string> {
  return (await promisify(execFile)(command, args)).stdout;
}
