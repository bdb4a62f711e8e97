import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { availableVersions, type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { type Ledger, makeLedger, soon, sqlState } from './postgres-fixture.ts';

const cases = availableVersions().flatMap((version) =>
  (['createrole', 'pool'] as const).map((mode) => ({ version, mode })),
);

/** The modes for managed services: prepared by an administrator that is no superuser. */
describe.each(cases)('mode $mode on PostgreSQL $version', ({ version, mode }) => {
  let server: PostgresServer;
  let ledger: Ledger;
  beforeAll(async () => {
    server = await startPostgres({ version, settings: { authentication_timeout: 1 } });
    ledger = await makeLedger(server, 'ledger', { managed: { mode, poolSize: 40 } });
  });
  afterAll(async () => {
    await ledger?.close();
    await server?.stop();
  });

  test('a life: minted, does what is allowed, is refused what is not, is ended and proven gone', async () => {
    const { ref, minted } = await ledger.mint();
    const { username } = minted.secret.reveal();
    expect(username).toBe(mode === 'pool' ? minted.facts['role_name'] : ref.handle);
    const agent = await ledger.login(minted);
    expect((await agent.query('SELECT count(*)::int AS n FROM billing.invoices')).rows).toEqual([{ n: 5000 }]);
    for (const refused of [
      'SELECT * FROM billing.salaries',
      'DELETE FROM billing.invoices',
      'CREATE TABLE billing.mine (a int)',
      'CREATE ROLE friend',
      `ALTER ROLE current_user VALID UNTIL 'infinity'`,
      `ALTER ROLE current_user CONNECTION LIMIT 50`,
      'SELECT * FROM mayfly.handle',
      'SELECT mayfly.status()',
    ]) {
      expect([refused, await sqlState(agent.query(refused))]).toEqual([refused, '42501']);
    }
    expect(await ledger.session.verify([ref], soon())).toMatchObject([{ ok: true, contained: false }]);
    expect(await ledger.session.fence([ref], soon())).toMatchObject([
      { ok: true, evidence: { login: 'cut', sessions_ended: 1 } },
    ]);
    expect(await sqlState(agent.query('SELECT 1'))).not.toBe('none');
    expect(await sqlState(ledger.login(minted))).toMatch(/^28/);
    expect(await ledger.session.verify([ref], soon())).toMatchObject([{ ok: true, contained: true, clean: false }]);
    expect(await ledger.session.reap([ref], soon())).toMatchObject([{ ok: true, evidence: { role: 'dropped' } }]);
    expect(await ledger.session.verify([ref], soon())).toMatchObject([{ ok: true, contained: true, clean: true }]);
  });
});
