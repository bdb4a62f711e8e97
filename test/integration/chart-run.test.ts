import { type ChildProcess, spawn } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { get } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readCatalogFiles } from '../../src/catalog/files.ts';
import { compiled } from '../support/compiled.ts';
import { makeCertificate, type TestCertificate } from '../support/certificates.ts';
import { freePort } from '../support/free-port.ts';
import { findHelm, type Pod, podsOf, type Rendered, render } from '../support/helm.ts';
import { commandOf, mountVolumes, type Objects, podUser } from '../support/kubelet.ts';
import { availableVersions, type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { createStore } from '../support/store.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const main = compiled('src/cli/main.ts');
const helm = findHelm();
const [version] = availableVersions([18]);

/** The example catalog as a production store takes it: nobody in it is believed for development's sake. */
async function productionCatalog(): Promise<Record<string, string>> {
  const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const key = { ...publicKey.export({ format: 'jwk' }), kid: 'k1', alg: 'ES256', use: 'sig' };
  const { 'trust.yaml': trust = '', ...files } = await readCatalogFiles(join(root, 'catalog'));
  const trusted = trust
    .replaceAll(/^ +dev: true\n/gm, '')
    .replaceAll(/jwks: \{ url: [^}]*\}/g, 'jwks: { file: keys/all.json }')
    .replaceAll('http://127.0.0.1:7421', 'https://issuer.example.com');
  return { ...files, 'trust.yaml': trusted, 'keys/all.json': JSON.stringify({ keys: [key] }) };
}

describe.skipIf(helm === null || version === undefined)('what the chart makes, run by hand as Kubernetes would', () => {
  let folder: string;
  let server: PostgresServer;
  let certificate: TestCertificate;
  let objects: Rendered[];
  let secrets: Objects;
  const children = new Set<ChildProcess>();

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'mayfly-chart-'));
    chmodSync(folder, 0o711);
    server = await startPostgres({ version: version ?? 18 });
    const store = await createStore(server, { migrated: false });
    mkdirSync(join(folder, 'tls'));
    certificate = makeCertificate(join(folder, 'tls'), ['broker.example.com']);
    secrets = {
      'mayfly-database': { 'runtime-url': store.runtimeUrl.reveal(), 'sequencer-url': store.sequencerUrl.reveal() },
      // As people write such files: with a line end.
      'mayfly-database-owner': { url: `${store.ownerUrl.reveal()}\n` },
      'mayfly-tls': {
        'tls.crt': readFileSync(certificate.certFile, 'utf8'),
        'tls.key': readFileSync(certificate.keyFile, 'utf8'),
      },
      'ledger-db-broker': { password: 'not-asked-for-here' },
    };
    const values = {
      catalog: { files: await productionCatalog() },
      targets: { secrets: [{ target: 'ledger-db', existingSecret: 'ledger-db-broker', keys: ['password'] }] },
    };
    writeFileSync(join(folder, 'values.json'), JSON.stringify(values));
    const minimal = join(root, 'helm', 'mayfly', 'ci', 'minimal-values.yaml');
    objects = render(helm ?? '', ['--kube-version', '1.34.4', '-f', minimal, '-f', join(folder, 'values.json')]);
  });

  afterAll(async () => {
    for (const child of children) child.kill('SIGKILL');
    await server?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  interface Started {
    readonly ended: Promise<{ code: number | null; output: string }>;
    readonly child: ChildProcess;
  }

  let pods = 0;
  function start({ spec }: Pod, more: Record<string, string> = {}): Started {
    const mounts = join(folder, `pod-${++pods}`);
    const configMaps = Object.fromEntries(
      objects
        .filter(({ kind }) => kind === 'ConfigMap')
        .map(({ metadata, data }) => [metadata.name, data as Record<string, string>]),
    );
    const user = podUser(spec, main);
    mountVolumes(spec, mounts, secrets, configMaps, user);
    const [container] = spec.containers;
    if (container === undefined) throw new Error('a pod without a container');
    const { args, env } = commandOf(container, mounts);
    const child = spawn(process.execPath, [main, ...args], {
      ...user,
      cwd: root,
      env: { PATH: process.env['PATH'] ?? '', ...env, ...more },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    children.add(child);
    let output = '';
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (chunk: Buffer) => (output += chunk.toString()));
    const ended = once(child, 'close').then(([code]) => ({ code: code as number | null, output }));
    return { child, ended };
  }

  /** Runs the hooks in their order, as `helm install` and `helm upgrade` do. */
  async function runHooks(): Promise<string[]> {
    const weight = ({ metadata }: Rendered): number => Number(metadata.annotations?.['helm.sh/hook-weight']);
    const jobs = objects.filter(({ kind }) => kind === 'Job').toSorted((a, b) => weight(a) - weight(b));
    const said: string[] = [];
    for (const job of podsOf(jobs)) {
      const { code, output } = await start(job).ended;
      expect([job.owner, code, code === 0 ? '' : output]).toEqual([job.owner, 0, '']);
      said.push(output.trim());
    }
    return said;
  }

  test('migrates an empty store, applies the catalog, and does so again without a change', async () => {
    const [migrated, applied] = await runHooks();
    expect(migrated).toContain('0001_');
    expect(applied).toContain('Revision 1');
    const [again, same] = await runHooks();
    expect(again).not.toContain('0001_');
    expect(same).not.toContain('Revision');
  });

  test('then serves over TLS, is ready, answers probes by address, and ends in time', async () => {
    const [pod] = podsOf(objects.filter(({ kind }) => kind === 'Deployment'));
    if (pod === undefined) throw new Error('no Deployment');
    const port = await freePort();
    const { child, ended } = start(pod, { MAYFLY_PORT: String(port) });
    const ask = (path: string, host?: string): Promise<number> =>
      new Promise((resolve) => {
        const options = { host: '127.0.0.1', port, path, ca: certificate.caPem, servername: 'broker.example.com' };
        get({ ...options, agent: false, ...(host === undefined ? {} : { headers: { host } }) }, (response) => {
          response.resume();
          resolve(response.statusCode ?? 0);
        }).on('error', () => resolve(0));
      });
    const readiness = async (): Promise<number | 'ended'> => (child.exitCode === null ? await ask('/readyz') : 'ended');
    await expect.poll(readiness, { timeout: 60_000, interval: 200 }).toBeOneOf([200, 'ended']);
    if (child.exitCode !== null) throw new Error((await ended).output);
    expect(await ask('/healthz')).toBe(200);
    expect(await ask('/openapi.json', 'broker.example.com')).toBe(200);
    expect(await ask('/openapi.json', 'elsewhere.example.com')).toBe(400);
    child.kill('SIGTERM');
    const { code, output } = await ended;
    expect([code, code === 0 ? '' : output]).toEqual([0, '']);
    expect(output).not.toContain(server.password);
  });
});
