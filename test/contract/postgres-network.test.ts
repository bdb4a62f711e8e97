import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { prepare, provider } from '../../providers/postgres/index.ts';
import { Secret, type Session } from '../../src/provider.ts';
import type { PostgresEntitlement } from '../../providers/postgres/schema.ts';
import { availableVersions, type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts';
import { entitlementName, type Ledger, makeLedger, soon } from './postgres-fixture.ts';

describe.each(availableVersions())('PostgreSQL %i over a network that fails', (version) => {
  let server: PostgresServer;
  let ledger: Ledger;
  let proxy: TcpProxy;
  let session: Session<PostgresEntitlement>;
  beforeAll(async () => {
    server = await startPostgres({ version });
    ledger = await makeLedger(server, 'ledger');
  });
  afterAll(async () => {
    await ledger?.close();
    await server?.stop();
  });
  beforeEach(async () => {
    proxy = await startTcpProxy(server.port);
    session = ledger.connect({ port: proxy.port });
  });
  afterEach(async () => {
    vi.useRealTimers();
    await session.close();
    await proxy.close();
  });

  test('opening a target touches no network, and one that is down is retryable', async () => {
    const away = ledger.connect({ port: 1 });
    const ref = ledger.ref();
    await expect(away.mint(ref, ledger.request(ref), soon())).rejects.toMatchObject({ errorClass: 'retryable' });
    expect(await away.fence([ref], soon())).toMatchObject([{ ok: false, error: { errorClass: 'retryable' } }]);
    await expect(away.verify([ref], soon())).rejects.toMatchObject({ errorClass: 'retryable' });
    expect(await away.check(null, soon())).toMatchObject([{ step: 'connect', ok: false }]);
    expect(proxy.connections).toBe(0);
  });

  test('a target that takes the connection and says nothing is given up with the signal', async () => {
    proxy.blackHole();
    const ref = ledger.ref();
    const began = performance.now();
    await expect(session.mint(ref, ledger.request(ref), soon(300))).rejects.toMatchObject({ errorClass: 'retryable' });
    expect(performance.now() - began).toBeLessThan(15_000);
  });

  test('a target that hangs in the middle of a statement is given up with the signal; what it did is found and ended', async () => {
    const warm = ledger.ref();
    const first = await session.mint(warm, ledger.request(warm), soon());
    proxy.swallowAnswers();
    const ref = ledger.ref();
    const began = performance.now();
    await expect(session.mint(ref, ledger.request(ref), soon(2_000))).rejects.toMatchObject({
      errorClass: 'retryable',
    });
    expect(performance.now() - began).toBeLessThan(15_000);
    // The statement arrived; only its answer was lost.
    await expect.poll(() => ledger.admin('SELECT FROM pg_roles WHERE rolname = $1', [ref.handle])).toHaveLength(1);

    const refs = [{ ...warm, facts: first.facts }, ref];
    const given = await session.fence(refs, soon(1_000));
    expect(given).toMatchObject([
      { ok: false, error: { errorClass: 'retryable' } },
      { ok: false, error: { errorClass: 'retryable' } },
    ]);
    await expect(session.verify(refs, soon(300))).rejects.toMatchObject({ errorClass: 'retryable' });
    proxy.heal();
    expect(await session.fence(refs, soon())).toMatchObject([{ ok: true }, { ok: true }]);
    expect(await session.verify(refs, soon())).toMatchObject([{ contained: true }, { contained: true }]);
    expect(await session.reap(refs, soon())).toMatchObject([{ ok: true }, { ok: true }]);
    expect(await session.verify(refs, soon())).toMatchObject([{ clean: true }, { clean: true }]);
  });

  test('a mint whose answer comes too late changes nothing for the one that ends it meanwhile', async () => {
    proxy.delay(150);
    const ref = ledger.ref();
    const minting = session.mint(ref, ledger.request(ref), soon()).then(
      () => 'minted',
      (error: unknown) => (error instanceof Error && 'errorClass' in error ? error.errorClass : error),
    );
    expect(await ledger.session.fence([ref], soon())).toMatchObject([{ ok: true }]);
    expect(await minting).toBe('gone');
    expect(await ledger.session.verify([ref], soon())).toMatchObject([{ contained: true, clean: true }]);
  });

  test('connections that died while idle are replaced without an error', async () => {
    const ref = ledger.ref();
    const { facts } = await session.mint(ref, ledger.request(ref), soon());
    await session.guarantee(ledger.entitlement, soon());
    proxy.cut();
    expect(await session.fence([{ ...ref, facts }], soon())).toMatchObject([{ ok: true }]);
    await session.guarantee(ledger.entitlement, soon());
    if (version !== availableVersions().at(-1)) return;
    // Without a word, while they were idle for a while. A version of the server makes no difference, and it takes seconds.
    vi.useFakeTimers({ toFake: ['performance'] });
    vi.advanceTimersByTime(60_000);
    proxy.halfOpen();
    expect(await session.fence([{ ...ref, facts }], soon(20_000))).toMatchObject([{ ok: true }]);
  });

  test('a crash of the server is over when the server is back', async () => {
    const ref = ledger.ref();
    const { facts } = await session.mint(ref, ledger.request(ref), soon());
    const open = await ledger
      .login({ facts: facts, expiresAt: ref.deadline, secret: new Secret({}) })
      .catch(() => null);
    expect(open).toBeNull();
    await server.restart('immediate');
    expect(await session.fence([{ ...ref, facts }], soon())).toMatchObject([{ ok: true, evidence: { login: 'cut' } }]);
    const next = ledger.ref();
    await session.mint(next, ledger.request(next), soon());
    expect(await session.fence([next], soon())).toMatchObject([{ ok: true }]);
  });

  test('closing does not wait for a target that hangs', async () => {
    const ref = ledger.ref();
    await session.mint(ref, ledger.request(ref), soon());
    proxy.blackHole();
    const hanging = session.verify([ref], soon()).catch(() => 'ended');
    const began = performance.now();
    await session.close();
    expect(await hanging).toBe('ended');
    expect(performance.now() - began).toBeLessThan(15_000);
    await ledger.session.fence([ref], soon());
  });

  test('callers that give up while they wait for a connection leave it to the others', async () => {
    const narrow = ledger.connect({ port: proxy.port, max_connections: 5 });
    await narrow.guarantee(ledger.entitlement, soon());
    proxy.delay(20);
    const asked = Array.from({ length: 12 }, (_, i) =>
      narrow.guarantee(ledger.entitlement, i % 3 === 0 ? soon(1) : soon()).then(
        () => 'answered',
        () => 'given up',
      ),
    );
    const answers = await Promise.all(asked);
    expect(answers.filter((answer) => answer === 'answered').length).toBeGreaterThanOrEqual(8);
    expect(await narrow.guarantee(ledger.entitlement, soon())).toMatchObject({ native_expiry: true });
  });

  test('a password file that was rotated is read again; a wrong password is denied, and not told', async () => {
    const [right] = await ledger.admin('SELECT 1');
    expect(right).toBeDefined();
    const password = randomUUID();
    await ledger.admin(`ALTER ROLE ${ledger.config.user} PASSWORD '${password}'`);
    let reads = 0;
    const context = (answers: readonly string[]) => ({
      target: 'ledger',
      installation: ledger.installation,
      secret: () => new Secret(answers[Math.min(reads++, answers.length - 1)] ?? ''),
      log: () => {},
    });
    const rotated = provider.connect(ledger.config, context(['before-the-rotation', password]));
    await rotated.guarantee(ledger.entitlement, soon());
    expect(reads).toBe(2);
    await rotated.close();

    const wrong = provider.connect(ledger.config, context(['never-right-0123456789']));
    const error: unknown = await wrong.guarantee(ledger.entitlement, soon()).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ errorClass: 'denied' });
    expect(`${String(error)} ${JSON.stringify(error)}`).not.toContain('never-right');
    await wrong.close();
  });
});

