import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import type { Ref } from '../../src/provider.ts';
import { type Between, startBetween } from '../support/between.ts';
import { type FakeRabbitmq, startFakeRabbitmq } from '../support/fake-rabbitmq.ts';
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

const login = entitlement({ mode: 'dynamic', policies: ['queue'], path: 'rabbitmq/creds/r' });
const folder = entitlement({ mode: 'token', policies: ['queue'], lease_paths: ['rabbitmq/creds'] });
const certificate = entitlement({
  ...{ mode: 'dynamic', policies: ['agent'], path: 'pki/issue/agents', method: 'POST' },
  data: { common_name: 'agent.example', ttl: '${ttl_seconds}s' },
});
const endless = entitlement({ ...certificate, data: { common_name: 'agent.example' } });
const wrapped = entitlement({
  ...{ mode: 'kv', policies: ['agent'], mount: 'secret', path: 'agents/one', wrap_seconds: 300 },
});
const token = entitlement({ mode: 'token', policies: ['agent'] });

const agentPolicy = `path "secret/data/agents/*" { capabilities = ["read"] }
path "pki/issue/agents" { capabilities = ["create", "update"] }`;

/** As a crash leaves it. */
const lost = (ref: Ref): Ref => ({ ...ref, facts: null });

/** Heard from the first, however long nobody waits for it. */
async function failureOf(work: Promise<unknown>): Promise<unknown> {
  return await work.then(
    () => 'it did not fail',
    (error: unknown) => error,
  );
}

