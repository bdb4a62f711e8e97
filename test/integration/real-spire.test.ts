import { createPrivateKey, createPublicKey } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { calculateJwkThumbprint } from 'jose';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import type { Reply } from '../support/ask.ts';
import { askTls, type AskTlsOptions } from '../support/ask-tls.ts';
import { makeCertificate } from '../support/certificates.ts';
import { findGoServer } from '../support/go-server.ts';
import { type House, startHouse } from '../support/house.ts';
import { type SpireAgent, type SpireServer, spireSources, startSpire, type X509Svid } from '../support/spire.ts';

/** Whom a broker believes that trusts a SPIRE server: by the bundle that it publishes, and the SVIDs that its agent hands out. */

const READ = 'ledger-db/read-invoices';
const ID = 'spiffe://prod.example/agents/recon';
const OTHER = 'spiffe://prod.example/agents/other';
const BESIDE = 'spiffe://prod.example/batch/closing';
/** SPIRE asks that its bundle is looked at every ten seconds. */
const LOOKED_AT = { timeout: 60_000, interval: 250 };

const binaries = await findGoServer(spireSources);

describe.skipIf(binaries === undefined)('a trust domain of SPIRE', () => {
  let spire: SpireServer;
  let agent: SpireAgent;
  /** Says that it is the same trust domain. */
  let impostor: SpireServer;
  let foreign: SpireServer;
  let house: House;
  let folder: string;
  let ca: string;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'mayfly-spire-'));
    const server = makeCertificate(folder, ['127.0.0.1']);
    ca = server.caPem;
    [spire, impostor, foreign] = await Promise.all([
      startSpire(binaries ?? '', 'prod.example'),
      startSpire(binaries ?? '', 'prod.example'),
      startSpire(binaries ?? '', 'other.example', true),
    ]);
    const env = {
      NODE_EXTRA_CA_CERTS: spire.caFile,
      MAYFLY_TLS_CERT_FILE: server.certFile,
      MAYFLY_TLS_KEY_FILE: server.keyFile,
      MAYFLY_TLS_CLIENT_CERTIFICATES: 'optional',
    };
    [agent, house] = await Promise.all([
      spire.startAgent([ID, OTHER, BESIDE]),
      // Another authority for HTTPS is believed by a process from its start, or never.
      startHouse({ inProcess: false, env }),
    ]);
    await trust(`{ url: "${spire.bundleUrl}" }`);
  });
  afterAll(async () => {
    await house?.stop();
    await Promise.all([agent, spire, impostor, foreign].map((server) => server?.stop()));
    rmSync(folder, { recursive: true, force: true });
  });

  async function trust(
    bundle: string,
    files: Readonly<Record<string, string>> = {},
    domain = 'prod.example',
  ): Promise<void> {
    const sources = `workload_sources:
  - { name: prod, kind: spiffe-jwt, trust_domain: ${domain}, bundle: ${bundle}, algorithms: [ES256] }
  - { name: mesh, kind: spiffe-x509, trust_domain: ${domain}, bundle: ${bundle} }
`;
    await house.broker.apply({
      ...house.files,
      ...files,
      'trust.yaml': (house.files['trust.yaml'] ?? '')
        .replace('workloads: [', `workloads: ["prod:spiffe://${domain}/agents/*", "mesh:spiffe://${domain}/agents/*", `)
        .replace('workload_sources:\n', sources),
    });
  }

  const call = (method: string, path: string, options: Partial<AskTlsOptions> = {}): Promise<Reply> =>
    askTls(house.broker.url, method, path, { ca, ...options });
  const outcome = ({ status, body }: Reply) => [status, body['code']];
  /** As whom the caller is believed, or why not. */
  const believed = async (options: Partial<AskTlsOptions>) => {
    const { body } = await call('GET', '/v1/whoami', options);
    return body['workload'] ?? body['code'];
  };
  const open = async (options: Partial<AskTlsOptions>, workload: string, keyThumbprint?: string) => {
    const request = await house.sign({ workload, ...(keyThumbprint === undefined ? {} : { keyThumbprint }) });
    return await call('POST', '/v1/tasks', { ...options, body: { request } });
  };
  /** The agent's task, from its opening over a credential to its end. */
  const work = async (options: Partial<AskTlsOptions>, keyThumbprint?: string) => {
    const opened = await open(options, ID, keyThumbprint);
    const task = `/v1/tasks/${Object(opened.body['task']).id}`;
    const granted = await call('POST', `${task}/grants`, { ...options, body: { entitlement: READ } });
    const ended = await call('POST', `${task}/complete?wait=30`, { ...options, body: {} });
    return [opened.status, granted.status, Object(ended.body['task']).state];
  };

  describe('gives its workload a JWT-SVID', () => {
    const svid = async (id = ID) => await agent.jwtSvid(id, house.url);

    test('that opens the task of its very id, gets a credential and completes', async () => {
      const token = await svid();
      expect(await work({ token })).toEqual([201, 201, 'completed']);
    });

    test('that is nobody else of the trust domain', async () => {
      expect(outcome(await open({ token: await svid(OTHER) }, ID))).toEqual([403, 'workload_not_named']);
      expect(outcome(await open({ token: await svid(BESIDE) }, BESIDE))).toEqual([403, 'issuer_may_not_state']);
    });

    test('for another audience, or for one beside the broker: neither counts', async () => {
      const code = 'workload_token_audience_wrong';
      expect(await believed({ token: await agent.jwtSvid(ID, 'https://other.example') })).toBe(code);
      expect(await believed({ token: await agent.jwtSvid(ID, `${house.url},https://other.example`) })).toBe(code);
    });

    test('that ends when it says', async () => {
      const token = await spire.jwtSvid(ID, house.url, 2);
      expect(await believed({ token })).toBe(`prod:${ID}`);
      await vi.waitFor(async () => expect(await believed({ token })).toBe('workload_token_expired'), LOOKED_AT);
    });

    test('by a new key at once, and by the one before until that is revoked', async () => {
      const before = await svid();
      await spire.rotate('jwt');
      const renewed = await spire.jwtSvid(ID, house.url);
      expect(await believed({ token: renewed })).toBe(`prod:${ID}`);
      expect(await believed({ token: before })).toBe(`prod:${ID}`);
      await spire.revoke('jwt');
      await vi.waitFor(
        async () => expect(await believed({ token: before })).toBe('workload_token_key_unknown'),
        LOOKED_AT,
      );
      expect(await believed({ token: renewed })).toBe(`prod:${ID}`);
    });

    test('and no other server can, whatever trust domain it says it is', async () => {
      const theirs = await foreign.jwtSvid('spiffe://other.example/agents/recon', house.url);
      expect(await believed({ token: theirs })).toBe('workload_token_issuer_unknown');
      expect(await believed({ token: await impostor.jwtSvid(ID, house.url) })).toBe('workload_token_key_unknown');
    });
  });

  describe('gives its workload an X.509-SVID', () => {
    const jktOf = async ({ key }: X509Svid) =>
      await calculateJwkThumbprint({ ...createPublicKey(createPrivateKey(key)).export({ format: 'jwk' }) });

    test('that opens the task of its very id and key over mutual TLS, gets a credential and completes', async () => {
      const svid = await agent.x509Svid(ID);
      expect(await work({ shown: [svid] }, await jktOf(svid))).toEqual([201, 201, 'completed']);
    });

    test('that is nobody else of the trust domain', async () => {
      const [other, beside] = [await agent.x509Svid(OTHER), await agent.x509Svid(BESIDE)];
      const opened = await open({ shown: [other] }, ID, await jktOf(other));
      expect(outcome(opened)).toEqual([403, 'workload_not_named']);
      const named = await open({ shown: [beside] }, BESIDE, await jktOf(beside));
      expect(outcome(named)).toEqual([403, 'issuer_may_not_state']);
    });

    test('that ends when it says', async () => {
      const shown = [await spire.x509Svid(ID, 6)];
      expect(await believed({ shown })).toBe(`mesh:${ID}`);
      await vi.waitFor(async () => expect(await believed({ shown })).toBe('certificate_expired'), LOOKED_AT);
    });

    test('by a new authority at once, and by the one before until that is revoked', async () => {
      const before = await agent.x509Svid(ID);
      await spire.rotate('x509');
      const renewed = await vi.waitFor(async () => {
        const svid = await agent.x509Svid(ID);
        expect(svid.cert).not.toBe(before.cert);
        return svid;
      }, LOOKED_AT);
      expect(await believed({ shown: [renewed] })).toBe(`mesh:${ID}`);
      expect(await believed({ shown: [before] })).toBe(`mesh:${ID}`);
      await spire.revoke('x509');
      await vi.waitFor(
        async () => expect(await believed({ shown: [before] })).toBe('certificate_untrusted'),
        LOOKED_AT,
      );
      expect(await believed({ shown: [renewed] })).toBe(`mesh:${ID}`);
    });

    test('and no other server can, whatever trust domain it says it is', async () => {
      const theirs = await foreign.x509Svid('spiffe://other.example/agents/recon');
      expect(await believed({ shown: [theirs] })).toBe('certificate_issuer_unknown');
      expect(await believed({ shown: [await impostor.x509Svid(ID)] })).toBe('certificate_untrusted');
    });
  });

  test('may give its bundle as a file, too', async () => {
    await trust('{ file: keys/prod.json }', { 'keys/prod.json': await spire.bundle() });
    expect(await believed({ token: await spire.jwtSvid(ID, house.url) })).toBe(`prod:${ID}`);
    expect(await believed({ shown: [await spire.x509Svid(ID)] })).toBe(`mesh:${ID}`);
    await trust('{ file: keys/prod.json }', { 'keys/prod.json': await impostor.bundle() });
    expect(await believed({ token: await spire.jwtSvid(ID, house.url) })).toBe('workload_token_key_unknown');
    expect(await believed({ shown: [await spire.x509Svid(ID)] })).toBe('certificate_untrusted');
  });

  test('may have its authority from another one above it', async () => {
    const theirs = 'spiffe://other.example/agents/recon';
    const bundle = '{ file: keys/prod.json }';
    await trust(bundle, { 'keys/prod.json': await foreign.bundle() }, 'other.example');
    const svid = await foreign.x509Svid(theirs);
    expect(await believed({ shown: [svid] })).toBe(`mesh:${theirs}`);
    const [own = ''] = svid.cert.split(/(?<=-----END CERTIFICATE-----\n)/);
    expect(await believed({ shown: [{ ...svid, cert: own }] })).toBe('certificate_untrusted');
  });
});
