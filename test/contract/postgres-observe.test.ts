import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Observation, observedSessions } from '../../src/provider.ts';
import { availableVersions, type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { type Ledger, type Live, makeLedger, soon, sqlState } from './postgres-fixture.ts';

describe.each(availableVersions())('who uses a credential on PostgreSQL %i', (version) => {
  let server: PostgresServer;
  let ledger: Ledger;
  beforeAll(async () => {
    server = await startPostgres({ version });
    ledger = await makeLedger(server, 'ledger');
  });
  afterAll(async () => {
    await ledger?.close();
    await server?.stop();
  });

  async function observed(...lives: readonly Live[]): Promise<readonly Observation[]> {
    const refs = lives.map(({ ref }) => ref);
    return (await ledger.session.observe?.(refs, soon())) ?? [];
  }

  test('each session is seen with address, application, since when and what it is at; never with what it says', async () => {
    const [used, idle] = [await ledger.mint(), await ledger.mint()];
    const before = Date.now();
    const agent = await ledger.login(used.minted);
    const other = await ledger.login(used.minted);
    await agent.query(`SET application_name = 'recon''s "tool"'`);
    await agent.query('BEGIN');
    await agent.query(`SELECT 'LITERAL' FROM billing.invoices WHERE id = 4711`);
    const [seen, nothing] = await observed(used, idle);
    expect(seen).toMatchObject({
      ok: true,
      total: 2,
      sessions: [
        { applicationName: `recon's "tool"`, clientAddress: '127.0.0.1', state: 'idle in transaction' },
        { applicationName: 'agent', clientAddress: '127.0.0.1', state: 'idle' },
      ],
    });
    expect(nothing).toEqual({ ok: true, total: 0, sessions: [] });
    expect(JSON.stringify(seen)).not.toMatch(/LITERAL|4711|SELECT|pid/);
    for (const { since, lastQueryAt } of seen?.ok === true ? seen.sessions : []) {
      expect(since.getTime()).toBeGreaterThan(before - 1000);
      expect(since.getTime()).toBeLessThan(Date.now() + 1000);
      expect(lastQueryAt?.getTime() ?? Date.now()).toBeGreaterThanOrEqual(since.getTime());
    }
    await Promise.all([agent.end(), other.end()]);
    await expect.poll(() => observed(used)).toEqual([{ ok: true, total: 0, sessions: [] }]);
    await ledger.session.fence([used.ref, idle.ref], soon());
  });

  test('a role that was dropped is seen by its OID, and a ref without facts by the registry', async () => {
    const live = await ledger.mint();
    await ledger.login(live.minted);
    await ledger.admin(`DROP ROLE ${live.ref.handle}`);
    const blind = { ...live, ref: { ...live.ref, facts: null } };
    expect(await observed(live, blind)).toMatchObject([
      { ok: true, total: 1, sessions: [{ applicationName: 'agent' }] },
      { ok: true, total: 1, sessions: [{ applicationName: 'agent' }] },
    ]);
    const strayed = { ...live, ref: { ...live.ref, facts: { ...live.ref.facts, system_identifier: '1' } } };
    expect(await observed(strayed)).toMatchObject([{ ok: false, error: { errorClass: 'misconfigured' } }]);
    expect(await ledger.session.fence([live.ref], soon())).toMatchObject([
      { ok: true, evidence: { sessions_ended: 1, sessions: [{ application: 'agent', address: '127.0.0.1' }] } },
    ]);
  });

  test('the sessions of a role that is not ours are nobody’s business, also for a stolen login', async () => {
    const thief = await ledger.stolenLogin();
    const [postgres] = await ledger.admin('SELECT oid FROM pg_roles WHERE rolname = current_user');
    const handle = 'mfy_00000000000040008000000000000000';
    const ask = (name: string, values: readonly unknown[]) => thief.query(`SELECT ${name} AS seen`, [...values]);
    const { rows } = await ask('mayfly.observe($1, $2, $3, 5)', [ledger.installation, [handle], [postgres?.['oid']]]);
    expect(rows).toEqual([{ seen: [{ total: 0, sessions: [] }] }]);
    expect((await ask('mayfly.seen($1, $2, 5)', [ledger.installation, [postgres?.['oid']]])).rows).toEqual([
      { seen: {} },
    ]);
    const stranger = '00000000-0000-4000-8000-000000000000';
    expect(await sqlState(ask('mayfly.observe($1, $2, $3, 5)', [stranger, [handle], [null]]))).toBe('MF001');
    expect(await sqlState(ask('mayfly.seen($1, $2, 5)', [stranger, [null]]))).toBe('MF001');
  });

  test('a fence tells whom it cut off: each ref its own, in one batch', async () => {
    const [first, second, unused] = [await ledger.mint(), await ledger.mint(), await ledger.mint()];
    const agent = await ledger.login(first.minted);
    await agent.query(`SET application_name = 'first'`);
    await ledger.login(second.minted);
    await ledger.login(second.minted);
    const before = Date.now();
    const outcomes = await ledger.session.fence([first.ref, second.ref, unused.ref], soon());
    const session = { address: '127.0.0.1', application: 'agent', since: expect.stringMatching(/^\d{4}-.*Z$/) };
    expect(outcomes).toMatchObject([
      { ok: true, evidence: { sessions_ended: 1, sessions: [{ ...session, application: 'first' }] } },
      { ok: true, evidence: { sessions_ended: 2, sessions: [session, session] } },
      { ok: true, evidence: { sessions_ended: 0, sessions: [] } },
    ]);
    expect(JSON.stringify(outcomes)).not.toMatch(/"pid"/);
    const since = JSON.stringify(outcomes).match(/"since":"([^"]+)"/g) ?? [];
    expect(since).toHaveLength(3);
    for (const each of since) {
      expect(Math.abs(Date.parse(each.slice(9, -1)) - before)).toBeLessThan(30_000);
    }
  });

  test('a session that was ended while its role was locked is told of as well', async () => {
    const { ref, minted } = await ledger.mint();
    await ledger.login(minted);
    const holder = new pg.Client({ connectionString: server.superuserUrl('ledger') });
    await holder.connect();
    await holder.query(`BEGIN; ALTER ROLE ${ref.handle} CONNECTION LIMIT 3`);
    const fencing = ledger.session.fence([ref], soon());
    // The fence waits for the role, and ends the session meanwhile.
    const sessions = () => ledger.admin('SELECT FROM pg_stat_activity WHERE usename = $1', [ref.handle]);
    await expect.poll(sessions, { interval: 20, timeout: 60_000 }).toEqual([]);
    await holder.query('ROLLBACK');
    await holder.end();
    expect(await fencing).toMatchObject([
      { ok: true, evidence: { sessions_ended: 1, sessions: [{ application: 'agent' }] } },
    ]);
  });

  test('of many sessions all are counted, and the first few described', async () => {
    const many = observedSessions + 3;
    const live = await ledger.mint({ config: { ...ledger.entitlement, connection_limit: many } });
    for (let count = 0; count < many; count += 1) {
      await ledger.login(live.minted);
    }
    const [seen] = await observed(live);
    expect(seen).toMatchObject({ ok: true, total: many });
    expect(seen?.ok === true && seen.sessions).toHaveLength(observedSessions);
    const [fenced] = await ledger.session.fence([live.ref], soon());
    expect(fenced).toMatchObject({ ok: true, evidence: { sessions_ended: many } });
    expect(fenced?.ok === true && fenced.evidence['sessions']).toHaveLength(observedSessions);
  });

  test('a session whose state the statistics do not show is still seen', async () => {
    await ledger.admin('ALTER SYSTEM SET track_activities = off');
    await ledger.admin('SELECT pg_reload_conf()');
    const watcher = new pg.Client({ connectionString: server.superuserUrl('ledger') });
    await watcher.connect();
    await expect
      .poll(async () => (await watcher.query('SHOW track_activities')).rows)
      .toEqual([{ track_activities: 'off' }]);
    const live = await ledger.mint();
    await ledger.login(live.minted);
    expect(await observed(live)).toMatchObject([{ ok: true, total: 1, sessions: [{ clientAddress: '127.0.0.1' }] }]);
    await ledger.admin('ALTER SYSTEM RESET track_activities');
    await ledger.admin('SELECT pg_reload_conf()');
    await watcher.end();
    await ledger.session.fence([live.ref], soon());
  });
});
