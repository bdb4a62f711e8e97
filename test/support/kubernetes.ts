import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { askTls } from './ask-tls.ts';
import { makeCertificate } from './certificates.ts';
import { freePort } from './free-port.ts';
import type { GoServer } from './go-server.ts';
import { answers, makeServerFolder, type ServerProcess, startServer } from './server-process.ts';

const version = '1.34.4';
export const kubernetesSources: GoServer = {
  name: 'kubernetes',
  version,
  binaries: ['etcd', 'kube-apiserver'],
  // Without it the API server can not read its own version.
  variables: [`k8s.io/component-base/version.gitVersion=v${version}`],
};

/** An API server and its etcd. Nothing runs in its pods: tokens and their ends need none of that. */
export interface Cluster extends Pick<ServerProcess, 'stop'> {
  readonly url: string;
  /** Of the authority that its certificate is from. */
  readonly caFile: string;
  readonly caPem: string;
  /** As its administrator. Throws unless it succeeds. */
  call(method: 'GET' | 'POST' | 'DELETE', path: string, body?: object): Promise<Readonly<Record<string, unknown>>>;
  serviceAccount(namespace: string, name: string): Promise<void>;
  /** On the one node that there is. */
  pod(namespace: string, name: string, serviceAccount: string): Promise<void>;
  /** What the kubelet would project into that pod, or one that is bound to none. @param audience Default: the API server itself. */
  token(account: Account, audience?: string, pod?: string): Promise<string>;
  /** At once, as when the kubelet has said that it is over. */
  remove(namespace: string, kind: 'pods' | 'serviceaccounts', name: string): Promise<void>;
}

export interface Account {
  readonly namespace: string;
  readonly name: string;
}

const NODE = 'node-1';
const tokenAnswer = z.object({ status: z.object({ token: z.string() }) });

/** @param binaries The folder with both. */
export async function startKubernetes(binaries: string): Promise<Cluster> {
  const [clientPort, peerPort, port] = [await freePort(), await freePort(), await freePort()];
  const etcdUrl = `http://127.0.0.1:${clientPort}`;
  const etcdFolder = makeServerFolder('etcd');
  const etcd = startServer(etcdFolder, join(binaries, 'etcd'), [
    ...['--data-dir', join(etcdFolder, 'data'), '--unsafe-no-fsync'],
    ...['--listen-client-urls', etcdUrl, '--advertise-client-urls', etcdUrl],
    ...['--listen-peer-urls', `http://127.0.0.1:${peerPort}`],
    ...['--initial-advertise-peer-urls', `http://127.0.0.1:${peerPort}`],
    ...['--initial-cluster', `default=http://127.0.0.1:${peerPort}`],
  ]);
  await etcd.ready(() => answers(`${etcdUrl}/health`));
  try {
    return await startApiServer(binaries, etcd, etcdUrl, port);
  } catch (error) {
    await etcd.stop();
    throw error;
  }
}

async function startApiServer(binaries: string, etcd: ServerProcess, etcdUrl: string, port: number): Promise<Cluster> {
  const folder = makeServerFolder('kubernetes');
  const file = (name: string, text: string): string => {
    writeFileSync(join(folder, name), text, { mode: 0o600 });
    return join(folder, name);
  };
  const url = `https://127.0.0.1:${port}`;
  const tls = makeCertificate(folder, ['127.0.0.1']);
  const { privateKey, publicKey } = generateKeyPairSync('rsa', {
    modulusLength: 2048,
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
    publicKeyEncoding: { type: 'spki', format: 'pem' },
  });
  const administrator = randomUUID();
  const settings = {
    'etcd-servers': etcdUrl,
    'bind-address': '127.0.0.1',
    'advertise-address': '127.0.0.1',
    'secure-port': String(port),
    'endpoint-reconciler-type': 'none',
    'service-cluster-ip-range': '10.0.0.0/24',
    'tls-cert-file': tls.certFile,
    'tls-private-key-file': tls.keyFile,
    'authorization-mode': 'RBAC',
    'token-auth-file': file('tokens.csv', `${administrator},admin,admin,system:masters\n`),
    'service-account-issuer': url,
    'service-account-jwks-uri': `${url}/openid/v1/jwks`,
    'service-account-key-file': file('accounts.pub', publicKey),
    'service-account-signing-key-file': file('accounts.key', privateKey),
  };
  const args = Object.entries(settings).map(([name, value]) => `--${name}=${value}`);
  const server = startServer(folder, join(binaries, 'kube-apiserver'), args);

  const ask = (method: string, path: string, body?: object) =>
    askTls(url, method, path, { ca: tls.caPem, token: administrator, body });
  const call: Cluster['call'] = async (method, path, body) => {
    const reply = await ask(method, path, body);
    if (reply.status >= 300) throw new Error(`${method} ${path}: ${reply.status} ${reply.text}`);
    return reply.body;
  };
  const within = (namespace: string, kind: string): string => `/api/v1/namespaces/${namespace}/${kind}`;
  await server.ready(async () => (await ask('GET', '/readyz')).status === 200);
  await call('POST', '/api/v1/nodes', { metadata: { name: NODE } });
  return {
    url,
    caFile: join(folder, 'ca.pem'),
    caPem: tls.caPem,
    call,
    async serviceAccount(namespace, name) {
      if ((await ask('GET', `/api/v1/namespaces/${namespace}`)).status === 404)
        await call('POST', '/api/v1/namespaces', { metadata: { name: namespace } });
      await call('POST', within(namespace, 'serviceaccounts'), { metadata: { name } });
    },
    async pod(namespace, name, serviceAccountName) {
      const spec = { serviceAccountName, nodeName: NODE, containers: [{ name: 'agent', image: 'agent' }] };
      await call('POST', within(namespace, 'pods'), { metadata: { name }, spec });
    },
    async token({ namespace, name }, audience, pod) {
      const spec = {
        expirationSeconds: 600,
        ...(audience === undefined ? {} : { audiences: [audience] }),
        ...(pod === undefined ? {} : { boundObjectRef: { apiVersion: 'v1', kind: 'Pod', name: pod } }),
      };
      const answer = await call('POST', `${within(namespace, 'serviceaccounts')}/${name}/token`, { spec });
      return tokenAnswer.parse(answer).status.token;
    },
    async remove(namespace, kind, name) {
      await call('DELETE', `${within(namespace, kind)}/${name}?gracePeriodSeconds=0`);
    },
    async stop() {
      await server.stop();
      await etcd.stop();
    },
  };
}
