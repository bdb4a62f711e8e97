import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { Agent } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { calculateJwkThumbprint } from 'jose';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { AgentKey, MayflyClient, type TaskBody } from '../../src/client/index.ts';
import { thumbprintOf } from '../../src/identity/certificates/certificate.ts';
import { makeKey } from '../../src/identity/testing/keys.ts';
import { makeProof } from '../../src/identity/testing/proofs.ts';
import {
  type CertificateDraft,
  issue,
  makeAuthority,
  p256,
  type TestCertificate,
} from '../../src/identity/testing/svids.ts';
import type { Reply } from '../support/ask.ts';
import { ask } from '../support/ask.ts';
import { askTls, type AskTlsOptions } from '../support/ask-tls.ts';
import type { RunningBroker } from '../support/broker-process.ts';
import { makeCertificate } from '../support/certificates.ts';
import { forge } from '../support/forge.ts';
import { type House, startHouse } from '../support/house.ts';

/** A broker that asks for client certificates, beside one on a plain listener: who is believed by mutual TLS. */

const READ = 'ledger-db/read-invoices';
const ID = 'spiffe://prod.example/agents/recon';
const hours = (count: number) => new Date(Date.now() + count * 3600_000);
const today = { notBefore: hours(-1), notAfter: hours(1) };

const root = makeAuthority(today);
const between = issue(root, { ...today, name: 'between', authority: true });
const svid = (draft: CertificateDraft = {}): TestCertificate => issue(between, { ...today, ...draft });

let house: House;
let replica: RunningBroker;
let folder: string;
let ca: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'mayfly-mtls-'));
  house = await startHouse({ proofOfPossession: 'required' });
  const server = makeCertificate(folder, ['127.0.0.1']);
  ca = server.caPem;
  replica = await house.startReplica({
    MAYFLY_TLS_CERT_FILE: server.certFile,
    MAYFLY_TLS_KEY_FILE: server.keyFile,
    MAYFLY_TLS_CLIENT_CERTIFICATES: 'optional',
  });
  await trust([root.entry]);
});
afterAll(async () => {
  await house?.stop();
  rmSync(folder, { recursive: true, force: true });
});

async function trust(bundle: readonly object[]): Promise<void> {
  const files = {
    ...house.files,
    'keys/prod.json': JSON.stringify({ keys: bundle }),
    'trust.yaml': (house.files['trust.yaml'] ?? '')
      .replace('workloads: [', 'workloads: ["prod:spiffe://prod.example/agents/*", ')
      .replace(
        'workload_sources:',
        'workload_sources:\n  - { name: prod, kind: spiffe-x509, trust_domain: prod.example, bundle: { file: keys/prod.json } }',
      ),
  };
  await replica.apply(files);
}

const call = (method: string, path: string, options: Partial<AskTlsOptions> = {}): Promise<Reply> =>
  askTls(replica.url, method, path, { ca, ...options });
const outcome = ({ status, body }: Reply) => [status, body['code']];
const jktOf = async ({ x509 }: TestCertificate) =>
  await calculateJwkThumbprint({ ...x509.publicKey.export({ format: 'jwk' }) });
const chain = (own: TestCertificate) => [own, between];

/** For a client of ours: its calls go over connections with these certificates. */
function fetchOver(shown: readonly TestCertificate[]): typeof fetch {
  return async (input, { method = '', headers, body } = {}) => {
    const { pathname, search } = new URL(input instanceof Request ? input.url : input);
    const sent = { headers: Object.fromEntries(new Headers(headers)), body: body ?? undefined };
    const reply = await call(method, `${pathname}${search}`, { shown, ...sent });
    return new Response(reply.text, { status: reply.status });
  };
}

/** A task that names that key, opened by the workload of that certificate. */
async function openBy(own: TestCertificate): Promise<string> {
  const request = await house.sign({ workload: ID, keyThumbprint: await jktOf(own) });
  const opened = await call('POST', '/v1/tasks', { shown: chain(own), body: { request } });
  expect(opened.status).toBe(201);
  return `/v1/tasks/${(opened.body['task'] as TaskBody).id}`;
}

