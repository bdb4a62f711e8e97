import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import pg from 'pg';
import { outcome } from '../support/delegating.ts';
import { approvalFiles, Approving, FINANCE, INVOICES, PAYMENTS, SECURITY, type Waiting } from '../support/approving.ts';
import { type House, startHouse } from '../support/house.ts';

let house: House;
let approving: Approving;

beforeAll(async () => {
  house = await startHouse();
  approving = new Approving(house);
  await house.broker.apply(approvalFiles(house.files));
});
afterAll(async () => {
  await house?.stop();
});

/** Logs in with a credential, and reads what it is for. */
async function use(credential: unknown): Promise<number> {
  const client = new pg.Client({ connectionString: String(Object(credential)['url']) });
  await client.connect();
  try {
    return (await client.query('SELECT count(*)::int AS n FROM billing.payments')).rows[0]?.n;
  } finally {
    await client.end();
  }
}

describe('what policy wants approved', () => {
  test('waits, is approved by somebody of the group, is collected once, and works', async () => {
    const task = await approving.open();
    const reply = await approving.agent('POST', `/v1/tasks/${task}/grants`, {
      ...{ entitlement: PAYMENTS, ttl_seconds: 60, justification: 'invoice 7 is disputed' },
    });
    expect(reply.status).toBe(202);
    expect(reply.body).toEqual({
      grant: expect.objectContaining({ state: 'pending_approval', entitlement: PAYMENTS, task_id: task }),
      approval: {
        id: expect.stringMatching(/^apr_/),
        groups: ['finance'],
        expires_at: expect.any(String),
      },
    });
    expect(reply.body['grant']).not.toHaveProperty('revocation');
    expect(reply.body['grant']).not.toHaveProperty('deadline');
    const { grant, approval } = reply.body as { grant: { id: string }; approval: { id: string } };
    expect(reply.headers['location']).toBe(`/v1/grants/${grant.id}`);
    const waiting = { task, grant: grant.id, approval: approval.id };
    // Nothing of it is in the target.
    expect(
      await house.onTarget(`SELECT FROM pg_roles WHERE rolname LIKE '%${grant.id.slice(4).replaceAll('-', '')}%'`),
    ).toEqual([]);
    expect(outcome(await approving.collect(grant.id))).toEqual([409, 'approval_pending']);

    const shown = await approving.shown(approval.id);
    expect(shown).toMatchObject({
      ...{
        state: 'pending',
        groups: ['finance'],
        still_needed: ['finance'],
        words: [],
        grant_id: grant.id,
        task_id: task,
      },
      ...{ workload: 'dev:agent-recon', subject: 'user:dana', purpose: 'reconcile.invoices', phase: 'execute' },
      ...{
        entitlement: PAYMENTS,
        target: 'ledger-db',
        ttl_seconds: 60,
        justification: 'invoice 7 is disputed',
        params: {},
      },
      ...{ policies: ['payments-approved'], above: [] },
      guarantee: { revocation: 'immediate', says: expect.any(String) },
      definition: {
        entitlement: expect.objectContaining({ sensitivity: 'restricted', actions: ['read'] }),
        target: expect.objectContaining({ owner: 'team-finance', environment: 'demo' }),
      },
    });
    expect(shown.issuer).toMatch(/orchestrator$/);
    expect(shown.definition.target).not.toHaveProperty('connection');

    const polled = approving.agent('GET', `/v1/grants/${grant.id}?wait=30`);
    const approved = await approving.decide('fay', approval.id, 'approve');
    expect([approved.status, approved.body['state'], approved.body['grant_state']]).toEqual([
      200,
      'approved',
      'approved',
    ]);
    expect(Object(approved.body['words'])[0]).toMatchObject({
      by: 'dev-operators:fay',
      as: ['finance'],
      reason: 'fay says so',
    });
    // Whoever waits is told, and asks at once.
    expect((await polled).body['state']).toBe('approved');

    const collected = await approving.collect(grant.id);
    expect(collected.status).toBe(201);
    expect(collected.body['grant']).toMatchObject({ id: grant.id, state: 'active' });
    const { deadline, created_at: begun } = Object(collected.body['grant']);
    expect(Date.parse(deadline) - Date.parse(begun)).toBe(60_000);
    expect(await use(collected.body['credential'])).toBe(100);
    expect(outcome(await approving.collect(grant.id))).toEqual([409, 'approval_over']);
    expect((await approving.shown(approval.id)).state).toBe('collected');
    expect(await approving.eventsOf(waiting)).toEqual([
      ...['decision.made', 'approval.requested', 'approval.approved'],
      ...['decision.made', 'grant.intended', 'grant.activated'],
    ]);
    await house.client().complete(task, { wait: 30 });
    await approving.until(waiting, ['revoked', 'collected']);
  });
});
