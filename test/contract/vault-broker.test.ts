import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, request as relay } from 'node:http';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { randomUUID } from 'node:crypto';
import { exportJWK, generateKeyPair, SignJWT } from 'jose';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { provider } from '../../providers/vault/index.ts';
import { Secret } from '../../src/provider.ts';
import { targetSchema } from '../../providers/vault/schema.ts';
import { makeCertificate } from '../support/certificates.ts';
import { freePort } from '../support/free-port.ts';
import { type SealedOpenbao, startOpenbaoOnDisk } from '../support/openbao.ts';
import {
  ask,
  entitlement,
  intend,
  type Json,
  make,
  openbaoFolder,
  soon,
  startVaultHouse,
  type VaultHouse,
} from './vault-fixture.ts';

const token = entitlement({ mode: 'token', policies: ['agent'], probe_path: 'secret/data/agents/one' });
const kv = entitlement({ mode: 'kv', policies: ['agent'], mount: 'secret', path: 'agents/one' });
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
    house = await startVaultHouse({ entitlements: [token, kv, certificate] });
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
      // A renewal may be refused first.
      await expect
        .poll(() => house.logged)
        .toContainEqual(
          expect.objectContaining({
            ...{ alert: 'login', says: expect.stringMatching(/logging in/) },
            message: expect.stringMatching(/can not keep its token/),
          }),
        );
      await expect
        .poll(() => session.list?.(soon()).catch((error: unknown) => error))
        .toMatchObject({
          errorClass: 'denied',
          wholeTarget: true,
        });
      const steps = await session.check(null, soon());
      expect(steps.filter(({ ok }) => !ok)).toMatchObject([{ step: 'broker_token' }]);
      await expect.poll(() => house.troubles.at(-1)).toMatch(/logging in/);
      house.secrets.set('file:secret-id', kept);
      await expect
        .poll(async () => {
          await session.list?.(soon()).catch(() => {});
          return house.troubles.at(-1);
        })
        .toBeNull();
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
    await policy(`${data.policy}\npath "pki/issue/agents" { capabilities = ["update"] }`);
    const own = await house.session.check({ name: 'vault/certificate', config: certificate }, soon());
    expect(own.filter(({ ok }) => !ok)).toContainEqual(
      expect.objectContaining({ step: 'broker_excess', says: expect.stringMatching(/pki\/issue\/agents/) }),
    );
    await policy(data.policy);
    const role = async (settings: object) => await house.root('POST', 'auth/token/roles/mayfly', settings);
    await role({ allowed_policies: 'another', token_explicit_max_ttl: 0 });
    expect((await failing()).map(({ step }) => step)).toEqual(['token_role', 'mint']);
    await role({ allowed_policies: 'agent', token_explicit_max_ttl: 86_400 });
    for (const [settings, says, back] of [
      [{ allowed_policies_glob: ['*'] }, /by a glob/, { allowed_policies_glob: [] }],
      [{ path_suffix: 'agents' }, /not found by their path/, { path_suffix: '' }],
    ] as const) {
      await role(settings);
      expect(await failing()).toContainEqual(
        expect.objectContaining({ step: 'token_role', says: expect.stringMatching(says) }),
      );
      await role(back);
    }
    expect(await failing()).toEqual([]);
    // No more is promised than a token of the role can live.
    expect(await house.session.guarantee(token, soon())).toMatchObject({ max_ttl_seconds: 86_400 });
    await role({ token_explicit_max_ttl: 0 });
    expect(await house.session.guarantee(token, soon())).toMatchObject({ max_ttl_seconds: 32 * 86_400 });
    await role({ token_explicit_max_ttl: 86_400 });
  });

  test('check finds a policy by which an agent makes, renews or rules, in each mode, and no mint goes by it', async () => {
    const { data } = await house.root('GET', 'sys/policies/acl/agent');
    const may = async (path: string, capabilities = '"create", "update", "sudo"') =>
      await house.root('POST', 'sys/policies/acl/agent', {
        policy: `${data.policy}\npath "${path}" { capabilities = [${capabilities}] }`,
      });
    const failing = async (config = token) =>
      (await house.session.check({ name: 'vault/token', config }, soon()))
        .filter(({ ok, step }) => !ok && step !== 'verify')
        .map(({ step, says }) => [step, says]);
    const wrapped = { ...token, wrap_seconds: 60 };
    const bound = entitlement({ ...kv, path: 'agents/${tenant}', probe_params: undefined });
    await house.root('POST', 'auth/token/roles/other', { allowed_policies: 'agent' });
    try {
      for (const config of [token, wrapped, kv, bound]) expect([config, await failing(config)]).toEqual([config, []]);
      const minting = () => make(house.session, intend(house.session, token));
      for (const path of [
        'auth/token/create',
        'auth/token/create-orphan',
        'auth/token/create/mayfly',
        'auth/token/create/*',
      ]) {
        await may(path);
        await expect(minting()).rejects.toMatchObject({
          errorClass: 'misconfigured',
          message: expect.stringMatching(/make others/),
        });
        for (const config of [token, wrapped]) expect((await failing(config)).map(([step]) => step)).toContain('mint');
        expect((await failing(kv)).map(([step]) => step)).toEqual(['makes_tokens']);
      }
      await may('auth/token/create/other');
      for (const config of [token, wrapped, kv])
        expect(await failing(config)).toEqual([['makes_tokens', expect.stringContaining('auth/token/create/other')]]);
      await may('auth/token/renew-self', '"update"');
      for (const config of [token, wrapped, kv, bound])
        expect((await failing(config)).map(([step]) => step)).toEqual(['renew_self']);
      await may('mayfly/data/holder', '"update"');
      for (const config of [token, wrapped, kv, bound])
        expect((await failing(config)).map(([step]) => step)).toEqual(['rules']);
      await may('sys/mounts', '"read"');
      for (const config of [token, wrapped])
        expect((await failing(config)).map(([step]) => step)).toEqual(['rules', 'refused']);
    } finally {
      await house.root('POST', 'sys/policies/acl/agent', { policy: data.policy });
      await house.root('DELETE', 'auth/token/roles/other');
    }
    // Who made one before its policy was put right is not hidden by that: it is listed, as nobody's.
    const { auth } = await house.root('POST', 'auth/token/create/mayfly', { policies: ['agent'], ttl: '600s' });
    const strays = async () =>
      (await house.session.list?.(soon()))?.filter(({ handle }) => handle.startsWith('stray-'));
    expect(await strays()).toMatchObject([{ grantId: null, installation: null, facts: { accessor: auth.accessor } }]);
    expect(await strays()).toHaveLength(1);
    expect(house.logged.filter(({ alert }) => alert === 'stray_token')).toHaveLength(1);
    await house.root('POST', 'auth/token/revoke-accessor', { accessor: auth.accessor });
    expect(await strays()).toEqual([]);
    expect(() => entitlement({ ...token, policies: ['mayfly-broker'] })).toThrow(/not for agents/);
    expect((await house.session.list?.(soon()))?.map(({ handle }) => handle)).toEqual([]);
  });

  test('a wrapping that was not done, and a token that has no accessor, are refused and nothing of them is left', async () => {
    const wrapped = { ...token, wrap_seconds: 60 };
    const front = createServer((asked, answer) => {
      const { 'x-vault-wrap-ttl': _, ...headers } = asked.headers;
      const on = relay(house.bao.url + (asked.url ?? ''), { method: asked.method ?? 'GET', headers }, (answered) => {
        answer.writeHead(answered.statusCode ?? 500, answered.headers);
        answered.pipe(answer);
      });
      asked.pipe(on);
    });
    front.listen(0, '127.0.0.1');
    await once(front, 'listening');
    const behind = house.connect({ addresses: [`http://127.0.0.1:${(front.address() as AddressInfo).port}`] });
    await expect(make(behind, intend(behind, wrapped))).rejects.toMatchObject({
      errorClass: 'misconfigured',
      message: expect.stringMatching(/unwrapped/),
    });
    front.closeAllConnections();
    front.close();
    await house.root('POST', 'auth/token/roles/mayfly', {
      ...{ token_type: 'batch', orphan: true, renewable: false, token_explicit_max_ttl: 0 },
    });
    try {
      await expect(make(house.session, intend(house.session, wrapped))).rejects.toMatchObject({
        errorClass: 'misconfigured',
      });
    } finally {
      await house.root('POST', 'auth/token/roles/mayfly', {
        ...{ token_type: 'service', renewable: true, token_explicit_max_ttl: 86_400 },
      });
    }
    expect(await house.session.list?.(soon())).toEqual([]);
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

  test('by a JWT, and by a Kubernetes service account: a login that can not be kept is told, and so is its return', async () => {
    const { publicKey, privateKey } = await generateKeyPair('ES256', { extractable: true });
    const sign = (claims: object) =>
      new SignJWT({ ...claims })
        .setProtectedHeader({ alg: 'ES256', kid: 'one' })
        .setIssuedAt()
        .setExpirationTime('5m')
        .sign(privateKey);
    const keys = JSON.stringify({ keys: [{ ...(await exportJWK(publicKey)), kid: 'one', alg: 'ES256', use: 'sig' }] });
    const account = { serviceaccount: { name: 'mayfly', uid: 'u-1' }, namespace: 'mayfly' };
    const claims = { sub: 'system:serviceaccount:mayfly:mayfly', 'kubernetes.io': account, iss: 'kubernetes' };
    const good = { jwt: await sign({ sub: 'mayfly', aud: 'vault' }), kubernetes: await sign(claims) };
    const bad = {
      jwt: await sign({ sub: 'somebody', aud: 'vault' }),
      kubernetes: await sign({ ...claims, jti: 'of another time' }),
    };
    // Where the keys stand that sign JWTs, and a stand-in for the API server's TokenReview.
    const stand = createServer((request, response) => {
      let body = '';
      request.on('data', (piece: Buffer) => (body += piece.toString()));
      request.on('end', () => {
        response.setHeader('content-type', 'application/json');
        if (request.url === '/keys') return response.end(keys);
        const review: Json = JSON.parse(body);
        const user = { username: claims.sub, uid: 'u-1', groups: ['system:serviceaccounts'] };
        const known = review.spec.token === good.kubernetes;
        response.statusCode = 201;
        return response.end(
          JSON.stringify({
            ...{ kind: 'TokenReview', apiVersion: 'authentication.k8s.io/v1' },
            status: known ? { authenticated: true, user } : { authenticated: false, error: 'invalid bearer token' },
          }),
        );
      });
    });
    stand.listen(0, '127.0.0.1');
    await once(stand, 'listening');
    const url = `http://127.0.0.1:${(stand.address() as AddressInfo).port}`;
    const folder = mkdtempSync(join(tmpdir(), 'mayfly-vault-ca-'));
    const { caPem } = makeCertificate(folder, ['127.0.0.1']);
    rmSync(folder, { recursive: true, force: true });
    // So short that it is renewed, and then had anew, while one waits.
    const role = { token_policies: ['mayfly-broker'], token_no_default_policy: true, token_ttl: 2, token_max_ttl: 4 };
    await house.root('POST', 'sys/auth/jwt', { type: 'jwt' });
    await house.root('POST', 'auth/jwt/config', { jwks_url: `${url}/keys` });
    await house.root('POST', 'auth/jwt/role/mayfly', {
      ...{ ...role, role_type: 'jwt', user_claim: 'sub', bound_audiences: ['vault'], bound_subject: 'mayfly' },
    });
    await house.root('POST', 'sys/auth/kubernetes', { type: 'kubernetes' });
    await house.root('POST', 'auth/kubernetes/config', {
      kubernetes_host: url,
      ...{ disable_local_ca_jwt: true, token_reviewer_jwt: good.kubernetes, kubernetes_ca_cert: caPem },
    });
    await house.root('POST', 'auth/kubernetes/role/mayfly', {
      ...{ ...role, bound_service_account_names: ['mayfly'], bound_service_account_namespaces: ['mayfly'] },
    });
    for (const [kind, auth] of [
      ['jwt', { jwt: { role: 'mayfly', jwt: 'file:jwt' } }],
      ['kubernetes', { kubernetes: { role: 'mayfly', token: 'file:kubernetes' } }],
    ] as const) {
      house.secrets.set(`file:${kind}`, good[kind]);
      const session = house.connect({ auth });
      expect(await session.list?.(soon())).toEqual([]);
      const first = await logins(kind);
      await expect
        .poll(async () => (await logins(kind)).filter((one) => !first.includes(one)).length)
        .toBeGreaterThan(0);
      expect(house.troubles.at(-1)).toBeNull();
      house.secrets.set(`file:${kind}`, bad[kind]);
      await expect.poll(() => house.troubles.at(-1)).toMatch(/logging in/);
      await expect
        .poll(() => session.list?.(soon()).catch((error: unknown) => error))
        .toMatchObject({ errorClass: 'denied', wholeTarget: true });
      house.secrets.set(`file:${kind}`, good[kind]);
      await expect.poll(() => session.list?.(soon()).catch((error: unknown) => error)).toEqual([]);
      expect(house.troubles.at(-1)).toBeNull();
      await session.close();
    }
    for (const one of [...Object.values(good), ...Object.values(bad)])
      expect(JSON.stringify([house.logged, house.troubles])).not.toContain(one);
    stand.close();
  });

  test('the printed script does what an administrator must do, again and again, and takes nothing from another', async () => {
    await ask(house.bao.url, house.bao.token, 'POST', 'sys/namespaces/scripted', {});
    const config = targetSchema.parse({ ...house.connection, namespace: 'scripted' });
    const prepared = [{ name: 'vault/token', maxTtlSeconds: 600, config: token }];
    const run = async (installation: string, by?: { store: string; tenure: string }, as = house.bao.token) => {
      const script = (await provider.preparation?.script(config, prepared, installation, null, by)) ?? '';
      const env = { BAO: join(openbaoFolder ?? '', 'bao'), BAO_ADDR: house.bao.url, BAO_TOKEN: as };
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

    // Who may write and not read does not overwrite what another holds.
    const all = 'path "*" { capabilities = ["create", "read", "update", "delete", "list", "sudo"] }';
    await inside('sys/policies/acl/blind', {
      policy: `${all}\npath "mayfly/data/holder" { capabilities = ["create", "update"] }`,
    });
    const made = await inside('auth/token/create', { policies: ['blind'], ttl: '600s' });
    const third = await run(randomUUID(), undefined, made.body.auth.client_token);
    expect(third).toMatchObject({ stderr: expect.stringMatching(/can not be read/) });
    expect(third.status).not.toBe(0);
    const { body: kept } = await ask(
      house.bao.url,
      house.bao.token,
      'GET',
      'mayfly/data/holder',
      undefined,
      'scripted',
    );
    expect(kept.data.data).toMatchObject({ installation: other, epoch: 2, tenure });
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

  test('an administrator prepares it over TLS, with the certificates that the URL names', async () => {
    const file = join(folder, 'trusted.pem');
    writeFileSync(file, house.secrets.get('file:ca.pem') ?? '');
    const url = new URL(bao.url);
    url.password = bao.token;
    const prepare = async (href: string) =>
      await provider.preparation?.apply?.(
        new Secret(href),
        targetSchema.parse(house.connection),
        [{ name: 'vault/token', maxTtlSeconds: 600, config: token }],
        house.installation,
        new Secret(''),
      );
    await expect(prepare(url.href)).rejects.toMatchObject({ errorClass: 'misconfigured' });
    url.searchParams.set('ca', file);
    await prepare(url.href);
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