describe('an agent with its X.509-SVID, and no token', () => {
  test('opens a task that names its key, mints, and completes', async () => {
    const shown = chain(svid());
    const task = await openBy(shown[0] ?? between);
    expect((await call('GET', task, { shown })).body).toMatchObject({ workload: `prod:${ID}`, state: 'active' });
    expect((await call('POST', `${task}/grants`, { shown, body: { entitlement: READ } })).status).toBe(201);
    expect((await call('POST', `${task}/complete?wait=30`, { shown, body: {} })).body).toMatchObject({
      task: { state: 'completed' },
    });
  });

  test('owns it with that key: in a renewed certificate too, and in no other, be it of the same workload', async () => {
    const keys = p256();
    const task = await openBy(svid({ keys }));
    expect((await call('GET', task, { shown: chain(svid({ keys })) })).status).toBe(200);
    for (const other of [svid(), svid({ keys, uris: ['spiffe://prod.example/agents/other'] })])
      expect(outcome(await call('GET', task, { shown: chain(other) }))).toEqual([404, 'not_found']);
  });

  test('can not open a task that names another key', async () => {
    const request = await house.sign({ workload: ID, keyThumbprint: await jktOf(svid()) });
    expect(outcome(await call('POST', '/v1/tasks', { shown: chain(svid()), body: { request } }))).toEqual([
      401,
      'request_key_wrong',
    ]);
  });

  test('may prove a key that outlives its certificates, once by each proof', async () => {
    const key = makeKey('agent');
    const proofFor = (method: string, path: string) => ({
      dpop: makeProof(key, { method, url: `${house.url}${path}`, token: null, now: new Date() }),
    });
    const { kty, crv, x, y } = Object(key.jwk);
    const request = await house.sign({ workload: ID, keyThumbprint: await calculateJwkThumbprint({ kty, crv, x, y }) });
    const headers = proofFor('POST', '/v1/tasks');
    const opened = await call('POST', '/v1/tasks', { shown: chain(svid()), headers, body: { request } });
    expect(opened.status).toBe(201);
    const task = `/v1/tasks/${(opened.body['task'] as TaskBody).id}`;
    const proof = proofFor('GET', task);
    expect((await call('GET', task, { shown: chain(svid()), headers: proof })).status).toBe(200);
    expect(outcome(await call('GET', task, { shown: chain(svid()), headers: proof }))).toEqual([401, 'proof_used']);
    expect(outcome(await call('GET', task, { shown: chain(svid()) }))).toEqual([404, 'not_found']);
  });

  test.each(['TLSv1.2', 'TLSv1.3'] as const)('is believed by each of its connections, over %s', async (maxVersion) => {
    // It remembers sessions, and would take them up again.
    const agent = new Agent({ keepAlive: false, maxVersion });
    const shown = chain(svid());
    for (let connection = 1; connection <= 3; connection++)
      expect(outcome(await call('GET', '/v1/tasks/none', { shown, agent }))).toEqual([404, 'not_found']);
  });

  test('has a client of ours for it, with a key of its own', async () => {
    const key = await AgentKey.make();
    const shown = chain(svid());
    const client = new MayflyClient({ url: house.url, key, fetch: fetchOver(shown) });
    const { task } = await client.openTask(await house.sign({ workload: ID, keyThumbprint: key.thumbprint }));
    expect((await client.complete(task.id)).task).toMatchObject({ state: 'completed', workload: `prod:${ID}` });
  });

  test('of which openssl made every part is believed', async () => {
    const { own, anchor } = byOpenssl(folder);
    await trust([root.entry, { use: 'x509-svid', kty: 'EC', x5c: [anchor] }]);
    expect(outcome(await call('GET', '/v1/tasks/none', { shown: [own] }))).toEqual([404, 'not_found']);
  });
});

describe('a client certificate is refused', () => {
  test.each<[string, string, () => readonly TestCertificate[]]>([
    [
      'certificate_untrusted',
      'signed by itself',
      () => [makeAuthority({ ...today, authority: false, uris: [ID], usages: [0] })],
    ],
    ['certificate_untrusted', 'without those between it and the bundle', () => [svid()]],
    ['certificate_untrusted', 'of another authority of the same name', () => [issue(makeAuthority(today), today)]],
    [
      'certificate_issuer_unknown',
      'of another trust domain',
      () => chain(svid({ uris: ['spiffe://other.example/a'] })),
    ],
    ['certificate_expired', 'that is over', () => chain(svid({ notAfter: hours(-0.5) }))],
    ['certificate_not_yet_valid', 'that has not begun', () => chain(svid({ notBefore: hours(0.5) }))],
    ['certificate_refused', 'of two workloads', () => chain(svid({ uris: [ID, 'spiffe://prod.example/agents/b'] }))],
    ['certificate_refused', 'of no workload', () => chain(svid({ uris: [], dns: ['agent.example'] }))],
    ['certificate_refused', 'of an authority', () => [between, root]],
    ['certificate_refused', 'that may sign others', () => chain(svid({ usages: [0, 5] }))],
  ])('as %s: one %s', async (code, _what, shown) => {
    const reply = await call('GET', '/v1/tasks/none', { shown: shown() });
    expect(outcome(reply)).toEqual([401, code]);
    expect(reply.headers['www-authenticate']).toMatch(
      new RegExp(`^Bearer realm="mayfly", .*, error="invalid_token", error_description="${code}"$`),
    );
  });

  test('as missing: none; and what a proxy says of one in headers counts for nothing', async () => {
    const { cert } = svid();
    const pem = encodeURIComponent(cert);
    const headers = {
      'x-forwarded-client-cert': `By=spiffe://prod.example/proxy;URI=${ID};Cert="${pem}"`,
      'x-ssl-client-cert': pem,
      'ssl-client-verify': 'SUCCESS',
      'client-cert': `:${cert.replace(/-----[^-]+-----|\n/g, '')}:`,
      'x-client-cert': pem,
    };
    expect(outcome(await call('GET', '/v1/tasks/none'))).toEqual([401, 'workload_token_missing']);
    expect(outcome(await call('GET', '/v1/tasks/none', { headers }))).toEqual([401, 'workload_token_missing']);
    const plain = await ask(house.url, 'GET', '/v1/tasks/none', { headers });
    expect(outcome(plain)).toEqual([401, 'workload_token_missing']);
  });

  test('on the very connection where it was believed, once the bundle does not vouch for it any more', async () => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    try {
      const shown = chain(svid());
      const status = async () => outcome(await call('GET', '/v1/tasks/none', { shown, agent }));
      expect(await status()).toEqual([404, 'not_found']);
      await trust([]);
      expect(await status()).toEqual([401, 'certificate_untrusted']);
      await trust([root.entry]);
      expect(await status()).toEqual([404, 'not_found']);
      expect(Object.values(agent.freeSockets).flat()).toHaveLength(1);
    } finally {
      agent.destroy();
    }
  });
});

