import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { randomUUID } from 'node:crypto';
import { exportSPKI, generateKeyPair, SignJWT } from 'jose';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { provider } from '../../providers/vault/index.ts';
import { targetSchema } from '../../providers/vault/schema.ts';
import { makeCertificate } from '../support/certificates.ts';
import { freePort } from '../support/free-port.ts';
import { type SealedOpenbao, startOpenbaoOnDisk } from '../support/openbao.ts';
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
const certificate = entitlement({
  ...{ mode: 'dynamic', policies: ['agent'], path: 'pki/issue/agents', method: 'POST' },
  data: { common_name: 'agent.example', ttl: '${ttl_seconds}s' },
});

async function agentPolicy(house: VaultHouse): Promise<void> {
  await house.root('POST', 'sys/policies/acl/agent', {
    policy:
      'path "secret/data/agents/*" { capabilities = ["read"] }\npath "pki/issue/agents" { capabilities = ["create", "update"] }',
  });
  await house.root('POST', 'secret/data/agents/one', { data: { password: 'of-one' } });
}

describe.skipIf(openbaoFolder === undefined)('the broker in OpenBao', () => {
  let house: VaultHouse;
  const at = (own: unknown, path: string) => ask(house.bao.url, String(own), 'GET', path);
  /** Tokens that the broker's logins left, by accessor. */
  const logins = async (mount = 'approle'): Promise<string[]> => {
    const { data } = await house.root('LIST', 'auth/token/accessors');
    const found: string[] = [];
    for (const accessor of data.keys) {
      const known = await ask(house.bao.url, house.bao.token, 'POST', 'auth/token/lookup-accessor', { accessor });
      if (known.body.data?.path === `auth/${mount}/login`) found.push(accessor);
    }
    return found;
  };

  beforeAll(async () => {
    house = await startVaultHouse({ entitlements: [token, certificate] });
    await agentPolicy(house);
  });
  afterAll(async () => {
    await house?.stop();
  });

  test('its token is renewed for as long as it can be, by no new login', async () => {
    await house.root('POST', 'auth/approle/role/mayfly-broker/period', { token_period: 8 });
    const before = await logins();
    const session = house.connect();
    try {
      await session.list?.(soon());
      const [accessor] = (await logins()).filter((one) => !before.includes(one));
      await expect
        .poll(async () => (await house.root('POST', 'auth/token/lookup-accessor', { accessor })).data.last_renewal_time)
        .toBeGreaterThan(0);
      await session.list?.(soon());
      expect((await logins()).filter((one) => !before.includes(one))).toEqual([accessor]);
    } finally {
      await house.root('POST', 'auth/approle/role/mayfly-broker/period', { token_period: 3600 });
      await session.close();
    }
  });

  test('when it can be renewed no more there is a login; when that fails it says so, loudly', async () => {
    await house.root('POST', 'auth/approle/role/mayfly-broker', {
      ...{
        token_policies: ['mayfly-broker'],
        token_no_default_policy: true,
        token_period: 0,
        token_ttl: 2,
        token_max_ttl: 4,
      },
    });
    const kept = house.secrets.get('file:secret-id') ?? '';
    const session = house.connect();
    try {
      await session.list?.(soon());
      const before = await logins();
      await expect.poll(async () => (await logins()).filter((one) => !before.includes(one)).length).toBeGreaterThan(0);
      await session.list?.(soon());
      house.secrets.set('file:secret-id', randomUUID());
      await expect.poll(() => house.logged.filter(({ alert }) => alert === 'login').length).toBeGreaterThan(0);
      expect(house.logged.find(({ alert }) => alert === 'login')).toMatchObject({
        says: expect.stringMatching(/logging in/),
        message: expect.stringMatching(/can not keep its token/),
      });
      await expect
        .poll(() => session.list?.(soon()).catch((error: unknown) => error))
        .toMatchObject({
          errorClass: 'denied',
          wholeTarget: true,
        });
      const steps = await session.check(null, soon());
      expect(steps.filter(({ ok }) => !ok)).toMatchObject([{ step: 'broker_token' }]);
      house.secrets.set('file:secret-id', kept);
      await session.list?.(soon());
      expect(JSON.stringify(house.logged)).not.toContain(kept);
    } finally {
      house.secrets.set('file:secret-id', kept);
      await house.root('POST', 'auth/approle/role/mayfly-broker', {
        token_period: 3600,
        token_ttl: 0,
        token_max_ttl: 0,
      });
      await session.close();
    }
  });

  test('its token revoked by another: what it made lives on, and the next login ends it', async () => {
    const session = house.connect();
    const { ref, secret } = await make(session, intend(session, token));
    for (const accessor of await logins()) await house.root('POST', 'auth/token/revoke-accessor', { accessor });
    expect((await at(secret['token'], 'secret/data/agents/one')).status).toBe(200);
    // A login that is young is not doubted at once.
    await expect.poll(async () => (await session.fence([ref], soon()))[0]).toMatchObject({ ok: true });
    expect((await at(secret['token'], 'secret/data/agents/one')).status).toBe(403);
    await session.close();
  });

  test('it holds the target by a record: one tenure, whose beat only grows', async () => {
    const { installation } = house;
    expect(await house.session.hold?.(soon())).toMatchObject({ installation, epoch: 1, tenure: null, beat: 0 });
    const beat = { store: 'store-1', tenure: randomUUID(), beat: 1 };
    const rival = { store: 'store-2', tenure: randomUUID(), beat: 1 };
    const [one, other] = await Promise.all([house.session.hold?.(soon(), beat), house.connect().hold?.(soon(), rival)]);
    const held = await house.session.hold?.(soon());
    // Both saw the same holder, and one of them is it.
    expect([one?.tenure, other?.tenure]).toEqual([held?.tenure, held?.tenure]);
    const ours = held?.tenure === beat.tenure ? beat : rival;
    expect(await house.session.hold?.(soon(), { ...ours, beat: 7 })).toMatchObject({ beat: 7 });
    expect(await house.session.hold?.(soon(), { ...ours, beat: 6 })).toMatchObject({ beat: 7 });
    expect(await house.session.hold?.(soon(), { ...ours, beat: 99_999_999 })).toMatchObject({ beat: 7 });
    expect(await house.session.hold?.(soon(), { ...ours, tenure: randomUUID(), beat: 9 })).toMatchObject({ beat: 7 });
    expect(await house.connect({ record: 'none' }).hold?.(soon())).toBeNull();
  });

  test('check says which right is missing, which is too much, and what a policy lets its token do', async () => {
    const { data } = await house.root('GET', 'sys/policies/acl/mayfly-broker');
    const failing = async () =>
      (await house.session.check({ name: 'vault/token', config: token }, soon())).filter(({ ok }) => !ok);
    const policy = (text: string) => house.root('POST', 'sys/policies/acl/mayfly-broker', { policy: text });
    expect(await failing()).toEqual([]);
    await policy(data.policy.replace('"auth/token/renew-accessor"', '"nothing"'));
    expect(await failing()).toMatchObject([{ step: 'broker_rights', says: expect.stringMatching(/renew-accessor/) }]);
    await policy(`${data.policy}\npath "sys/policies/acl/*" { capabilities = ["update"] }`);
    expect(await failing()).toMatchObject([{ step: 'broker_excess', says: expect.stringMatching(/sys\/policies/) }]);
    await policy(data.policy);
    const agent = await house.root('GET', 'sys/policies/acl/agent');
    await house.root('POST', 'sys/policies/acl/agent', {
      policy: `${agent.data.policy}\npath "auth/token/renew-self" { capabilities = ["update"] }`,
    });
    expect(await failing()).toMatchObject([{ step: 'renew_self' }]);
    await house.root('POST', 'sys/policies/acl/agent', { policy: agent.data.policy });
    await house.root('POST', 'auth/token/roles/mayfly', { allowed_policies: 'another', token_explicit_max_ttl: 0 });
    expect((await failing()).map(({ step }) => step)).toEqual(['token_role', 'mint']);
    await house.root('POST', 'auth/token/roles/mayfly', { allowed_policies: 'agent', token_explicit_max_ttl: 86_400 });
    expect(await failing()).toEqual([]);
  });

  test('what no revocation takes away is promised as expiry alone, and is not called contained before', async () => {
    await house.root('POST', 'sys/mounts/pki', { type: 'pki' });
    await house.root('POST', 'pki/root/generate/internal', { common_name: 'test', ttl: '3600s' });
    await house.root('POST', 'pki/roles/agents', { allow_any_name: true, max_ttl: '3600s', not_before_duration: '0s' });
    expect(await house.session.guarantee(certificate, soon())).toMatchObject({ revocation: 'expiry-only' });
    const { ref, secret, minted } = await make(house.session, intend(house.session, certificate, { seconds: 4 }));
    expect(secret).toMatchObject({ certificate: expect.stringContaining('BEGIN CERTIFICATE') });
    expect(minted.expiresAt.getTime()).toBeLessThan(ref.deadline.getTime() + 5000);
    await house.session.fence([ref], soon());
    expect(await house.session.verify([ref], soon())).toMatchObject([{ ok: true, contained: false }]);
    await expect.poll(async () => (await house.session.verify([ref], soon()))[0]).toMatchObject({ contained: true });
    const longer = { ...certificate, data: { common_name: 'agent.example', ttl: '600s' } };
    await expect(make(house.session, intend(house.session, longer))).rejects.toThrow(/longer than was granted/);
  });

  test('by a JWT, and by a Kubernetes service account', async () => {
    const { publicKey, privateKey } = await generateKeyPair('ES256', { extractable: true });
    const sign = (claims: object) =>
      new SignJWT({ ...claims })
        .setProtectedHeader({ alg: 'ES256' })
        .setIssuedAt()
        .setExpirationTime('5m')
        .sign(privateKey);
    const role = { token_policies: ['mayfly-broker'], token_no_default_policy: true, token_period: 600 };
    await house.root('POST', 'sys/auth/jwt', { type: 'jwt' });
    await house.root('POST', 'auth/jwt/config', { jwt_validation_pubkeys: [await exportSPKI(publicKey)] });
    await house.root('POST', 'auth/jwt/role/mayfly', {
      ...{ ...role, role_type: 'jwt', user_claim: 'sub', bound_audiences: ['vault'], bound_subject: 'mayfly' },
    });
    house.secrets.set('file:jwt', await sign({ sub: 'mayfly', aud: 'vault' }));
    const byJwt = house.connect({ auth: { jwt: { role: 'mayfly', jwt: 'file:jwt' } } });
    expect(await byJwt.list?.(soon())).toEqual([]);
    house.secrets.set('file:jwt', await sign({ sub: 'somebody', aud: 'vault' }));
    const wrong = house.connect({ auth: { jwt: { role: 'mayfly', jwt: 'file:jwt' } } });
    await expect(wrong.list?.(soon())).rejects.toMatchObject({ errorClass: 'denied', wholeTarget: true });

    // A stand-in for the API server's TokenReview.
    const account = { serviceaccount: { name: 'mayfly', uid: 'u-1' }, namespace: 'mayfly' };
    const reviews = createServer((request, response) => {
      const user = { username: 'system:serviceaccount:mayfly:mayfly', uid: 'u-1', groups: ['system:serviceaccounts'] };
      response.setHeader('content-type', 'application/json');
      response.statusCode = 201;
      response.end(
        JSON.stringify({
          kind: 'TokenReview',
          apiVersion: 'authentication.k8s.io/v1',
          status: { authenticated: true, user },
        }),
      );
      request.resume();
    });
    reviews.listen(0, '127.0.0.1');
    await once(reviews, 'listening');
    const folder = mkdtempSync(join(tmpdir(), 'mayfly-vault-ca-'));
    const { caPem } = makeCertificate(folder, ['127.0.0.1']);
    rmSync(folder, { recursive: true, force: true });
    const jwt = await sign({ sub: 'system:serviceaccount:mayfly:mayfly', 'kubernetes.io': account, iss: 'kubernetes' });
    await house.root('POST', 'sys/auth/kubernetes', { type: 'kubernetes' });
    await house.root('POST', 'auth/kubernetes/config', {
      kubernetes_host: `http://127.0.0.1:${(reviews.address() as AddressInfo).port}`,
      ...{ disable_local_ca_jwt: true, token_reviewer_jwt: jwt, kubernetes_ca_cert: caPem },
    });
    await house.root('POST', 'auth/kubernetes/role/mayfly', {
      ...{ ...role, bound_service_account_names: ['mayfly'], bound_service_account_namespaces: ['mayfly'] },
    });
    house.secrets.set('file:token', jwt);
    const inCluster = house.connect({ auth: { kubernetes: { role: 'mayfly', token: 'file:token' } } });
    expect(await inCluster.list?.(soon())).toEqual([]);
    reviews.close();
    await Promise.all([byJwt, wrong, inCluster].map((session) => session.close()));
  });

  test('the printed script does what an administrator must do, again and again, and takes nothing from another', async () => {
    await ask(house.bao.url, house.bao.token, 'POST', 'sys/namespaces/scripted', {});
    const config = targetSchema.parse({ ...house.connection, namespace: 'scripted' });
    const prepared = [{ name: 'vault/token', maxTtlSeconds: 600, config: token }];
    const run = async (installation: string, by?: { store: string; tenure: string }) => {
      const script = (await provider.preparation?.script(config, prepared, installation, null, by)) ?? '';
      const env = { BAO: join(openbaoFolder ?? '', 'bao'), BAO_ADDR: house.bao.url, BAO_TOKEN: house.bao.token };
      const { PATH = '' } = process.env;
      const options = {
        input: script,
        env: { ...env, PATH, HOME: tmpdir(), BAO_NAMESPACE: 'scripted' },
        encoding: 'utf8',
      } as const;
      const { status, stderr } = spawnSync('sh', ['-s'], options);
      return { status, stderr };
    };
    expect(await run(house.installation)).toMatchObject({ status: 0 });
    expect(await run(house.installation)).toMatchObject({ status: 0 });
    const inside = (path: string, body: object) => ask(house.bao.url, house.bao.token, 'POST', path, body, 'scripted');
    const { body } = await inside('auth/approle/role/mayfly-broker/secret-id', {});
    house.secrets.set('file:scripted', body.data.secret_id);
    await inside('sys/policies/acl/agent', { policy: 'path "nothing" { capabilities = ["read"] }' });
    const auth = { approle: { role_id: 'mayfly-test', secret_id: 'file:scripted' } };
    const session = house.connect({ namespace: 'scripted', auth });
    const bare = entitlement({ mode: 'token', policies: ['agent'] });
    const steps = await session.check({ name: 'vault/token', config: bare }, soon());
    expect(steps.filter(({ ok }) => !ok)).toEqual([]);
    const other = randomUUID();
    expect(await run(other)).toMatchObject({ status: 1, stderr: expect.stringContaining('held by installation') });
    const tenure = randomUUID();
    expect(await run(other, { store: 'store-2', tenure })).toMatchObject({ status: 0 });
    expect(await session.hold?.(soon())).toMatchObject({ installation: other, epoch: 2, tenure, beat: 0 });
    await session.close();
  });

  test('in a namespace of its own: a whole life there, and nothing of it outside', async () => {
    const inside = await startVaultHouse({ bao: house.bao, namespace: 'teams', entitlements: [token] });
    try {
      await inside.root('POST', 'sys/mounts/secret', { type: 'kv', options: { version: '2' } });
      await agentPolicy(inside);
      const { ref, secret } = await make(inside.session, intend(inside.session, token));
      expect(secret).toMatchObject({ namespace: 'teams' });
      const read = (namespace?: string) =>
        ask(house.bao.url, String(secret['token']), 'GET', 'secret/data/agents/one', undefined, namespace);
      expect([(await read('teams')).status, (await read()).status]).toEqual([200, 403]);
      expect((await inside.session.list?.(soon()))?.map(({ handle }) => handle)).toEqual([ref.handle]);
      expect((await house.session.list?.(soon()))?.map(({ handle }) => handle)).not.toContain(ref.handle);
      expect(await inside.session.check({ name: 'vault/token', config: token }, soon())).toEqual(
        expect.not.arrayContaining([expect.objectContaining({ ok: false })]),
      );
      await inside.session.fence([ref], soon());
      expect(await inside.session.verify([ref], soon())).toMatchObject([{ contained: true }]);
      expect((await read('teams')).status).toBe(403);
    } finally {
      await inside.stop();
    }
  });
});

