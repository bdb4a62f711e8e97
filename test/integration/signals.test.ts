import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { AgentKey, type GrantBody } from '../../src/client/index.ts';
import { Agent, outcome } from '../support/delegating.ts';
import { type House, startHouse } from '../support/house.ts';
import { FORBIDS, ISSUER, send, signal, sources } from '../support/signals.ts';

const READ = 'ledger-db/read-invoices';
const POLICIES = 'policies/test.cedar';
const WAIT = { timeout: 20_000, interval: 30 };

let house: House;
let owner: Agent;
beforeAll(async () => {
  house = await startHouse({ proofOfPossession: 'required' });
  owner = await Agent.make(house);
  const key = await AgentKey.make();
  await house.broker.apply({
    ...house.files,
    'trust.yaml': `${house.files['trust.yaml'] ?? ''}${sources(key.thumbprint)}`,
    [POLICIES]: `${house.files[POLICIES] ?? ''}${FORBIDS}`,
  });
});
afterAll(() => house?.stop());

const issue = async (task: { id: string }, by = owner) =>
  await by.client().issue(task.id, { entitlement: READ, ttl_seconds: 120 });

async function untilRevoked(grant: GrantBody): Promise<GrantBody> {
  return await vi.waitFor(async () => {
    const now = await owner.client().grant(grant.id);
    expect(now).toMatchObject({ state: 'revoked' });
    return now;
  }, WAIT);
}

describe('each kind enters decisions and ends what it does not permit any more', () => {
  const workload = { workload: 'dev:agent-recon' };
  const user = { issuer: ISSUER, user: 'user:dana' };
  const cases: readonly [string, string, object, object, string][] = [
    [
      'a workload’s risk',
      'workload_risk',
      { subject: workload, level: 'high' },
      { subject: workload, level: 'low' },
      'no-high-risk',
    ],
    [
      'an incident everywhere',
      'incident',
      { scope: 'all', state: 'open' },
      { scope: 'all', state: 'closed' },
      'no-incident',
    ],
    [
      'a freeze of an environment',
      'change_freeze',
      { scope: { environment: 'demo' }, state: 'on' },
      { scope: { environment: 'demo' }, state: 'off' },
      'no-freeze',
    ],
    [
      'a freeze of a target',
      'change_freeze',
      { scope: { target: 'ledger-db' }, state: 'on' },
      { scope: { target: 'ledger-db' }, state: 'off' },
      'no-freeze',
    ],
    [
      'a user’s device',
      'device',
      { subject: user, state: 'not-compliant' },
      { subject: user, state: 'compliant' },
      'no-device',
    ],
    [
      'a workload’s device',
      'device',
      { subject: workload, state: 'not-compliant' },
      { subject: workload, state: 'compliant' },
      'no-device',
    ],
    ['a user', 'user', { subject: user, state: 'disabled' }, { subject: user, state: 'enabled' }, 'no-user'],
  ];

  test.each(cases)('%s', async (_what, kind, bad, good, policy) => {
    const task = await owner.open();
    const { grant } = await issue(task);
    const sent = signal(kind, { ...bad, reason: 'said by the test' });
    const reply = await send(house, sent);
    expect([reply.status, reply.body]).toEqual([
      200,
      { id: sent['id'], outcome: 'taken', received_at: expect.any(String) },
    ]);
    const refused = await owner.call('POST', `/v1/tasks/${task.id}/grants`, { entitlement: READ });
    expect(outcome(refused)).toEqual([403, 'denied_by_policy']);

    expect(await untilRevoked(grant)).toMatchObject({ ended_by: 'signal' });
    const [end] = await house.onStore(
      `SELECT cause, payload FROM mayfly.audit_events WHERE grant_id = $1 AND type = 'grant.ended'`,
      [grant.id.slice(4)],
    );
    expect(end).toMatchObject({
      cause: 'signal',
      payload: { because: 'denied_by_policy', policies: [policy], source: 'risk', kind, key: sent['id'] },
    });
    expect((await send(house, signal(kind, good))).body).toMatchObject({ outcome: 'taken' });
    expect((await issue(task)).grant.state).toBe('active');
  });
});