describe('a workload token that is bound to a certificate', () => {
  const own = svid();
  const bound = async () => {
    const cnf = { 'x5t#S256': thumbprintOf(own.x509) };
    return forge(house.devDir, 'workloads', await house.token(), ({ claims }) => void (claims['cnf'] = cnf));
  };

  test('counts over a connection with that certificate, and proves its key', async () => {
    const token = await bound();
    const request = await house.sign({ keyThumbprint: await jktOf(own) });
    const opened = await call('POST', '/v1/tasks', { token, shown: [own], body: { request } });
    expect(opened.status).toBe(201);
    const task = `/v1/tasks/${(opened.body['task'] as TaskBody).id}`;
    expect((await call('GET', task, { token, shown: [own] })).body).toMatchObject({ workload: 'dev:agent-recon' });
    // Nor is the stolen token of any use, with a certificate of the thief's or without.
    expect(outcome(await call('GET', task, { token, shown: [svid()] }))).toEqual([401, 'certificate_wrong']);
    expect(outcome(await call('GET', task, { token }))).toEqual([401, 'certificate_missing']);
    expect(outcome(await ask(house.url, 'GET', task, { token }))).toEqual([401, 'certificate_missing']);
  });

  test('comes as a bearer token from a client of ours, also beside a proof', async () => {
    const key = await AgentKey.make();
    const client = new MayflyClient({ url: house.url, token: bound, key, fetch: fetchOver([own]) });
    const { task } = await client.openTask(await house.sign({ keyThumbprint: key.thumbprint }));
    expect(await client.task(task.id)).toMatchObject({ workload: 'dev:agent-recon' });
  });

  test('is no other’s: one that is bound to none leads to its tasks by the certificate’s key alone', async () => {
    const token = await house.token();
    const request = await house.sign({ keyThumbprint: await jktOf(own) });
    const opened = await call('POST', '/v1/tasks', { token, shown: [own], body: { request } });
    const task = `/v1/tasks/${(opened.body['task'] as TaskBody).id}`;
    expect((await call('GET', task, { token, shown: [own] })).status).toBe(200);
    expect(outcome(await call('GET', task, { token, shown: [svid()] }))).toEqual([404, 'not_found']);
    expect(outcome(await call('GET', task, { token }))).toEqual([404, 'not_found']);
  });
});

/** A root and an SVID by the `openssl` binary, and the root as a bundle has it. */
function byOpenssl(cwd: string): { readonly own: { cert: string; key: string }; readonly anchor: string } {
  const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd, stdio: 'pipe' });
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '1'];
  const extensions = (...all: string[]) => all.flatMap((text) => ['-addext', text]);
  openssl(
    ...['req', '-x509', ...key, '-subj', '/C=US/O=SPIRE', '-keyout', 'spire.key', '-out', 'spire.pem'],
    ...extensions('keyUsage=critical,keyCertSign,cRLSign', 'subjectAltName=URI:spiffe://prod.example'),
  );
  openssl('req', ...key.slice(0, -2), '-subj', '/C=US/O=SPIRE', '-keyout', 'svid.key', '-out', 'svid.csr');
  writeFileSync(
    join(cwd, 'svid.ext'),
    `basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature,keyEncipherment\nextendedKeyUsage=serverAuth,clientAuth
subjectAltName=URI:${ID}\nauthorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n`,
  );
  openssl(
    ...['x509', '-req', '-in', 'svid.csr', '-CA', 'spire.pem', '-CAkey', 'spire.key', '-CAcreateserial', '-days', '1'],
    ...['-extfile', 'svid.ext', '-out', 'svid.pem'],
  );
  const read = (name: string) => readFileSync(join(cwd, name), 'utf8');
  return {
    own: { cert: read('svid.pem'), key: read('svid.key') },
    anchor: read('spire.pem').replace(/-----[^-]+-----|\n/g, ''),
  };
}
