import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { prepare, type PrepareEntitlement, provider } from '../../providers/postgres/index.ts';
import { availableVersions, type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { type Ledger, type Live, makeLedger, soon, sqlState } from './postgres-fixture.ts';

describe.each(availableVersions())('record: statements on PostgreSQL %i', (version) => {
  let server: PostgresServer;
  let ledger: Ledger;
  let config: PrepareEntitlement['config'];
  beforeAll(async () => {
    server = await startPostgres({ version });
    ledger = await makeLedger(server, 'ledger');
    config = provider.entitlementSchema.parse({
      template: 'mayfly_t_watched',
      privileges: [{ schema: 'billing', tables: ['invoices'], grant: ['SELECT'] }],
      record: 'statements',
    });
    await ledger.admin('REVOKE CREATE ON SCHEMA public FROM PUBLIC');
    await apply(config);
  });
  afterAll(async () => {
    await ledger?.close();
    await server?.stop();
  });

  async function apply(watched: PrepareEntitlement['config']): Promise<void> {
    await prepare(
      server.superuserUrl('ledger'),
      ledger.config,
      [
        { name: 'ledger-db/read-invoices', maxTtlSeconds: 900, config: ledger.entitlement },
        { name: 'ledger-db/watched', maxTtlSeconds: 900, config: watched },
      ],
      ledger.installation,
      { password: ledger.password },
    );
  }
  let count = 0;
  /** Whether a statement of that login is in the log, its literal included. */
  async function logged(live: Live, before: string): Promise<string> {
    const client = await ledger.login(live.minted);
    const state = await sqlState(client.query(before.replaceAll('%self', live.ref.handle)));
    const literal = `seen-${(count += 1)}-${version}`;
    await client.query(`SELECT '${literal}'`);
    await client.query('SELECT $1::text', [`${literal}-bound`]);
    await client.end();
    const later = await ledger.login(live.minted);
    await later.query(`SELECT '${literal}-later'`);
    await later.end();
    const log = server.log();
    const found = [literal, `${literal}-bound`, `${literal}-later`].filter((text) => log.includes(`'${text}'`));
    return `${state} ${found.length}`;
  }

  test('every statement is in the log of the server, with its literals; those of others are not', async () => {
    expect(await logged(await ledger.mint({ config }), 'SELECT 1')).toBe('none 3');
    expect(await logged(await ledger.mint(), 'SELECT 1')).toBe('none 0');
  });

  test.each([
    ['SET', 'SET log_statement = none', '42501'],
    ['set_config', `SELECT set_config('log_statement', 'none', false)`, '42501'],
    ['RESET', 'RESET log_statement', '42501'],
    ['RESET ALL', 'RESET ALL', 'none'],
    ['DISCARD ALL', 'DISCARD ALL', 'none'],
    ['ALTER ROLE … SET', 'ALTER ROLE CURRENT_USER SET log_statement = none', '42501'],
    ['ALTER ROLE … IN DATABASE … SET', 'ALTER ROLE %self IN DATABASE ledger SET log_statement = none', '42501'],
    ['ALTER ROLE … RESET', 'ALTER ROLE CURRENT_USER RESET log_statement', '42501'],
    ['ALTER ROLE … RESET ALL', 'ALTER ROLE CURRENT_USER RESET ALL', 'none'],
  ] as const)('a role cannot undo it by %s', async (_what, attack, state) => {
    expect(await logged(await ledger.mint({ config }), attack)).toBe(`${state} 3`);
  });

  test('nor by the options of its login', async () => {
    const { minted } = await ledger.mint({ config });
    expect(await sqlState(ledger.login(minted, '-c log_statement=none'))).toBe('42501');
  });

  test('check plays it through, and warns that literals are in the log', async () => {
    const steps = await ledger.session.check({ name: 'ledger-db/watched', config }, soon());
    expect(steps.filter(({ ok }) => !ok)).toEqual([]);
    expect(steps).toEqual(
      expect.arrayContaining([
        { step: 'record', ok: true, says: expect.stringContaining('literals') },
        { step: 'recorded', ok: true, says: expect.any(String) },
      ]),
    );
    expect(server.log()).toMatch(/WARNING: {2}the server will log every statement/);
  });

  test.runIf(version >= 15)('check fails when the agent may stop it', async () => {
    await ledger.admin('GRANT SET ON PARAMETER log_statement TO mayfly_t_watched');
    const steps = await ledger.session.check({ name: 'ledger-db/watched', config }, soon());
    await ledger.admin('REVOKE SET ON PARAMETER log_statement FROM mayfly_t_watched');
    expect(steps.filter(({ ok }) => !ok)).toMatchObject([{ step: 'recorded' }]);
  });

  test('it starts and stops with what is declared', async () => {
    const plain = { ...config, record: 'nothing' as const };
    await apply(plain);
    expect(await logged(await ledger.mint({ config: plain }), 'SELECT 1')).toBe('none 0');
    // A broker whose catalog is ahead of the target is told.
    const steps = await ledger.session.check({ name: 'ledger-db/watched', config }, soon());
    expect(steps.filter(({ ok }) => !ok)).toEqual(
      expect.arrayContaining([expect.objectContaining({ step: 'record' })]),
    );
    await apply(config);
  });
});
