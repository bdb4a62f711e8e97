import pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { CheckStep, Minted } from '../../src/provider.ts';
import { type Pgbouncer, type PgbouncerOptions, pgbouncerAvailable, startPgbouncer } from '../support/pgbouncer.ts';
import { availableVersions, type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { entitlementName, type Ledger, makeLedger, soon, sqlState } from './postgres-fixture.ts';

/** What the broker's own connections say at their start, and a careless administrator lets a pooler ignore. */
const ignoring =
  'ignore_startup_parameters = options, statement_timeout, lock_timeout, idle_in_transaction_session_timeout, extra_float_digits';

describe.runIf(pgbouncerAvailable()).each(availableVersions())('PgBouncer before PostgreSQL %i', (version) => {
  let server: PostgresServer;
  let ledger: Ledger;
  const poolers = new Set<Pgbouncer>();
  const clients = new Set<pg.Client>();
  beforeAll(async () => {
    server = await startPostgres({ version });
    ledger = await makeLedger(server, 'ledger');
    await ledger.admin(`CREATE ROLE shared LOGIN PASSWORD 'shared'; GRANT USAGE ON SCHEMA billing TO shared;
      GRANT SELECT ON billing.invoices TO shared`);
  });
  afterEach(async () => {
    await Promise.all([...clients].map((client) => client.end().catch(() => {})));
    clients.clear();
    await Promise.all([...poolers].map((pooler) => pooler.stop()));
    poolers.clear();
  });
  afterAll(async () => {
    await ledger?.close();
    await server?.stop();
  });

  async function pooled(options: Omit<PgbouncerOptions, 'lookup'>): Promise<Pgbouncer> {
    const lookup = { user: 'postgres', password: server.password };
    const pooler = await startPgbouncer(server, { ...options, lookup });
    poolers.add(pooler);
    return pooler;
  }
  async function login(pooler: Pgbouncer, minted: Minted): Promise<pg.Client> {
    const { database, username, password } = minted.secret.reveal();
    const client = new pg.Client({
      host: '127.0.0.1',
      port: pooler.port,
      database: String(database),
      user: String(username),
      password: String(password),
      ssl: false,
    });
    client.on('error', () => {});
    await client.connect();
    clients.add(client);
    return client;
  }
  async function check(pooler: Pgbouncer, config = ledger.entitlement): Promise<readonly CheckStep[]> {
    const session = ledger.connect({ agent_endpoint: { host: '127.0.0.1', port: pooler.port } });
    try {
      return await session.check({ name: entitlementName, config }, soon());
    } finally {
      await session.close();
    }
  }
  function failed(steps: readonly CheckStep[]): readonly string[] {
    return steps.filter(({ ok }) => !ok).map(({ step, says }) => `${step}: ${says}`);
  }
  function endpointSteps(steps: readonly CheckStep[]): readonly CheckStep[] {
    return steps.filter(({ step }) => step.startsWith('agent_endpoint'));
  }

  describe.each(['session', 'transaction'] as const)('in %s mode, with a pool of each user', (mode) => {
    test('the end reaches the pooled session of a client that stays, and no new one gets in', async () => {
      const pooler = await pooled({ mode });
      const { ref, minted } = await ledger.mint();
      const agent = await login(pooler, minted);
      expect((await agent.query('SELECT session_user AS me')).rows).toEqual([{ me: ref.handle }]);
      expect(await ledger.session.observe?.([ref], soon())).toMatchObject([
        { ok: true, total: 1, sessions: [{ clientAddress: '127.0.0.1' }] },
      ]);
      expect(await ledger.session.fence([ref], soon())).toMatchObject([{ ok: true, evidence: { sessions_ended: 1 } }]);
      expect(await ledger.session.verify([ref], soon())).toMatchObject([{ ok: true, contained: true }]);
      // It may be let wait for query_wait_timeout first. It gets no answer.
      expect(await sqlState(agent.query('SELECT * FROM billing.invoices LIMIT 1'))).not.toBe('none');
      expect(await sqlState(login(pooler, minted))).not.toBe('none');
      expect(await ledger.session.reap([ref], soon())).toMatchObject([{ ok: true }]);
      expect(await ledger.session.verify([ref], soon())).toMatchObject([{ ok: true, contained: true, clean: true }]);
    });

    test('a client in the middle of a transaction is cut off as well', async () => {
      const pooler = await pooled({ mode });
      const { ref, minted } = await ledger.mint();
      const agent = await login(pooler, minted);
      await agent.query('BEGIN');
      await agent.query('DECLARE c CURSOR FOR SELECT * FROM billing.invoices');
      await agent.query('FETCH 1 FROM c');
      await ledger.session.fence([ref], soon());
      expect(await sqlState(agent.query('FETCH 1 FROM c'))).not.toBe('none');
      await ledger.session.reap([ref], soon());
    });

    test('check is content: agents arrive as the minted role, and none is served after the end', async () => {
      const steps = await check(await pooled({ mode }));
      expect(failed(steps)).toEqual([]);
      expect(endpointSteps(steps)).toMatchObject([
        { step: 'agent_endpoint', ok: true, says: expect.stringContaining('through a pooler, as the minted role') },
        { step: 'agent_endpoint_ended', ok: true },
      ]);
    });

    test('a pool with a forced user is refused, since no end reaches it', async () => {
      const pooler = await pooled({ mode, forced: { user: 'shared', password: 'shared' } });
      const { ref, minted } = await ledger.mint();
      const agent = await login(pooler, minted);
      expect((await agent.query('SELECT session_user AS me')).rows).toEqual([{ me: 'shared' }]);
      await ledger.session.fence([ref], soon());
      // This is why.
      expect(await sqlState(agent.query('SELECT * FROM billing.invoices LIMIT 1'))).toBe('none');
      await ledger.session.reap([ref], soon());
      const steps = await check(pooler);
      expect(endpointSteps(steps)).toMatchObject([
        { step: 'agent_endpoint', ok: false, says: expect.stringMatching(/works as shared .*forced user/) },
        { step: 'agent_endpoint_ended', ok: false, says: expect.stringContaining('from before is still served') },
      ]);
      expect(failed(steps)).toHaveLength(2);
      expect(await ledger.admin(`SELECT rolname FROM pg_roles WHERE rolname LIKE 'mfy%'`)).toEqual([]);
    });

    test.each([
      ['as it comes', []],
      ['that ignores what it does not know', [ignoring]],
    ])('the broker itself does not work through one %s', async (_what, settings) => {
      const pooler = await pooled({ mode, settings });
      const session = ledger.connect({ port: pooler.port });
      const pooler2 = expect.objectContaining({
        errorClass: 'misconfigured',
        message: expect.stringMatching(/a pooler answers; the broker must connect to the server directly/),
      });
      const ref = ledger.ref();
      await expect(session.mint(ref, ledger.request(ref), soon())).rejects.toEqual(pooler2);
      expect(await session.fence([ref], soon())).toEqual([{ ok: false, error: pooler2 }]);
      await expect(session.verify([ref], soon())).rejects.toEqual(pooler2);
      expect(await session.check(null, soon())).toMatchObject([
        { step: 'connect', ok: false, says: expect.stringMatching(/a pooler answers/) },
      ]);
      await session.close();
    });
  });

  test('an endpoint that leads straight to the server is said to, and one that cannot be reached is a warning', async () => {
    const straight = ledger.connect({ agent_endpoint: { host: 'localhost', port: server.port } });
    const steps = await straight.check({ name: entitlementName, config: ledger.entitlement }, soon());
    expect(endpointSteps(steps)).toMatchObject([
      { ok: true, says: expect.stringContaining('agents arrive directly') },
      { ok: true },
    ]);
    expect(failed(steps)).toEqual([]);
    const away = ledger.connect({ agent_endpoint: { host: '127.0.0.1', port: 1 } });
    const others = await away.check({ name: entitlementName, config: ledger.entitlement }, soon());
    expect(endpointSteps(others)).toMatchObject([{ step: 'agent_endpoint', ok: true, warns: true }]);
    expect(failed(others)).toEqual([]);
  });

  test('an endpoint where agents are refused, and one of another cluster, fail', async () => {
    const pooler = await pooled({
      mode: 'session',
      settings: ['auth_query = SELECT usename, NULL FROM pg_shadow WHERE usename = $1'],
    });
    expect(failed(await check(pooler))).toEqual([expect.stringMatching(/^agent_endpoint: .*does not serve agents/)]);

    const other = await startPostgres({ version, hba: ['host all all 127.0.0.1/32 trust'] });
    try {
      // Where anybody is let in as anybody: even then it is not the right one.
      await other.createDatabase('ledger');
      const trusting = await startPgbouncer(other, {
        mode: 'session',
        lookup: { user: 'postgres', password: other.password },
        forced: { user: 'postgres', password: other.password },
        settings: ['auth_type = any'],
      });
      poolers.add(trusting);
      expect(failed(await check(trusting))).toContainEqual(
        expect.stringMatching(/^agent_endpoint: .*leads to the cluster/),
      );
    } finally {
      await other.stop();
    }
  });
});
