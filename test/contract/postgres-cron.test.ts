import { existsSync, realpathSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { prepare } from '../../providers/postgres/index.ts';
import { findBinaries } from '../support/postgres-binaries.ts';
import { availableVersions, type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { entitlementName, type Ledger, makeLedger, soon, sqlState } from './postgres-fixture.ts';

/** The versions here that have pg_cron beside them (on Debian: postgresql-15-cron). */
const withCron = availableVersions().filter((version) => {
  // The command may be a link to where the server is installed.
  const installed = dirname(dirname(realpathSync(join(findBinaries(version) ?? '', 'postgres'))));
  const there = existsSync(join(installed, 'lib', 'pg_cron.so'));
  if (!there && version === 15 && process.env['CI'] === 'true')
    throw new Error('PostgreSQL 15 has no pg_cron here (on Debian: postgresql-15-cron)');
  if (!there)
    console.warn(`\n*** SKIPPED: PostgreSQL ${version} has no pg_cron here: its schedule is not tested ***\n`);
  return there;
});

// So that a laptop without it skips this file rather than failing it.
test.skipIf(withCron.length === 0)('there is a PostgreSQL with pg_cron here', () => {
  expect(withCron).not.toEqual([]);
});

describe.each(withCron)("the dead-man's switch by pg_cron on PostgreSQL %i", (version) => {
  let server: PostgresServer;
  let ledger: Ledger;
  beforeAll(async () => {
    server = await startPostgres({
      version,
      settings: {
        shared_preload_libraries: 'pg_cron',
        'cron.database_name': 'ledger',
        'cron.use_background_workers': 'on',
        max_worker_processes: 16,
      },
    });
    ledger = await makeLedger(server, 'ledger');
  });
  afterAll(async () => {
    await ledger?.close();
    await server?.stop();
  });

  async function apply(database = 'ledger'): Promise<void> {
    const { config, installation, password, entitlement } = ledger;
    await prepare(
      server.superuserUrl(database),
      { ...config, database },
      [{ name: entitlementName, maxTtlSeconds: 900, config: entitlement }],
      installation,
      { password },
    );
  }

  test('prepare says where to schedule it when pg_cron is elsewhere, and schedules it once where it is', async () => {
    // The extension is not in the database yet.
    expect(server.log()).toMatch(
      /pg_cron is in the database ledger: .*cron\.schedule_in_database\('mayfly-expire-ledger'/,
    );
    await ledger.admin('CREATE EXTENSION pg_cron');
    await apply();
    await apply();
    expect(await ledger.admin('SELECT jobname, schedule, command, database FROM cron.job')).toEqual([
      { jobname: 'mayfly-expire-ledger', schedule: '* * * * *', command: 'SELECT mayfly.expire()', database: 'ledger' },
    ]);
  });

  async function jobSteps(): Promise<readonly string[]> {
    const steps = await ledger.session.check({ name: entitlementName, config: ledger.entitlement }, soon());
    return steps.flatMap(({ step, ok, warns, says }) =>
      step.startsWith('cron_') && (!ok || warns === true) ? [`${ok ? 'warn' : 'FAIL'} ${says}`] : [],
    );
  }

  test('check fails where agents may schedule jobs, and warns where they may reach the database of pg_cron', async () => {
    expect(await jobSteps()).toEqual([]);
    await ledger.admin('GRANT USAGE ON SCHEMA cron TO PUBLIC');
    expect(await jobSteps()).toEqual([expect.stringMatching(/^FAIL agents may schedule jobs.*: cron\.schedule/)]);
    await ledger.admin('REVOKE USAGE ON SCHEMA cron FROM PUBLIC');
    expect(await jobSteps()).toEqual([]);
    const other = await makeLedger(server, 'other');
    try {
      const steps = await other.session.check({ name: entitlementName, config: other.entitlement }, soon());
      const about = {
        step: 'cron_database',
        ok: true,
        warns: true,
        says: expect.stringContaining('ledger of pg_cron'),
      };
      expect(steps.filter(({ step }) => step.startsWith('cron_'))).toContainEqual(about);
    } finally {
      await other.close();
    }
  });

  // These two wait for the same minutes.
  test.concurrent('a job that an agent could schedule all the same is ended where it runs, and starts no more', {
    timeout: 400_000,
  }, async ({ expect: its }) => {
    const { ref, minted } = await ledger.mint();
    await ledger.admin(`GRANT USAGE ON SCHEMA cron TO ${ref.handle}`);
    const agent = await ledger.login(minted);
    await agent.query(`SELECT cron.schedule('* * * * *', 'SELECT pg_sleep(600)')`);
    await agent.end();
    const workers = () =>
      ledger.admin('SELECT backend_type FROM pg_stat_activity WHERE usesysid = $1', [ref.facts?.['oid']]);
    await its.poll(workers, { timeout: 190_000, interval: 500 }).toEqual([{ backend_type: 'pg_cron' }]);
    expect(await ledger.session.fence([ref], soon())).toMatchObject([{ ok: true, evidence: { sessions_ended: 1 } }]);
    expect(await workers()).toEqual([]);
    expect(await ledger.session.verify([ref], soon())).toMatchObject([{ ok: true, contained: true }]);
    const refused = `role "${ref.handle}" is not permitted to log in`;
    await its.poll(() => server.log(), { timeout: 190_000, interval: 500 }).toContain(refused);
    expect(await ledger.session.reap([ref], soon())).toMatchObject([{ ok: true }]);
  });

  test.concurrent('with nobody to fence it, an open session ends within about a minute of its deadline', {
    timeout: 400_000,
  }, async ({ expect: its }) => {
    const { minted } = await ledger.mint({ deadline: new Date(Date.now() + 10_000) });
    const living = await ledger.mint();
    const agent = await ledger.login(minted);
    const other = await ledger.login(living.minted);
    await its.poll(() => sqlState(agent.query('SELECT 1')), { timeout: 250_000, interval: 500 }).not.toBe('none');
    expect(await sqlState(other.query('SELECT 1'))).toBe('none');
    // Asked anew: the first session may have looked before there was a schedule.
    const back = ledger.connect();
    expect((await back.guarantee(ledger.entitlement, soon())).says).toMatch(/by the schedule of the target/);
    await back.close();
  });
});