describe.skipIf(openbaoFolder === undefined)('OpenBao over TLS', () => {
  let bao: SealedOpenbao;
  let house: VaultHouse;
  let folder: string;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'mayfly-vault-tls-'));
    const { caPem, certFile, keyFile } = makeCertificate(folder, ['127.0.0.1']);
    bao = await startOpenbaoOnDisk(openbaoFolder ?? '', { certificate: certFile, key: keyFile });
    const dead = `https://127.0.0.1:${await freePort()}`;
    house = await startVaultHouse({
      bao: { ...bao, url: bao.plainUrl },
      entitlements: [token],
      over: { addresses: [dead, bao.url], ca: 'file:ca.pem' },
    });
    house.secrets.set('file:ca.pem', caPem);
    await house.root('POST', 'sys/mounts/secret', { type: 'kv', options: { version: '2' } });
    await agentPolicy(house);
  });
  afterAll(async () => {
    await house?.stop();
    await bao?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  test('by a CA of its own, at the second address since the first is dead', async () => {
    const { ref, secret } = await make(house.session, intend(house.session, token));
    expect(secret).toMatchObject({ ca_pem: house.secrets.get('file:ca.pem') });
    await house.session.fence([ref], soon());
    expect(await house.session.verify([ref], soon())).toMatchObject([{ contained: true }]);
  });

  test('one that the CA did not sign is not spoken to', async () => {
    const other = mkdtempSync(join(tmpdir(), 'mayfly-vault-ca-'));
    house.secrets.set('file:other.pem', makeCertificate(other, ['127.0.0.1']).caPem);
    for (const over of [{ ca: 'file:other.pem' }, { ca: undefined }]) {
      const session = house.connect({ addresses: [bao.url], ...over });
      await expect(session.list?.(soon())).rejects.toMatchObject({ errorClass: 'misconfigured', wholeTarget: true });
    }
    rmSync(other, { recursive: true, force: true });
  });
});
