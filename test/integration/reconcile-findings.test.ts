import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { ask } from '../support/ask.ts';
import { type House, startHouse } from '../support/house.ts';
import { operatorsOf } from '../support/operators.ts';
import {
  eventsOf,
  grantState,
  mintKnown,
  mintUnknown,
  QUICK,
  reconcile,
  roleOf,
  rolesOf,
} from '../support/reconcile.ts';

/** Longer than any test here takes. Seconds. */
const GRACE = 600;

describe('comparing a target with the store', () => {
  let house: House;
  beforeAll(async () => {
    house = await startHouse({
      env: { ...QUICK, MAYFLY_ORPHAN_GRACE_SECONDS: String(GRACE), MAYFLY_MAX_CHANGED_SHARE: '0' },
    });
  });
  afterAll(async () => {
    await house?.stop();
  });

  /** Lets the grace of one that was seen be over. */
  async function ripen(orphan: string): Promise<void> {
    const text = `UPDATE mayfly.orphan_sightings s SET first_seen_at = first_seen_at - interval '${GRACE} seconds' RETURNING s.*`;
    await vi.waitFor(async () => expect(await house.onStore(text)).toHaveLength(1), { timeout: 60_000, interval: 50 });
    await vi.waitFor(async () => expect(await grantState(house, orphan)).toMatchObject({ revocation: 'clean' }), {
      timeout: 60_000,
      interval: 50,
    });
  }

  test('leaves a credential that is unknown here alone for the grace, and then takes it back like any other', async () => {
    const orphan = await mintUnknown(house);
    for (let run = 0; run < 2; run++)
      expect(await reconcile(house)).toMatchObject({ outcome: 'done', orphans: 0, waiting: 1 });
    expect(await rolesOf(house, [orphan])).toEqual([roleOf(orphan)]);
    expect(await grantState(house, orphan)).toBeUndefined();
    await ripen(orphan);
    expect(await grantState(house, orphan)).toEqual({ state: 'revoked', revocation: 'clean', ended_by: 'orphaned' });
    expect(await rolesOf(house, [orphan])).toEqual([]);
    expect(await eventsOf(house, orphan)).toEqual(['grant.orphaned', 'revocation.contained', 'revocation.clean']);
    const [{ late } = { late: -1 }] = await house.onStore<{ late: number }>(
      `SELECT extract(epoch FROM g.created_at - (e.payload->>'first_seen_at')::timestamptz)::float8 AS late
       FROM mayfly.grants g JOIN mayfly.audit_events e ON e.grant_id = g.id AND e.type = 'grant.orphaned' WHERE g.id = $1`,
      [orphan],
    );
    expect(late).toBeGreaterThanOrEqual(GRACE);
    expect(await house.onStore('SELECT FROM mayfly.orphan_sightings')).toEqual([]);
  });

  test('touches nothing that is alive here, nor a mint that was intended and never reported', async () => {
    const { taskId, ids } = await mintKnown(house, 3);
    const [minting = ''] = ids;
    // As a broker leaves it that is killed between the mint and its record: nothing but the intent is known.
    await house.onStore(
      `ALTER TABLE mayfly.grants DISABLE TRIGGER USER; UPDATE mayfly.grants SET state = 'minting', facts = NULL, activated_at = NULL WHERE id = '${minting}';
       ALTER TABLE mayfly.grants ENABLE TRIGGER USER`,
    );
    expect(await reconcile(house)).toMatchObject({
      outcome: 'done',
      listed: 3,
      orphans: 0,
      waiting: 0,
      lost: 0,
      returned: 0,
    });
    expect(await rolesOf(house, ids)).toHaveLength(3);
    await house.client().cancel(taskId, { wait: 20 });
  });

  test('records once, loudly, that a living grant is gone from the target', async () => {
    const { taskId, ids } = await mintKnown(house, 2);
    const [lost = '', kept = ''] = ids;
    await house.onTarget(`DROP OWNED BY ${roleOf(lost)}; DROP ROLE ${roleOf(lost)}`);
    await vi.waitFor(async () => expect(await eventsOf(house, lost)).toContain('grant.lost'), { timeout: 60_000 });
    await reconcile(house);
    await reconcile(house);
    expect((await eventsOf(house, lost)).filter((type) => type === 'grant.lost')).toHaveLength(1);
    expect(await eventsOf(house, kept)).not.toContain('grant.lost');
    expect(await grantState(house, lost)).toMatchObject({ state: 'active' });
    const { text } = await (await fetch(`${house.url}/metrics`)).text().then((body) => ({ text: body }));
    expect(text).toContain('mayfly_reconcile_findings_total{target="ledger-db",kind="lost"} 1');
    await house.client().cancel(taskId, { wait: 20 });
  });

  test('finds a renamed role, unknown here, and takes it back', async () => {
    const orphan = await mintUnknown(house);
    await house.onTarget(`ALTER ROLE ${roleOf(orphan)} RENAME TO innocent`);
    await ripen(orphan);
    expect(await house.onTarget(`SELECT FROM pg_roles WHERE rolname = 'innocent'`)).toEqual([]);
  });

  test('finds one that only its mark tells of, since the registry was restored', async () => {
    const orphan = await mintUnknown(house);
    await house.onTarget('DELETE FROM mayfly.handle WHERE handle = $1', [roleOf(orphan)]);
    await ripen(orphan);
    expect(await rolesOf(house, [orphan])).toEqual([]);
  });

  test('never touches roles that are not verifiably ours: without a mark, with a forged, copied or foreign one', async () => {
    const { installation } = house.broker;
    const ours = await mintUnknown(house);
    const [unmarked, forged, foreign, copied, unsigned] = Array.from({ length: 5 }, () => randomUUID());
    const all = [unmarked, forged, foreign, copied, unsigned].map((id) => roleOf(String(id)));
    const [mark] = await house.onTarget<{ text: string }>(
      `SELECT d.description AS text FROM pg_shdescription d JOIN pg_roles r ON r.oid = d.objoid WHERE r.rolname = $1`,
      [roleOf(ours)],
    );
    await house.onTarget(
      [
        ...all.map((name) => `CREATE ROLE ${name} LOGIN;`),
        'CREATE ROLE app_admin LOGIN;',
        `COMMENT ON ROLE ${all[1]} IS 'mayfly:1:${installation}:${forged}:${'0'.repeat(32)}';`,
        `COMMENT ON ROLE ${all[2]} IS 'mayfly:1:${randomUUID()}:${foreign}:${'0'.repeat(32)}';`,
        `COMMENT ON ROLE ${all[3]} IS '${mark?.text}';`,
        `COMMENT ON ROLE ${all[4]} IS 'mayfly:1:${installation}:${unsigned}';`,
        `COMMENT ON ROLE app_admin IS '${mark?.text}';`,
      ].join('\n'),
    );
    // The one that is ours goes in the same runs in which the others stay.
    await ripen(ours);
    await reconcile(house);
    expect(
      await house.onTarget('SELECT rolname FROM pg_roles WHERE rolname = ANY($1) AND rolcanlogin', [
        [...all, 'app_admin'],
      ]),
    ).toHaveLength(6);
    expect(await house.onStore('SELECT handle FROM mayfly.orphan_sightings WHERE handle = ANY($1)', [all])).toEqual([]);
    expect(await house.onStore('SELECT handle FROM mayfly.grants WHERE handle = ANY($1)', [all])).toEqual([]);
    await house.onTarget([...all, 'app_admin'].map((name) => `DROP ROLE ${name};`).join(' '));
  });

  test('tells of a changed credential and of a new session, once each', async () => {
    const { taskId, ids, logins } = await mintKnown(house, 1);
    const [id = ''] = ids;
    await reconcile(house);
    expect(await eventsOf(house, id)).not.toContain('grant.used');
    const agent = new pg.Client({ ...logins[0], application_name: 'agent' });
    agent.on('error', () => {});
    await agent.connect();
    expect(await eventsOf(house, id)).not.toContain('grant.drifted');
    await house.onTarget(`ALTER ROLE ${roleOf(id)} CONNECTION LIMIT 50`);
    await vi.waitFor(async () => expect(await eventsOf(house, id)).toContain('grant.drifted'), { timeout: 60_000 });
    await reconcile(house);
    expect((await eventsOf(house, id)).filter((type) => type === 'grant.drifted')).toHaveLength(1);
    const [event] = await house.onStore<{ payload: { drift: { what: string }[] } }>(
      `SELECT payload FROM mayfly.audit_events WHERE grant_id = $1 AND type = 'grant.drifted'`,
      [id],
    );
    expect(event?.payload.drift.map(({ what }) => what)).toEqual(['connection_limit']);
    await reconcile(house);
    const uses = await house.onStore<{ payload: unknown }>(
      `SELECT payload FROM mayfly.audit_events WHERE grant_id = $1 AND type = 'grant.used'`,
      [id],
    );
    expect(uses).toMatchObject([{ payload: { total: 1, sessions: [{ application: 'agent' }] } }]);
    await agent.end();
    await house.client().cancel(taskId, { wait: 20 });
  });

  test('what was written off, and can be used, is revoked all the same', async () => {
    const { ids } = await mintKnown(house, 2);
    const [lives = '', gone = ''] = ids;
    const operators = operatorsOf(house);
    const reason = { reason: 'the server was scrapped, they say' };
    await operators.post('/v1/targets/ledger-db/pause', reason);
    for (const id of ids) {
      await ask(house.url, 'DELETE', `/v1/grants/grt_${id}`, { token: await operators.token('operator') });
    }
    await house.onTarget(`DROP OWNED BY ${roleOf(gone)}; DROP ROLE ${roleOf(gone)}`);
    const revocations = await house.onStore<{ id: string; grant_id: string }>(
      'SELECT id, grant_id FROM mayfly.revocations WHERE grant_id = ANY($1)',
      [ids],
    );
    for (const { id } of revocations)
      expect((await operators.post(`/v1/revocations/rev_${id}/write-off`, reason)).status).toBe(200);
    await vi.waitFor(async () => expect(await eventsOf(house, lives)).toContain('revocation.reopened'), {
      timeout: 20_000,
      interval: 50,
    });
    await operators.post('/v1/targets/ledger-db/resume');
    await vi.waitFor(
      async () => expect(await grantState(house, lives)).toMatchObject({ state: 'revoked', revocation: 'clean' }),
      { timeout: 20_000, interval: 50 },
    );
    expect(await rolesOf(house, ids)).toEqual([]);
    expect(await eventsOf(house, lives)).not.toContain('revocation.returned');
    // Of what is not there nothing is known, and nobody calls it revoked.
    expect(await reconcile(house)).toMatchObject({ outcome: 'done', returned: 0 });
    expect(await grantState(house, gone)).toMatchObject({ state: 'revoking', revocation: 'written_off' });
  });
});
