import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { VaultFlavour } from '../support/openbao.ts';
import { type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts';
import {
  ask,
  entitlement,
  intend,
  make,
  mountDatabase,
  opens,
  soon,
  startVaultHouse,
  type VaultHouse,
} from './vault-fixture.ts';
import { flavours } from './vault-flavours.ts';

const token = entitlement({ mode: 'token', policies: ['agent'], probe_path: 'secret/data/agents/one' });
const leasing = entitlement({
  mode: 'token',
  policies: ['agent', 'db-readers'],
  lease_paths: ['database/creds/readers'],
});
const dynamic = entitlement({ mode: 'dynamic', policies: ['db-readers'], path: 'database/creds/readers' });
const kv = entitlement({ mode: 'kv', policies: ['agent'], mount: 'secret', path: 'agents/${tenant}' });

function oneLife(flavour: VaultFlavour): void {
  let server: PostgresServer;
  let proxy: TcpProxy;
  let house: VaultHouse;
  const at = (own: string, path: string) => ask(house.bao.url, own, 'GET', path);

  beforeAll(async () => {
    server = await startPostgres({ version: 18 });
    proxy = await startTcpProxy(server.port);
    house = await startVaultHouse({ flavour, entitlements: [token, leasing, dynamic, kv] });
    await mountDatabase(house, server, proxy.port);
    await house.root('POST', 'sys/policies/acl/agent', {
      policy: 'path "secret/data/agents/*" { capabilities = ["read"] }',
    });
    for (const name of ['one', 'two'])
      await house.root('POST', `secret/data/agents/${name}`, { data: { password: `of-${name}` } });
  });
  afterAll(async () => {
    await house?.stop();
    await proxy?.close();
    await server?.stop();
  });

  test('the server is the one that is meant', async () => {
    const { version } = await house.root('GET', 'sys/health');
    expect(flavour.name.split(' ')[1]).toBe(version);
  });

  test('a namespace that is not there: where there are none, it is taken for none', async () => {
    const { bao } = house;
    const { status } = await ask(bao.url, bao.token, 'GET', 'auth/token/lookup-self', undefined, 'nowhere');
    expect(status === 200).toBe(flavour.name.startsWith('Vault'));
  });

  test('a secret id that is not known: denied, whatever the server calls it', async () => {
    const kept = house.secrets.get('file:secret-id') ?? '';
    house.secrets.set('file:secret-id', randomUUID());
    const session = house.connect();
    try {
      await expect(session.list?.(soon())).rejects.toMatchObject({ errorClass: 'denied', wholeTarget: true });
      house.secrets.set('file:secret-id', kept);
      expect(await session.list?.(soon())).toEqual([]);
    } finally {
      house.secrets.set('file:secret-id', kept);
    }
  });

  test('token: it may what its policies say and no more, and is refused after its end', async () => {
    const granted = intend(house.session, token, { seconds: 30 });
    const { ref, minted, secret } = await make(house.session, granted);
    expect(secret).toEqual({ token: expect.any(String), address: house.bao.url });
    expect(minted.expiresAt.getTime()).toBeLessThanOrEqual(ref.deadline.getTime() + 1000);
    expect(JSON.stringify(minted.facts)).not.toContain(secret['token']);
    expect((await at(secret['token'], 'secret/data/agents/one')).body.data.data).toEqual({ password: 'of-one' });
    for (const path of ['secret/data/other', 'sys/policies/acl', 'auth/token/lookup-self', 'database/creds/readers'])
      expect([path, (await at(secret['token'], path)).status]).toEqual([path, 403]);
    const { data } = await house.root('POST', 'auth/token/lookup-accessor', { accessor: ref.facts['accessor'] });
    expect(data).toMatchObject({
      policies: ['agent'],
      display_name: `token-${ref.handle}`,
      explicit_max_ttl: 29,
      orphan: true,
    });
    expect(data.meta).toMatchObject({ mayfly_grant: ref.grantId, mayfly_installation: house.installation });

    expect(await house.session.verify([ref], soon())).toMatchObject([{ ok: true, contained: false, open: true }]);
    const began = performance.now();
    expect(await house.session.fence([ref], soon())).toMatchObject([{ ok: true, evidence: { token: 'revoked' } }]);
    expect((await at(secret['token'], 'secret/data/agents/one')).status).toBe(403);
    expect(await house.session.verify([ref], soon())).toMatchObject([
      { ok: true, contained: true, clean: true, evidence: { token: 'absent', accessor: ref.facts['accessor'] } },
    ]);
    expect(performance.now() - began).toBeLessThan(15_000);
    expect(await house.session.fence([ref], soon())).toMatchObject([{ ok: true, evidence: { token: 'absent' } }]);
  });

  test('dynamic: the login works, and is gone from the database when the end is called contained', async () => {
    const { ref, secret, minted } = await make(house.session, intend(house.session, dynamic, { seconds: 40 }));
    expect(secret).toEqual({ username: expect.any(String), password: expect.any(String) });
    expect(await opens(server, secret)).toBe(true);
    // The role's own 600 seconds were cut to the grant's.
    expect(Math.abs(minted.expiresAt.getTime() - ref.deadline.getTime())).toBeLessThan(3000);
    const lease = await house.root('POST', 'sys/leases/lookup', { lease_id: ref.facts['lease_id'] });
    expect(lease.data.ttl).toBeLessThanOrEqual(40);
    expect(await house.session.fence([ref], soon())).toMatchObject([{ ok: true, evidence: { lease_end: 'revoked' } }]);
    expect(await opens(server, secret)).toBe(false);
    expect(await house.session.verify([ref], soon())).toMatchObject([
      { ok: true, contained: true, evidence: { token: 'absent', lease_state: 'absent' } },
    ]);
  });

  test('dynamic: while the database is away the end stays owed; when it is back the role goes', async () => {
    const { ref, secret } = await make(house.session, intend(house.session, dynamic));
    await server.halt('fast');
    proxy.cut();
    const [fenced] = await house.session.fence([ref], soon());
    expect(fenced).toMatchObject({ ok: false, error: { errorClass: 'retryable' } });
    expect(String(fenced?.ok === false && fenced.error.message)).toMatch(/still stands/);
    expect(await house.session.verify([ref], soon())).toMatchObject([
      {
        ok: true,
        contained: false,
        open: true,
        evidence: { token: 'absent', lease_state: expect.stringMatching(/over/) },
      },
    ]);
    await server.restart();
    // Vault may have its own hand on it at this moment.
    await expect
      .poll(async () => {
        await house.session.fence([ref], soon());
        return (await house.session.verify([ref], soon()))[0];
      })
      .toMatchObject({ ok: true, contained: true });
    expect(await opens(server, secret)).toBe(false);
  });

  test('token: leases that the agent itself obtained are seen to be gone', async () => {
    const { ref, secret } = await make(house.session, intend(house.session, leasing));
    const { body } = await at(secret['token'], 'database/creds/readers');
    expect(await opens(server, body.data)).toBe(true);
    await house.session.fence([ref], soon());
    await expect.poll(async () => (await house.session.verify([ref], soon()))[0]).toMatchObject({ contained: true });
    expect(await opens(server, body.data)).toBe(false);
  });

  test('kv: the value of the param’s path and no other', async () => {
    const { secret, ref } = await make(house.session, intend(house.session, kv, { params: { tenant: 'two' } }));
    expect(secret).toEqual({ password: 'of-two' });
    for (const tenant of ['../one', 'a/b', '*', '+', '..', '', '%2e', '.hidden', 'x'.repeat(200)])
      await expect(make(house.session, intend(house.session, kv, { params: { tenant } }))).rejects.toMatchObject({
        errorClass: 'misconfigured',
      });
    await expect(make(house.session, intend(house.session, kv))).rejects.toThrow(/without tenant/);
    await expect(make(house.session, intend(house.session, token, { params: { tenant: 'two' } }))).rejects.toThrow(
      /binds/,
    );
    expect(await house.session.guarantee(kv, soon())).toMatchObject({ revocation: 'irrevocable' });
    await house.session.fence([ref], soon());
    expect(await house.session.verify([ref], soon())).toMatchObject([{ contained: true }]);
  });

  test('wrapped: it is unwrapped once, and an end before that cancels the delivery', async () => {
    for (const config of [token, dynamic, kv]) {
      const wrapping = { ...config, wrap_seconds: 60 };
      const params = config.mode === 'kv' ? { tenant: 'one' } : {};
      const { ref, secret } = await make(house.session, intend(house.session, wrapping, { params }));
      expect(secret).toEqual({ wrapping_token: expect.any(String), address: house.bao.url });
      const unwrap = () => ask(house.bao.url, secret['wrapping_token'], 'POST', 'sys/wrapping/unwrap', {});
      const unwrapped = await unwrap();
      expect(unwrapped.status).toBe(200);
      expect((await unwrap()).status).toBe(400);
      const works = async () => {
        if (config.mode === 'kv') return unwrapped.body.data.data.password === 'of-one';
        if (config.mode === 'dynamic') return await opens(server, unwrapped.body.data);
        return (await at(unwrapped.body.auth.client_token, 'secret/data/agents/one')).status === 200;
      };
      expect(await works()).toBe(true);
      await house.session.fence([ref], soon());
      expect(await house.session.verify([ref], soon())).toMatchObject([{ contained: true }]);
      // What was read can not be unread.
      expect(await works()).toBe(config.mode === 'kv');

      const unread = await make(house.session, intend(house.session, wrapping, { params }));
      await house.session.fence([unread.ref], soon());
      const late = await ask(house.bao.url, unread.secret['wrapping_token'], 'POST', 'sys/wrapping/unwrap', {});
      expect(late.status).toBeGreaterThanOrEqual(400);
    }
  });

  test('renewed: to what was asked, and never past the furthest', async () => {
    for (const config of [token, dynamic]) {
      const notAfter = new Date(Date.now() + 100_000);
      const { ref } = await make(house.session, intend(house.session, config, { seconds: 20, notAfter }));
      const until = new Date(Date.now() + 60_000);
      const renewed = await house.session.renew?.(ref, until, soon());
      expect(Math.abs((renewed?.expiresAt.getTime() ?? 0) - until.getTime())).toBeLessThan(3000);
      const [ends] = (await house.session.ends?.([ref], soon())) ?? [];
      expect(Math.abs((ends?.getTime() ?? 0) - until.getTime())).toBeLessThan(3000);
      const far = await house.session.renew?.(ref, new Date(Date.now() + 900_000), soon());
      expect(far?.expiresAt.getTime()).toBeLessThanOrEqual(notAfter.getTime() + 1000);
      await house.session.fence([ref], soon());
      await expect(house.session.renew?.(ref, until, soon())).rejects.toMatchObject({ errorClass: 'gone' });
    }
  });

  test('its facts lost in a crash: it is ended by what its mint had noted', async () => {
    const { ref, secret } = await make(house.session, intend(house.session, dynamic));
    const lost = { ...ref, facts: null };
    expect(await house.session.verify([lost], soon())).toMatchObject([{ ok: true, contained: false, open: true }]);
    const [fenced] = await house.session.fence([lost], soon());
    expect(fenced).toMatchObject({ ok: true, evidence: { facts: 'noted', token: 'revoked', lease_end: 'revoked' } });
    await expect.poll(async () => (await house.session.verify([lost], soon()))[0]).toMatchObject({ contained: true });
    expect(await opens(server, secret)).toBe(false);
    const [reaped] = await house.session.reap([lost], soon());
    expect(reaped).toMatchObject({ ok: true, notBefore: expect.any(Date) });
  });

  test('its facts lost and the database away: the end stays owed, however often it is tried', async () => {
    const { ref, secret } = await make(house.session, intend(house.session, dynamic));
    const lost = { ...ref, facts: null };
    await server.halt('fast');
    proxy.cut();
    for (let tried = 0; tried < 2; tried++) {
      expect(await house.session.fence([lost], soon())).toMatchObject([
        { ok: false, error: { errorClass: 'retryable' } },
      ]);
      // Another broker, which remembers nothing.
      expect(await house.connect().verify([lost], soon())).toMatchObject([{ ok: true, contained: false, open: true }]);
    }
    await server.restart();
    await expect
      .poll(async () => {
        await house.session.fence([lost], soon());
        return (await house.session.verify([lost], soon()))[0];
      })
      .toMatchObject({ ok: true, contained: true });
    expect(await opens(server, secret)).toBe(false);
  });

  test('a database that hangs holds up no end beside it', async () => {
    const hung = [
      await make(house.session, intend(house.session, dynamic)),
      await make(house.session, intend(house.session, dynamic)),
    ];
    const beside = await make(house.session, intend(house.session, token));
    proxy.blackHole();
    const refs = [...hung, beside].map(({ ref }) => ref);
    const outcomes = await house.session.fence(refs, soon());
    const verdicts = await house.session.verify(refs, soon());
    proxy.heal();
    proxy.cut();
    expect(outcomes).toMatchObject([{ ok: false }, { ok: false }, { ok: true }]);
    expect(verdicts).toMatchObject([
      ...[
        { contained: false, evidence: { token: 'absent' } },
        { contained: false, evidence: { token: 'absent' } },
      ],
      { contained: true },
    ]);
    await expect
      .poll(async () => {
        await house.session.fence(refs, soon());
        return (await house.session.verify(refs, soon())).map((verdict) => verdict.ok && verdict.contained);
      })
      .toEqual([true, true, true]);
    for (const { secret } of hung) expect(await opens(server, secret)).toBe(false);
  });

  test('a database that is slow, and ends one login at a time, is not taken for one that hangs', async () => {
    // Each takes most of what one may: behind four others none is done in its own time.
    const slowly = { revocation_statements: ['SELECT pg_sleep(0.7);', 'DROP ROLE IF EXISTS "{{name}}";'] };
    await house.root('POST', 'database/roles/readers', slowly);
    try {
      const made = [];
      for (let count = 0; count < 5; count += 1) made.push(await make(house.session, intend(house.session, dynamic)));
      const refs = made.map(({ ref }) => ref);
      const outcomes = await house.session.fence(refs, soon());
      expect(outcomes.map(({ ok }) => ok)).toEqual(made.map(() => true));
      expect((await house.session.verify(refs, soon())).map((one) => one.ok && one.contained)).toEqual(
        made.map(() => true),
      );
    } finally {
      await house.root('POST', 'database/roles/readers', { revocation_statements: [] });
    }
  });

  test('ended before it was made: a late mint finds the note and makes nothing', async () => {
    const granted = intend(house.session, dynamic);
    await house.session.fence([granted.ref], soon());
    expect(await house.session.verify([granted.ref], soon())).toMatchObject([{ contained: true, clean: true }]);
    await expect(make(house.connect(), granted)).rejects.toMatchObject({ errorClass: 'gone' });
    const listed = await house.session.list?.(soon());
    expect(listed?.map(({ handle }) => handle)).not.toContain(granted.ref.handle);
  });

  test('listed: what bears our mark, and nothing of others', async () => {
    const mine = await make(house.session, intend(house.session, token));
    const theirs = await make(house.session, intend(house.session, token));
    const stranger = house.connect({}, '00000000-0000-4000-8000-000000000000');
    // Somebody else's token with our words in its metadata.
    const forged = await house.root('POST', 'auth/token/create', {
      ...{ policies: ['agent'], ttl: '60s' },
      meta: { mayfly_installation: house.installation, mayfly_target: 'vault', mayfly_grant: theirs.ref.grantId },
    });
    const listed = (await house.session.list?.(soon())) ?? [];
    const handles = listed.map(({ handle }) => handle);
    expect(handles).toEqual(expect.arrayContaining([mine.ref.handle, theirs.ref.handle]));
    expect(listed.map(({ facts }) => facts['accessor'])).not.toContain(forged.auth.accessor);
    expect(await stranger.list?.(soon())).toEqual([]);
    const sorted = handles.toSorted((a, b) => (a < b ? -1 : 1));
    expect((await house.session.list?.(soon(), sorted[0]))?.map(({ handle }) => handle)).toEqual(sorted.slice(1));
    // One bad ref fails alone: an accessor that is another's is never revoked.
    const bad = { ...mine.ref, facts: { ...mine.ref.facts, accessor: forged.auth.accessor } };
    const outcomes = await house.session.fence([bad, theirs.ref], soon());
    expect(outcomes).toMatchObject([{ ok: false, error: { errorClass: 'misconfigured' } }, { ok: true }]);
    await house.root('POST', 'auth/token/lookup-accessor', { accessor: forged.auth.accessor });
    await house.session.fence([mine.ref], soon());
  });

  test('inspected: who renewed itself past its deadline is noticed', async () => {
    const { ref } = await make(house.session, intend(house.session, token));
    const inspect = async () => (await house.session.inspect?.([{ ...ref, config: token }], soon()))?.[0];
    expect(await inspect()).toEqual({ ok: true, drift: [] });
    await house.root('POST', 'auth/token/renew-accessor', { accessor: ref.facts['accessor'], increment: '600s' });
    expect(await inspect()).toMatchObject({ ok: true, drift: [{ what: 'expiry' }] });
    await house.session.fence([ref], soon());
    expect(await inspect()).toMatchObject({ ok: true, drift: [{ what: 'absent' }] });
  });

  test('checked: each entitlement lives one life and leaves nothing', async () => {
    for (const config of [token, dynamic]) {
      const steps = await house.session.check({ name: 'vault/e', config }, soon());
      expect(steps.filter(({ ok }) => !ok)).toEqual([]);
      expect(steps.map(({ step }) => step)).toEqual(expect.arrayContaining(['clock', 'mint', 'fence', 'verify']));
    }
    expect(await house.session.list?.(soon())).toEqual([]);
  });
}

for (const flavour of flavours) {
  describe.skipIf(flavour.folder === undefined)(`one life of a credential in ${flavour.name}`, () => {
    oneLife(flavour);
  });
}