describe('another server behind the right name', () => {
  test('is misconfigured, never gone', async () => {
    const [version = 18] = availableVersions().toReversed();
    const [right, wrong] = await Promise.all([startPostgres({ version }), startPostgres({ version })]);
    const proxy = await startTcpProxy(right.port);
    const ledger = await makeLedger(right, 'ledger');
    try {
      // The same catalog, installation and password: only the cluster is another.
      const url = await wrong.createDatabase('ledger');
      const password = randomUUID();
      await ledger.admin(`ALTER ROLE ${ledger.config.user} PASSWORD '${password}'`);
      const admin = new pg.Client({ connectionString: url });
      await admin.connect();
      await admin.query('CREATE SCHEMA billing; CREATE TABLE billing.invoices (id int)');
      await admin.end();
      const entitlements = [{ name: entitlementName, maxTtlSeconds: 900, config: ledger.entitlement }];
      await prepare(url, { ...ledger.config, port: wrong.port }, entitlements, ledger.installation, {
        password: new Secret(password),
      });

      const session = provider.connect(
        { ...ledger.config, port: proxy.port },
        { target: 'ledger', installation: ledger.installation, secret: () => new Secret(password), log: () => {} },
      );
      const ref = ledger.ref();
      const { facts } = await session.mint(ref, ledger.request(ref), soon());
      const minted = { ...ref, facts };
      proxy.retarget(wrong.port);
      proxy.cut();
      const misconfigured = [{ ok: false, error: { errorClass: 'misconfigured' } }];
      expect(await session.fence([minted], soon())).toMatchObject(misconfigured);
      expect(await session.verify([minted], soon())).toMatchObject(misconfigured);
      expect(await session.reap([minted], soon())).toMatchObject(misconfigured);
      proxy.retarget(right.port);
      proxy.cut();
      expect(await session.fence([minted], soon())).toMatchObject([{ ok: true, evidence: { login: 'cut' } }]);
      await session.close();
    } finally {
      await ledger.close();
      await proxy.close();
      await Promise.all([right.stop(), wrong.stop()]);
    }
  });
});

