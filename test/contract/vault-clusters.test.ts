import { once } from 'node:events';
import { createServer, request, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { startOpenbaoCluster, type OpenbaoCluster } from '../support/openbao-cluster.ts';
import {
  ask,
  entitlement,
  intend,
  make,
  openbaoFolder,
  soon,
  startVaultHouse,
  type VaultHouse,
} from './vault-fixture.ts';

const token = entitlement({ mode: 'token', policies: ['agent'], probe_path: 'secret/data/agents/one' });

async function agentsIn(house: VaultHouse): Promise<void> {
  await house.root('POST', 'sys/policies/acl/agent', {
    policy: 'path "secret/data/agents/*" { capabilities = ["read"] }',
  });
  await house.root('POST', 'secret/data/agents/one', { data: { password: 'of-one' } });
}

const worksAt = async (url: string, own: unknown) =>
  (await ask(url, String(own), 'GET', 'secret/data/agents/one')).status === 200;

/** What stands before a node. It decides by the path of each call where that goes: to a node, or nowhere any more. */
async function startFront(to: (path: string) => string | null): Promise<{ url: string; close(): void }> {
  const server: Server = createServer((asked, answer) => {
    const node = to(asked.url ?? '');
    if (node === null) {
      asked.socket.destroy();
      return;
    }
    const { method = 'GET', headers } = asked;
    const on = request(node + (asked.url ?? ''), { method, headers }, (answered) => {
      answer.writeHead(answered.statusCode ?? 500, answered.headers);
      answered.pipe(answer);
    });
    on.on('error', () => asked.socket.destroy());
    asked.pipe(on);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return { url, close: () => server.closeAllConnections() };
}

describe.skipIf(openbaoFolder === undefined)('two clusters that one broker can log in to', () => {
  let one: VaultHouse;
  let other: VaultHouse;

  beforeAll(async () => {
    one = await startVaultHouse({ entitlements: [token] });
    other = await startVaultHouse({ entitlements: [token], installation: one.installation });
    await other.root('POST', 'auth/approle/role/mayfly-broker/custom-secret-id', {
      secret_id: one.secrets.get('file:secret-id'),
    });
    await agentsIn(one);
    await agentsIn(other);
  });
  afterEach(() => {
    vi.restoreAllMocks();
    ahead = 0;
  });
  afterAll(async () => {
    await one?.stop();
    await other?.stop();
  });

  const now = performance.now.bind(performance);
  let ahead = 0;

  /** A login that is young is not doubted. */
  function ageLogins(): void {
    ahead += 60_000;
    vi.spyOn(performance, 'now').mockImplementation(() => now() + ahead);
  }

  test('the one dies behind its health: what the other does not know is not gone', async () => {
    let dying = false;
    let dead = false;
    const front = await startFront((path) => {
      dead ||= dying && path !== '/v1/sys/health';
      return dead ? null : one.bao.url;
    });
    const session = one.connect({ addresses: [front.url, other.bao.url] });
    const { ref, secret } = await make(session, intend(session, token));
    expect(await session.verify([ref], soon())).toMatchObject([{ ok: true, contained: false }]);
    ageLogins();
    dying = true;
    const seen = await session.verify([ref], soon()).catch((error: unknown) => [{ ok: false, error }]);
    expect(seen).toMatchObject([{ ok: false, error: { errorClass: 'retryable', wholeTarget: true } }]);
    // From now on the other is asked, and says who it is.
    expect(await session.verify([ref], soon())).toMatchObject([{ ok: false, error: { errorClass: 'misconfigured' } }]);
    expect(await session.fence([ref], soon())).toMatchObject([{ ok: false, error: { errorClass: 'misconfigured' } }]);
    expect(await worksAt(one.bao.url, secret['token'])).toBe(true);
    front.close();
    await one.session.fence([ref], soon());
  });

  test('one address that leads now here, now there: what was seen meanwhile is void', async () => {
    let here = one.bao.url;
    let moves = false;
    const front = await startFront((path) => {
      if (moves && path !== '/v1/sys/health') here = other.bao.url;
      return here;
    });
    const session = one.connect({ addresses: [front.url] });
    const { ref, secret } = await make(session, intend(session, token));
    ageLogins();
    moves = true;
    const seen = await session.verify([ref], soon()).catch((error: unknown) => [{ ok: false, error }]);
    expect(seen).toMatchObject([{ ok: false, error: { errorClass: 'retryable', wholeTarget: true } }]);
    expect(await session.verify([ref], soon())).toMatchObject([{ ok: false, error: { errorClass: 'misconfigured' } }]);
    expect(await worksAt(one.bao.url, secret['token'])).toBe(true);

    // Nor does a mint note one cluster for a token that the other has.
    const lured = one.connect({ addresses: [front.url] });
    here = one.bao.url;
    moves = false;
    await lured.list?.(soon());
    ageLogins();
    moves = true;
    const { ref: half, request: asked } = intend(lured, token);
    await expect(lured.mint(half, asked, soon())).rejects.toMatchObject({ errorClass: 'retryable' });
    expect((await other.session.list?.(soon()))?.map(({ handle }) => handle)).not.toContain(half.handle);
    front.close();
    await one.session.fence([ref], soon());
  });

  test('check asks each address which cluster it is', async () => {
    const session = one.connect({ addresses: [one.bao.url, other.bao.url] });
    const steps = await session.check(null, soon());
    expect(steps.filter(({ ok }) => !ok)).toMatchObject([
      { step: 'cluster', says: expect.stringMatching(/lead to 2 clusters/) },
    ]);
    const both = one.connect({ addresses: [one.bao.url, one.bao.url.replace('127.0.0.1', 'localhost')] });
    const good = await both.check(null, soon());
    expect(good.filter(({ ok }) => !ok)).toEqual([]);
  });
});

describe.skipIf(openbaoFolder === undefined)('three nodes of one cluster', () => {
  let cluster: OpenbaoCluster;
  let house: VaultHouse;

  beforeAll(async () => {
    cluster = await startOpenbaoCluster(openbaoFolder ?? '');
    const bao = { url: await cluster.active(), token: cluster.token, log: () => '', stop: () => cluster.stop() };
    house = await startVaultHouse({ bao, entitlements: [token], over: { addresses: [...cluster.urls].reverse() } });
    await house.root('POST', 'sys/mounts/secret', { type: 'kv', options: { version: '2' } });
  });
  afterAll(async () => {
    await house?.stop();
    await cluster?.stop();
  });

  test('only the active one proves anything; when it dies the next goes on, with what the first has made', async () => {
    const { session } = house;
    // A new mount of versioned values is not ready at once.
    const ready = () => agentsIn(house).catch((error: unknown) => error);
    await expect.poll(ready).toBeUndefined();
    const active = await cluster.active();
    const standbys = cluster.urls.filter((url) => url !== active);
    expect((await session.check(null, soon())).filter(({ ok }) => !ok)).toEqual([]);
    const kept = await make(session, intend(session, token, { seconds: 120 }));
    const ended = await make(session, intend(session, token, { seconds: 120 }));
    const refs = [kept.ref, ended.ref];

    // A standby would pass it on, or say what it has heard so far.
    const apart = house.connect({ addresses: standbys });
    await expect(apart.verify(refs, soon())).rejects.toMatchObject({
      errorClass: 'retryable',
      message: expect.stringMatching(/standby/),
    });
    expect((await apart.check(null, soon())).filter(({ ok }) => !ok)).toMatchObject([{ step: 'connect' }]);

    // It dies as it is asked for an end.
    const front = await startFront((path) => {
      if (path === '/v1/auth/token/revoke-accessor') void cluster.kill(active);
      return path === '/v1/auth/token/revoke-accessor' ? null : active;
    });
    const cut = house.connect({ addresses: [front.url, ...standbys] });
    expect(await cut.fence([ended.ref], soon())).toMatchObject([{ ok: false, error: { errorClass: 'retryable' } }]);
    const next = await cluster.active();
    expect(standbys).toContain(next);
    for (const one of [cut, session]) {
      const verdicts = () => one.verify(refs, soon()).catch(() => []);
      await expect.poll(verdicts).toMatchObject([{ contained: false }, { contained: false }]);
    }
    expect(await cut.fence([ended.ref], soon())).toMatchObject([{ ok: true, evidence: { token: 'revoked' } }]);
    expect(await session.verify(refs, soon())).toMatchObject([{ contained: false }, { contained: true }]);
    expect([await worksAt(next, kept.secret['token']), await worksAt(next, ended.secret['token'])]).toEqual([
      true,
      false,
    ]);
    front.close();
  });
});
