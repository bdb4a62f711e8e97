import { createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { loadCatalog } from '../../src/catalog/load.ts';
import { loadProviders } from '../../src/catalog/provider-registry.ts';
import { signCatalog } from '../../src/identity/catalog-signature.ts';
import { ask, type Reply } from '../support/ask.ts';
import { startCli } from '../support/cli.ts';
import { type House, startHouse } from '../support/house.ts';
import { operatorsOf } from '../support/operators.ts';

const WAIT = { timeout: 60_000, interval: 50 };
const APPLY = '/v1/catalog/apply';

type Files = Readonly<Record<string, string>>;

let house: House;
let folder: string;
let keys: string;
let providers: Awaited<ReturnType<typeof loadProviders>>;
let made = 0;
const key = generateKeyPairSync('ed25519').privateKey;
const stranger = generateKeyPairSync('ed25519').privateKey;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'mayfly-signed-'));
  keys = join(folder, 'keys.json');
  const jwk = { ...createPublicKey(key).export({ format: 'jwk' }), kid: 'platform' };
  writeFileSync(keys, JSON.stringify({ keys: [jwk] }));
  house = await startHouse();
  providers = await loadProviders(['postgres']);
});
afterAll(async () => {
  rmSync(folder, { recursive: true, force: true });
  await house?.stop();
});

const another = (): Files => ({ ...house.files, 'policies/own.cedar': `// The ${++made}th.\n` });
const asJwk = (one: KeyObject) => JSON.stringify({ ...one.export({ format: 'jwk' }), kid: 'platform' });
const signed = async (files: Files, by = key, at = new Date()) =>
  await signCatalog(asJwk(by), loadCatalog(files, { providers, allowDev: true }), null, at);
const apply = async (url: string, files: Files, signature?: string, more: object = {}) =>
  await ask(url, 'POST', APPLY, {
    token: await operatorsOf(house).token('admin'),
    body: { files, ...(signature === undefined ? {} : { signature }), ...more },
  });
const said = ({ status, body }: Reply) => [status, body['code'] ?? 'done'];
const inForce = async (url: string) =>
  (await ask(url, 'GET', '/v1/catalog', { token: await operatorsOf(house).token('viewer') })).body;
const ready = async (url: string) => (await fetch(`${url}/readyz`)).status;

const terminal = () => ({
  MAYFLY_DATABASE_URL: house.store.runtimeUrl.reveal(),
  MAYFLY_PROVIDERS: 'postgres',
  MAYFLY_CATALOG_KEYS: keys,
});

/** `mayfly catalog apply` where the keys are known. */
async function applyOnStore(files: Files, signature?: string) {
  const to = join(folder, 'catalog');
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(to, path)), { recursive: true });
    writeFileSync(join(to, path), text);
  }
  if (signature !== undefined) writeFileSync(join(folder, 'signature'), signature);
  const by = signature === undefined ? [] : ['--signature', join(folder, 'signature')];
  return await startCli(['catalog', 'apply', to, ...by], { env: terminal() }).ended;
}

test('a replica that asks for a signature applies and loads only what one of its keys vouches for', async () => {
  // As keys are rolled out: by a terminal that has them, before any broker asks for them.
  const first = another();
  const begun = await applyOnStore(first, await signed(first));
  expect([begun.code, begun.stderr]).toEqual([0, '']);
  const replica = await house.startReplica({ MAYFLY_CATALOG_KEYS: keys });
  await vi.waitFor(async () => expect(await ready(replica.url)).toBe(200), WAIT);
  expect(await inForce(replica.url)).toMatchObject({ signed: true });

  const next = another();
  // One that has no keys can not tell, and takes nothing in the place of what was signed.
  expect(said(await apply(house.url, next, await signed(next)))).toEqual([422, 'catalog_signature_missing']);
  expect(said(await apply(replica.url, next))).toEqual([422, 'catalog_signature_missing']);
  expect(said(await apply(replica.url, next, await signed(next, stranger)))).toEqual([
    422,
    'catalog_signature_invalid',
  ]);
  expect(said(await apply(replica.url, next, await signed(first)))).toEqual([422, 'catalog_signature_mismatch']);
  const old = new Date(Date.now() - 86_500_000);
  expect(said(await apply(replica.url, next, await signed(next, key, old)))).toEqual([422, 'catalog_signature_old']);
  expect(said(await apply(replica.url, next, await signed(next), { commit: 'c0ffee' }))).toEqual([
    422,
    'catalog_signature_mismatch',
  ]);
  expect(said(await apply(replica.url, next, await signed(next)))).toEqual([201, 'done']);
  const { digest } = loadCatalog(next, { providers, allowDev: true });
  expect(await inForce(replica.url)).toMatchObject({ digest, signed: true });

  // As by somebody who writes into the store: the one before stays, and nothing begins.
  await house.broker.apply(another());
  const client = house.client('agent-recon', replica.url);
  await vi.waitFor(
    async () => await expect(client.openTask(await house.sign())).rejects.toMatchObject({ code: 'not_ready' }),
    WAIT,
  );
  const fresh = await house.startReplica({ MAYFLY_CATALOG_KEYS: keys });
  expect(await ready(fresh.url)).toBe(503);

  // Whoever has the store and the signature mends it.
  const mended = another();
  const unsigned = await applyOnStore(mended);
  expect([unsigned.code, unsigned.stderr]).toEqual([1, expect.stringContaining('is not signed')]);
  writeFileSync(join(folder, 'key.json'), asJwk(key));
  const to = join(folder, 'catalog');
  const signing = ['catalog', 'sign', to, '--key', join(folder, 'key.json'), '--commit', 'c0ffee'];
  const word = await startCli(signing, { env: terminal() }).ended;
  const applied = await applyOnStore(mended, word.stdout);
  expect([applied.code, applied.stderr]).toEqual([0, '']);
  for (const { url } of [replica, fresh]) await vi.waitFor(async () => expect(await ready(url)).toBe(200), WAIT);
  await vi.waitFor(async () => expect((await client.openTask(await house.sign())).task.state).toBe('active'), WAIT);
  expect(await inForce(replica.url)).toMatchObject({ commit: 'c0ffee', signed: true });

  // A row that was changed where it stands is noticed by whoever loads it next.
  await house.onStore(
    `UPDATE mayfly.catalog_revisions SET files = jsonb_set(files, '{policies/own.cedar}', '"// Changed.\\n"')
     WHERE number = (SELECT revision FROM mayfly.catalog_active)`,
  );
  expect(await ready((await house.startReplica({ MAYFLY_CATALOG_KEYS: keys })).url)).toBe(503);
  await vi.waitFor(async () => expect(await ready(replica.url)).toBe(200), WAIT);
}, 180_000);