describe.each(availableVersions())('TLS to PostgreSQL %i', (version) => {
  let server: PostgresServer;
  const installation = randomUUID();
  const password = new Secret(randomUUID());
  const base = { host: '127.0.0.1', database: 'postgres', user: 'broker', password: 'env:P' };
  beforeAll(async () => {
    server = await startPostgres({ version, tls: { names: ['127.0.0.1'] } });
    const config = provider.targetSchema.parse({ ...base, port: server.port, ca_pem: server.caPem });
    await prepare(server.superuserUrl(), config, [], installation, { password });
  });
  afterAll(() => server?.stop());

  function connect(changes: Readonly<Record<string, unknown>>): Session<PostgresEntitlement> {
    const config = provider.targetSchema.parse({ ...base, port: server.port, ...changes });
    return provider.connect(config, { target: 'tls', installation, secret: () => password, log: () => {} });
  }
  async function connects(changes: Readonly<Record<string, unknown>>): Promise<string> {
    const session = connect(changes);
    const steps = await session.check(null, soon());
    await session.close();
    return steps.find(({ step }) => step === 'connect')?.ok === true ? 'connects' : (steps[0]?.says ?? '');
  }

  test('verify-full, the default, takes the right name and authority, and the credential carries the CA', async () => {
    expect(await connects({ ca_pem: server.caPem })).toBe('connects');
  });

  test('verify-full refuses another name', async () => {
    expect(await connects({ ca_pem: server.caPem, host: 'localhost' })).toMatch(/ERR_TLS_CERT_ALTNAME_INVALID/);
  });

  test('verify-ca takes another name, but no other authority', async () => {
    expect(await connects({ ca_pem: server.caPem, host: 'localhost', sslmode: 'verify-ca' })).toBe('connects');
    expect(await connects({ sslmode: 'verify-ca' })).toMatch(/cannot be trusted over TLS/);
  });

  test('require encrypts and checks nothing; without TLS this server refuses', async () => {
    expect(await connects({ sslmode: 'require' })).toBe('connects');
    expect(await connects({ sslmode: 'disable' })).toMatch(/28000/);
  });

  test('a server without TLS is misconfigured for a target that wants it', async () => {
    const plain = await startPostgres({ version });
    expect(await connects({ port: plain.port })).toMatch(/offers no TLS/);
    await plain.stop();
  });

  test('the agent gets what it needs to verify the server too', async () => {
    const entitlement = provider.entitlementSchema.parse({
      template: 'mayfly_t_tls',
      privileges: [{ schema: 'public', functions: ['tls_now()'], grant: ['EXECUTE'] }],
    });
    const config = provider.targetSchema.parse({
      ...base,
      port: server.port,
      ca_pem: server.caPem,
      agent_endpoint: { host: 'db.agents.example', port: 6432 },
    });
    const ssl = { ca: server.caPem ?? '' };
    const admin = new pg.Client({ connectionString: server.superuserUrl(), ssl });
    await admin.connect();
    await admin.query('CREATE FUNCTION public.tls_now() RETURNS timestamptz LANGUAGE sql RETURN now()');
    await admin.end();
    const entitlements = [{ name: 'tls/now', maxTtlSeconds: 60, config: entitlement }];
    await prepare(server.superuserUrl(), config, entitlements, installation, { password });
    const session = provider.connect(config, { target: 'tls', installation, secret: () => password, log: () => {} });
    const grantId = randomUUID();
    const deadline = new Date(Date.now() + 30_000);
    const ref = { grantId, handle: session.reserve(grantId), facts: null, deadline };
    const request = { grantId, entitlement: 'tls/now', config: entitlement, params: {}, deadline, notAfter: deadline };
    const minted = await session.mint(ref, { ...request, mintBy: deadline }, soon());
    expect(minted.secret.reveal()).toMatchObject({
      host: 'db.agents.example',
      port: 6432,
      sslmode: 'verify-full',
      ca_pem: server.caPem,
    });
    expect(await session.fence([ref], soon())).toMatchObject([{ ok: true }]);
    expect(await session.reap([ref], soon())).toMatchObject([{ ok: true }]);
    await session.close();
  });
});