describe.skipIf(openbaoFolder === undefined)('what a crash leaves in OpenBao', () => {
  let house: VaultHouse;
  let queue: FakeRabbitmq;
  let between: Between;

  beforeAll(async () => {
    queue = await startFakeRabbitmq();
    house = await startVaultHouse({ entitlements: [login, folder, certificate, wrapped] });
    between = await startBetween(house.bao.url);
    await house.root('POST', 'sys/mounts/rabbitmq', { type: 'rabbitmq' });
    const connection = { connection_uri: queue.url, username: 'a', password: 'b', verify_connection: false };
    await house.root('POST', 'rabbitmq/config/connection', connection);
    await house.root('POST', 'rabbitmq/config/lease', { ttl: 600, max_ttl: 3600 });
    await house.root('POST', 'rabbitmq/roles/r', { tags: 'x' });
    await house.root('POST', 'sys/policies/acl/queue', {
      policy: 'path "rabbitmq/creds/r" { capabilities = ["read"] }',
    });
    await house.root('POST', 'sys/mounts/pki', { type: 'pki' });
    await house.root('POST', 'pki/root/generate/internal', { common_name: 'test', ttl: '36000s' });
    await house.root('POST', 'pki/roles/agents', { allow_any_name: true, max_ttl: '3600s', not_before_duration: '0s' });
    await house.root('POST', 'sys/mounts/secret', { type: 'kv', options: { version: '2' } }).catch(() => {});
    await house.root('POST', 'secret/data/agents/one', { data: { password: 'of-one' } });
    await house.root('POST', 'sys/policies/acl/agent', { policy: agentPolicy });
  });
  afterEach(() => {
    vi.useRealTimers();
    queue.release();
    queue.removes = true;
    queue.empty();
    between.before = async () => undefined;
    between.after = (_, answer) => answer;
  });
  afterAll(async () => {
    await house?.stop();
    await between?.close();
    await queue?.close();
  });

  /** The same moment, by the clock of the broker, so many seconds later. */
  function later(seconds: number): void {
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + seconds * 1000 });
  }

  async function verdictOn(ref: Ref, session = house.session): Promise<Json> {
    const [verdict] = await session.verify([ref], soon());
    return verdict;
  }

  async function fenced(ref: Ref, session = house.session): Promise<Json> {
    const [outcome] = await session.fence([ref], soon());
    return outcome;
  }

  /** From here on nothing comes through from whoever goes by the proxy: not what it would tidy up either. */
  function kill(): void {
    between.before = async () => {
      throw new Error('killed');
    };
  }

  /** As it sends this. */
  function killAt(part: string): void {
    between.before = async ({ path }) => {
      if (!path.includes(part)) return undefined;
      kill();
      throw new Error('killed');
    };
  }

  /** Tried again, as the broker does, until it is contained. */
  async function ended(ref: Ref): Promise<void> {
    await expect
      .poll(async () => {
        await fenced(ref);
        return await verdictOn(ref);
      })
      .toMatchObject({ ok: true, contained: true });
  }

  async function leases(): Promise<readonly string[]> {
    const { body } = await ask(house.bao.url, house.bao.token, 'LIST', 'sys/leases/lookup/rabbitmq/creds/r');
    return (body?.data?.keys ?? []).map((key: string) => `rabbitmq/creds/r/${key}`);
  }

  test('an engine hangs and the mint gives up: the login that comes later is seen, and ended', async () => {
    const impatient = house.connect({ request_timeout_seconds: 1 });
    const reached = queue.hold();
    queue.removes = false;
    const granted = intend(impatient, login);
    const failed = failureOf(make(impatient, granted));
    await reached;
    expect(await failed).toMatchObject({ errorClass: 'retryable' });
    const ref = lost(granted.ref);
    await fenced(ref);
    expect(await verdictOn(ref)).toMatchObject({ ok: true, contained: false });
    queue.release();
    await expect.poll(() => queue.users.size).toBe(1);
    // It is there, and can not be taken away yet.
    await expect
      .poll(async () => {
        await fenced(ref);
        return (await verdictOn(ref)).evidence;
      })
      .toMatchObject({ token: 'absent', lease_state: expect.stringMatching(/over|alive/) });
    expect(await verdictOn(ref)).toMatchObject({ ok: true, contained: false, open: true });
    queue.removes = true;
    await ended(ref);
    expect([queue.users.size, await leases()]).toEqual([0, []]);
  });

  test('another replica ends the grant while its read is in the engine: the mint hands nothing out, and nothing is left', async () => {
    const [one, other] = [house.connect(), house.connect()];
    const reached = queue.hold();
    const granted = intend(one, login);
    const refused = failureOf(make(one, granted));
    await reached;
    const ref = lost(granted.ref);
    expect(await fenced(ref, other)).toMatchObject({ ok: true });
    expect(await verdictOn(ref, other)).toMatchObject({ ok: true, contained: false });
    queue.release();
    expect(await refused).toMatchObject({ errorClass: 'gone' });
    await expect.poll(() => verdictOn(ref, other)).toMatchObject({ ok: true, contained: true });
    expect([queue.users.size, await leases()]).toEqual([0, []]);
  });

  /** Of a broker that is killed while its read is in the engine, and Vault does not hear of it. */
  async function killedInEngine(): Promise<Ref> {
    const killed = house.connect({ addresses: [between.url] });
    const reached = queue.hold();
    const granted = intend(killed, login);
    const failed = failureOf(make(killed, granted));
    await reached;
    kill();
    await killed.close();
    expect(await failed).toMatchObject({ errorClass: 'retryable' });
    return lost(granted.ref);
  }

  test('killed while its read is in the engine: its token is kept for what may come, and takes it along', async () => {
    const ref = await killedInEngine();
    for (let tried = 0; tried < 2; tried += 1) {
      expect(await fenced(ref)).toMatchObject({ ok: true, evidence: { read: 'at work', token: 'kept' } });
      expect(await verdictOn(ref)).toMatchObject({ ok: true, contained: false, evidence: { read: 'broken off' } });
    }
    queue.release();
    await expect.poll(leases).toHaveLength(1);
    const beside = await make(house.session, intend(house.session, login));
    later(300);
    await ended(ref);
    vi.useRealTimers();
    expect([...queue.users.keys()]).toEqual([beside.secret['username']]);
    await ended(beside.ref);
  });

  test('killed while its read is in the engine, and its token gone: it is waited for the lease that may be its own, and no other', async () => {
    const ref = await killedInEngine();
    const listed = (await house.session.list?.(soon()))?.find(({ handle }) => handle === ref.handle);
    await house.root('POST', 'auth/token/revoke-accessor', { accessor: listed?.facts['accessor'] });
    await fenced(ref);
    queue.release();
    await expect.poll(leases).toHaveLength(1);
    const [lease] = await leases();
    const beside = await make(house.session, intend(house.session, login));
    later(300);
    // It hangs on no token, and whether it is a stranger's nothing tells. So it is not ended, and waited for.
    await fenced(ref);
    const waits = await verdictOn(ref);
    expect(waits).toMatchObject({ ok: true, contained: false, open: true });
    expect(waits.evidence.leases_pending).toHaveLength(1);
    await house.root('POST', 'sys/leases/revoke', { lease_id: lease, sync: true });
    expect(await verdictOn(ref)).toMatchObject({ ok: true, contained: true });
    vi.useRealTimers();
    expect([...queue.users.keys()]).toEqual([beside.secret['username']]);
    await ended(beside.ref);
  });

  test('killed between its note and its token, and between its token and the read: nothing was handed out', async () => {
    for (const [at, evidence] of [
      ['auth/token/create/', { noted: 'begun' }],
      ['rabbitmq/creds/', { read: 'broken off', token: 'absent' }],
    ] as const) {
      const killed = house.connect({ addresses: [between.url] });
      killAt(at);
      const granted = intend(killed, login);
      await expect(make(killed, granted)).rejects.toMatchObject({ errorClass: 'retryable' });
      const ref = lost(granted.ref);
      expect(await verdictOn(ref)).toMatchObject({ ok: true, contained: false });
      await fenced(ref);
      const verdict = await verdictOn(ref);
      expect(verdict).toMatchObject({ ok: true, clean: false, evidence });
      const [reaped] = await house.session.reap([ref], soon());
      expect(reaped).toMatchObject({ ok: true, notBefore: expect.any(Date) });
      later(400);
      expect(await verdictOn(ref)).toMatchObject({ ok: true, contained: true, clean: true });
      expect((await house.session.reap([ref], soon()))[0]).toEqual({ ok: true, evidence: { note: 'gone' } });
      expect(await verdictOn(ref)).toMatchObject({ ok: true, contained: true, clean: true });
      vi.useRealTimers();
      between.before = async () => undefined;
    }
    expect(queue.users.size).toBe(0);
  });

  test('killed after its read and before it is handed out: its lease is ended by what was noted', async () => {
    const killed = house.connect({ addresses: [between.url] });
    killAt('sys/leases/renew');
    const granted = intend(killed, login);
    await expect(make(killed, granted)).rejects.toMatchObject({ errorClass: 'retryable' });
    const ref = lost(granted.ref);
    expect(await verdictOn(ref)).toMatchObject({ ok: true, contained: false, open: true });
    expect(await fenced(ref)).toMatchObject({ ok: true, evidence: { facts: 'noted', lease_end: 'revoked' } });
    expect(await verdictOn(ref)).toMatchObject({ ok: true, contained: true });
    expect([queue.users.size, await leases()]).toEqual([0, []]);
  });

  test('the deadline passes with the broker and the system behind Vault down: the login is still owed', async () => {
    const { ref } = await make(house.session, intend(house.session, login, { seconds: 2 }));
    queue.removes = false;
    const accessor = ref.facts['accessor'];
    const alive = () => ask(house.bao.url, house.bao.token, 'POST', 'auth/token/lookup-accessor', { accessor });
    await expect.poll(async () => (await alive()).status).toBe(400);
    expect(await fenced(lost(ref))).toMatchObject({ ok: false, error: { errorClass: 'retryable' } });
    expect(await verdictOn(lost(ref))).toMatchObject({ ok: true, contained: false, open: true });
    expect(queue.users.size).toBe(1);
    queue.removes = true;
    await ended(lost(ref));
    expect(queue.users.size).toBe(0);
  });

  test('with no note left it is found by its metadata', async () => {
    const { ref } = await make(house.session, intend(house.session, token));
    await house.root('DELETE', `mayfly/metadata/minting/${ref.handle}`);
    expect(await fenced(lost(ref))).toMatchObject({
      ok: true,
      evidence: { facts: 'lost', found: [{ token: 'revoked' }] },
    });
    expect(await verdictOn(lost(ref))).toMatchObject({ ok: true, contained: true });
  });

  test('what only expires is waited for, with its facts lost and as a listed orphan', async () => {
    const granted = () => make(house.session, intend(house.session, certificate, { seconds: 300 }));
    const [one, other] = [await granted(), await granted()];
    const listed = (await house.session.list?.(soon()))?.find(({ handle }) => handle === other.ref.handle);
    const orphan = { ...other.ref, facts: listed?.facts ?? {} };
    for (const ref of [lost(one.ref), orphan]) {
      expect(await fenced(ref)).toMatchObject({ ok: true });
      expect(await verdictOn(ref)).toMatchObject({ ok: true, contained: false, evidence: { token: 'absent' } });
    }
    // The note gone too, the metadata had told it.
    await house.root('DELETE', `mayfly/metadata/minting/${orphan.handle}`);
    expect(await verdictOn(orphan)).toMatchObject({ ok: true, contained: false });
    later(330);
    for (const ref of [lost(one.ref), orphan])
      expect(await verdictOn(ref)).toMatchObject({ ok: true, contained: true });
  });

  test('one that would live too long is not handed out, and not waited for', async () => {
    const granted = intend(house.session, endless, { seconds: 60 });
    await expect(make(house.session, granted)).rejects.toMatchObject({ errorClass: 'misconfigured' });
    await ended(lost(granted.ref));
  });

  test('the end of an orphan cancels a delivery that was wrapped', async () => {
    const { ref, secret } = await make(house.session, intend(house.session, wrapped, { seconds: 300 }));
    const listed = (await house.session.list?.(soon()))?.find(({ handle }) => handle === ref.handle);
    const orphan = { ...ref, facts: listed?.facts ?? {} };
    expect(await fenced(orphan)).toMatchObject({ ok: true, evidence: { wrapping: 'revoked' } });
    expect(await verdictOn(orphan)).toMatchObject({ ok: true, contained: true });
    const { status } = await ask(house.bao.url, secret['wrapping_token'], 'POST', 'sys/wrapping/unwrap', {});
    expect(status).toBe(400);
  });

  test('without a record what is wrapped or only expires is waited for as long as it can be good', async () => {
    const none = house.connect({ record: 'none' });
    for (const config of [wrapped, certificate]) {
      const { ref } = await make(none, intend(none, config, { seconds: 30 }));
      const listed = (await none.list?.(soon()))?.find(({ handle }) => handle === ref.handle);
      const orphan = { ...ref, facts: listed?.facts ?? {} };
      await fenced(orphan, none);
      expect(await verdictOn(orphan, none)).toMatchObject({ ok: true, contained: false });
      await fenced(lost(ref), none);
      later(400);
      expect(await verdictOn(orphan, none)).toMatchObject({ ok: true, contained: true });
      // Nothing tells what was left.
      expect(await verdictOn(lost(ref), none)).toMatchObject({ ok: true, contained: false });
      vi.useRealTimers();
    }
  });

  test('leases in a folder below a declared path are found', async () => {
    const { ref, secret } = await make(house.session, intend(house.session, folder));
    expect((await ask(house.bao.url, secret['token'], 'GET', 'rabbitmq/creds/r')).status).toBe(200);
    queue.removes = false;
    await fenced(ref);
    await expect.poll(() => verdictOn(ref)).toMatchObject({ contained: false, evidence: { token: 'absent' } });
    expect((await verdictOn(ref)).evidence.leases_pending).toHaveLength(1);
    queue.removes = true;
    await ended(ref);
    expect(queue.users.size).toBe(0);
  });

  test('a lease that is known to be another grant’s holds up none but its own', async () => {
    const owed = await make(house.session, intend(house.session, login));
    const { ref, secret } = await make(house.session, intend(house.session, folder));
    expect((await ask(house.bao.url, secret['token'], 'GET', 'rabbitmq/creds/r')).status).toBe(200);
    await ended(ref);
    queue.removes = false;
    expect(await fenced(owed.ref)).toMatchObject({ ok: false });
    const other = await make(house.session, intend(house.session, folder));
    expect(await fenced(other.ref)).toMatchObject({ ok: true });
    expect(await verdictOn(other.ref)).toMatchObject({ ok: true, contained: true });
    expect(await verdictOn(owed.ref)).toMatchObject({ ok: true, contained: false });
    queue.removes = true;
    await ended(owed.ref);
  });

  test('in another namespace of the cluster, or by another role, nothing is found, and that proves nothing', async () => {
    const sibling = await startVaultHouse({
      ...{ bao: house.bao, namespace: 'sibling', entitlements: [token], installation: house.installation },
    });
    const renamed = house.connect({ token_role: 'other' });
    try {
      const { ref } = await make(house.session, intend(house.session, token));
      for (const session of [sibling.session, renamed])
        for (const one of [ref, lost(ref)]) {
          const refused = { ok: false, error: { errorClass: 'misconfigured' } };
          expect([await fenced(one, session), await verdictOn(one, session)]).toMatchObject([refused, refused]);
        }
      expect(await verdictOn(ref)).toMatchObject({ ok: true, contained: false });
      await ended(ref);
    } finally {
      await renamed.close();
      await sibling.stop();
    }
  });

  test('no token lives past its deadline: one by a role with a period is refused, one that was long on its way is cut', async () => {
    const { data } = await house.root('GET', 'auth/token/roles/mayfly');
    await house.root('POST', 'auth/token/roles/mayfly', { ...data, token_period: 7200 });
    const periodic = intend(house.session, token, { notAfter: new Date(Date.now() + 3_600_000) });
    await expect(make(house.session, periodic)).rejects.toMatchObject({ errorClass: 'misconfigured' });
    await house.root('POST', 'auth/token/roles/mayfly', { ...data, token_period: 0 });
    expect((await house.session.list?.(soon()))?.map(({ handle }) => handle)).not.toContain(periodic.ref.handle);
    await ended(lost(periodic.ref));

    const far = house.connect({ addresses: [between.url] });
    between.before = async ({ path }) => {
      if (path.includes('auth/token/create/')) await new Promise((resolve) => setTimeout(resolve, 4000));
      return undefined;
    };
    const { ref, minted } = await make(far, intend(far, token, { seconds: 30 }));
    expect(minted.expiresAt.getTime()).toBeLessThanOrEqual(ref.deadline.getTime() + 1000);
    const known = await house.root('POST', 'auth/token/lookup-accessor', { accessor: ref.facts['accessor'] });
    expect(new Date(known.data.expire_time).getTime()).toBeLessThanOrEqual(ref.deadline.getTime() + 1000);
    await ended(ref);
  });

  test('Vault set back to before a grant has forgotten its lease: that is not its end', async () => {
    const { ref } = await make(house.session, intend(house.session, login));
    const [lease] = await leases();
    // As after a restore: no token, no lease, no note, and the login alive.
    queue.removes = false;
    await house.root('POST', 'auth/token/revoke-accessor', { accessor: ref.facts['accessor'] });
    await house.root('POST', 'sys/leases/revoke-force/rabbitmq/creds/r');
    await house.root('DELETE', `mayfly/metadata/minting/${ref.handle}`);
    expect([lease, await leases(), queue.users.size]).toEqual([expect.any(String), [], 1]);
    await fenced(ref);
    expect(await verdictOn(ref)).toMatchObject({ ok: true, contained: false, evidence: { lease_state: 'absent' } });
    later(700);
    expect(await verdictOn(ref)).toMatchObject({ ok: true, contained: true });
  });

  test('a holder’s beat that goes back is told, and nothing more is made until somebody adopts the target', async () => {
    const session = house.connect();
    const beat = (count: number, tenure = 'one') => session.hold?.(soon(), { store: 'store', tenure, beat: count });
    const kept = (await house.root('GET', 'mayfly/data/holder')).data.data;
    await house.root('POST', 'mayfly/data/holder', { data: { ...kept, tenure: null } });
    expect(await beat(5)).toMatchObject({ tenure: 'one', beat: 5 });
    await house.root('POST', 'mayfly/data/holder', { data: { ...kept, store: 'store', tenure: 'one', beat: 3 } });
    await beat(6);
    expect(house.logged.filter(({ alert }) => alert === 'restored')).toHaveLength(1);
    const refused = make(session, intend(session, token));
    await expect(refused).rejects.toMatchObject({ errorClass: 'misconfigured', wholeTarget: true });
    // What it has forgotten is not there for that reason.
    const forgotten = intend(session, token).ref;
    await fenced(forgotten, session);
    expect(await verdictOn(forgotten, session)).toMatchObject({ ok: true, contained: false });
    await house.root('POST', 'mayfly/data/holder', {
      data: { ...kept, store: 'store', epoch: kept.epoch + 1, tenure: 'two', beat: 0 },
    });
    await beat(1, 'two');
    expect(await verdictOn(forgotten, session)).toMatchObject({ ok: true, contained: true });
    const { ref } = await make(session, intend(session, token));
    await ended(ref);
    await house.root('POST', 'mayfly/data/holder', { data: kept });
  });

  test('a list of tokens that is not whole shows nothing to be gone, and one token that can not be read hides no other', async () => {
    const session = house.connect({ addresses: [between.url] });
    const { ref } = await make(session, intend(session, token));
    const other = await make(session, intend(session, token));
    for (const answer of [
      { status: 404, body: '{"errors":[]}' },
      { status: 200, body: '{"data":{"keys":[]}}' },
    ]) {
      between.before = async ({ path }) => (path.includes('auth/token/accessors') ? answer : undefined);
      await expect(session.list?.(soon())).rejects.toMatchObject({ errorClass: 'retryable' });
    }
    const fresh = house.connect({ addresses: [between.url] });
    between.before = async ({ path, body }) =>
      path.endsWith('lookup-accessor') && body.includes(String(ref.facts['accessor']))
        ? { status: 500, body: '{"errors":["no"]}' }
        : undefined;
    const handles = (await fresh.list?.(soon()))?.map(({ handle }) => handle);
    expect([handles?.includes(other.ref.handle), handles?.includes(ref.handle)]).toEqual([true, false]);
    between.before = async () => undefined;
    expect((await fresh.list?.(soon()))?.map(({ handle }) => handle)).toContain(ref.handle);
    for (const one of [ref, other.ref]) await ended(one);
  });

  test('asked when they end, one that is not to be told keeps no other from being told', async () => {
    const { ref } = await make(house.session, intend(house.session, token));
    const bad = { ...ref, facts: { ...ref.facts, accessor: 'another' } };
    expect(await house.session.ends?.([bad, ref], soon())).toEqual([null, expect.any(Date)]);
    await ended(ref);
  });

  test('evidence names no lease by its id', async () => {
    const { ref } = await make(house.session, intend(house.session, login));
    const id = String(ref.facts['lease_id']);
    queue.removes = false;
    const said = [await fenced(ref), await verdictOn(ref), await fenced(lost(ref)), await verdictOn(lost(ref))];
    queue.removes = true;
    said.push(await fenced(ref), await verdictOn(ref));
    await ended(ref);
    expect(JSON.stringify(said)).toContain('rabbitmq/creds/r/#');
    expect(JSON.stringify(said)).not.toContain(id);
  });

  test('a lease that Vault gave up on stays owed, and is ended when the system behind is back', async () => {
    const { ref } = await make(house.session, intend(house.session, login));
    const id = String(ref.facts['lease_id']);
    // As Vault itself leaves it after six tries: what is stored of the lease says so from the next unsealing on.
    const stored = JSON.parse((await house.root('GET', `sys/raw/sys/expire/id/${id}`)).data.value);
    const given = { ...stored, expire_time: new Date(Date.now() - 60_000).toISOString(), revokeErr: 'tried six times' };
    await house.root('POST', `sys/raw/sys/expire/id/${id}`, { value: JSON.stringify(given) });
    await house.root('POST', 'sys/seal', {});
    const key = /Unseal Key: (\S+)/.exec(house.bao.log())?.[1];
    await ask(house.bao.url, '', 'POST', 'sys/unseal', { key });
    const irrevocable = async () => (await house.root('GET', 'sys/leases/count?type=irrevocable')).data.lease_count;
    await expect.poll(() => irrevocable().catch(() => 0)).toBe(1);
    queue.removes = false;
    expect(await fenced(ref)).toMatchObject({ ok: false, error: { errorClass: 'retryable' } });
    for (const one of [ref, lost(ref)])
      expect(await verdictOn(one)).toMatchObject({
        ...{ ok: true, contained: false, open: true },
        evidence: { lease_state: 'over, and not taken away yet' },
      });
    expect([queue.users.size, await irrevocable()]).toEqual([1, 1]);
    queue.removes = true;
    await ended(ref);
    expect([queue.users.size, await leases()]).toEqual([0, []]);
  });
});
