import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import pg from 'pg';
import { reachBody } from '../../src/http/reach-bodies.ts';
import { whatIfBody } from '../../src/http/what-if-bodies.ts';
import { outcome } from '../support/delegating.ts';
import { approvalFiles, Approving, FINANCE, PAYMENTS, SECURITY, type Waiting } from '../support/approving.ts';
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
        per_call: false,
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

describe('who may approve', () => {
  let waiting: Waiting;
  beforeAll(async () => {
    waiting = await approving.wait();
  });

  test.each([
    ['dana', 'who it is asked for', 'approver_is_party', 403],
    ['agent-recon', 'a namesake of the agent', 'approver_is_party', 403],
    ['sid', 'somebody of another group', 'approver_not_in_group', 403],
    ['noel', 'somebody of no group', 'approver_not_in_group', 403],
    ['vera', 'a viewer of the group', 'operator_only', 403],
    ['olga', 'an operator of the group', 'operator_only', 403],
    ['root', 'an admin of no group', 'approver_not_in_group', 403],
    ['ellen', 'an approver elsewhere', 'not_found', 404],
  ])('not %s: %s', async (who, _, code, status) => {
    expect(outcome(await approving.decide(who, waiting.approval, 'approve'))).toEqual([status, code]);
    expect(await approving.shown(waiting.approval)).toMatchObject({ state: 'pending', words: [] });
  });

  test('not the agent itself, which sees no approvals at all', async () => {
    for (const [method, path] of [
      ['POST', `/v1/approvals/${waiting.approval}`],
      ['GET', `/v1/approvals/${waiting.approval}`],
      ['GET', '/v1/approvals'],
    ] as const) {
      const body = method === 'POST' ? { decision: 'approve', reason: 'me' } : undefined;
      expect(outcome(await approving.agent(method, path, body))).toEqual([403, 'operator_only']);
    }
  });

  test('nobody of a source that the issuer does not map, nor for whom nothing says who that is; but to deny takes no map', async () => {
    const service = await approving.wait(await approving.open('service:dana'));
    expect(outcome(await approving.decide('fay', service.approval, 'approve'))).toEqual([403, 'approver_unmapped']);
    expect((await approving.decide('fay', service.approval, 'deny')).status).toBe(200);
    await house.broker.apply(approvalFiles(house.files, FINANCE, ''));
    try {
      expect(outcome(await approving.decide('fay', waiting.approval, 'approve'))).toEqual([403, 'approver_unmapped']);
    } finally {
      await house.broker.apply(approvalFiles(house.files));
    }
  });

  test('whom it is asked for may deny it; then it is over, and its grant is denied', async () => {
    const own = await approving.wait();
    const denied = await approving.decide('dana', own.approval, 'deny');
    expect([denied.status, denied.body['state'], denied.body['grant_state']]).toEqual([200, 'denied', 'denied']);
    for (const decision of ['approve', 'deny', 'withdraw'])
      expect(outcome(await approving.decide('fay', own.approval, decision))).toEqual([409, 'approval_over']);
    const refused = await approving.collect(own.grant);
    expect([...outcome(refused), refused.body['state']]).toEqual([409, 'approval_over', 'denied']);
    expect(await approving.eventsOf(own)).toEqual(['decision.made', 'approval.requested', 'approval.denied']);
  });

  test('somebody of the group, in whatever other group they are too', async () => {
    expect((await approving.decide('frank', waiting.approval, 'approve')).body['state']).toBe('approved');
  });
});

test('where permits name two groups somebody of each must approve; a permit that names none takes nothing away', async () => {
  const plain = `@id("plain") permit (principal is Mayfly::Task, action, resource == Mayfly::Entitlement::"${PAYMENTS}");`;
  await house.broker.apply(approvalFiles(house.files, `${FINANCE}${SECURITY}${plain}`));
  try {
    const one = await approving.wait();
    expect((await approving.shown(one.approval)).groups).toEqual(['finance', 'security']);
    const reached = reachBody.parse((await approving.operator('vera', 'GET', `/v1/tasks/${one.task}/reach`)).body);
    const could = reached.items[0]?.could.find(({ entitlement }) => entitlement === PAYMENTS);
    expect(could).toMatchObject({ answer: 'permitted', obligations: ['approval:finance', 'approval:security'] });
    const first = await approving.decide('fay', one.approval, 'approve');
    expect(first.body).toMatchObject({ state: 'pending', still_needed: ['security'], grant_state: 'pending_approval' });
    expect(outcome(await approving.collect(one.grant))).toEqual([409, 'approval_pending']);
    // A second word of the same group is none.
    const more = await approving.decide('fay', one.approval, 'approve');
    expect([...outcome(more), more.body['groups']]).toEqual([403, 'approver_not_in_group', ['security']]);
    expect((await approving.shown(one.approval)).words).toHaveLength(1);
    expect((await approving.decide('sid', one.approval, 'approve')).body['state']).toBe('approved');
    const late = await approving.decide('fay', one.approval, 'deny');
    expect([...outcome(late), late.body['state']]).toEqual([409, 'approval_over', 'approved']);
    expect((await approving.collect(one.grant)).status).toBe(201);
    // Both at once: neither word is lost.
    for (let round = 0; round < 5; round++) {
      const at = await approving.wait();
      const said = await Promise.all(['fay', 'sid'].map((who) => approving.decide(who, at.approval, 'approve')));
      expect(said.map(({ status }) => status)).toEqual([200, 200]);
      expect(await approving.shown(at.approval)).toMatchObject({ state: 'approved', still_needed: [] });
    }
    // One person speaks for all of their groups, and one no is enough.
    const both = await approving.wait();
    expect((await approving.decide('frank', both.approval, 'approve')).body['state']).toBe('approved');
    const half = await approving.wait();
    await approving.decide('fay', half.approval, 'approve');
    expect((await approving.decide('sid', half.approval, 'deny')).body['state']).toBe('denied');
  } finally {
    await house.broker.apply(approvalFiles(house.files));
  }
});

describe('an approval is for exactly what was asked', () => {
  /** Applies a change between approval and collection. */
  async function collectedAfter(change: (files: Record<string, string>) => void, waiting?: Waiting) {
    const approved = waiting ?? (await approving.approved());
    const files = approvalFiles(house.files);
    change(files);
    await house.broker.apply(files);
    try {
      return { approved, reply: await approving.collect(approved.grant) };
    } finally {
      await house.broker.apply(approvalFiles(house.files));
    }
  }
  const edit = (file: string, from: string | RegExp, to: string) => (files: Record<string, string>) => {
    const before = files[file] ?? '';
    files[file] = before.replace(from, to);
    if (files[file] === before) throw new Error(`nothing changed in ${file}`);
  };
  const entitlements = 'entitlements/ledger-db.yaml';

  test.each([
    ['its sensitivity', edit(entitlements, 'sensitivity: restricted', 'sensitivity: confidential'), 'entitlement'],
    ['its longest life', edit(entitlements, 'max_ttl_seconds: 300', 'max_ttl_seconds: 299'), 'entitlement'],
    ['what it may do', edit(entitlements, /\[read\](?=\n {2}max_ttl_seconds: 300)/, '[read, list]'), 'entitlement'],
    [
      'the provider’s terms',
      edit(entitlements, /(payments\], grant: \[SELECT\] \}\], connection_limit:) 4/, '$1 5'),
      'entitlement',
    ],
    ['its target’s owner', edit('targets/ledger-db.yaml', 'environment: demo', 'environment: staging'), 'target'],
    ['where its target is', edit('targets/ledger-db.yaml', 'host: 127.0.0.1', 'host: localhost'), 'target'],
    ['who must approve it', edit('policies/test.cedar', '"finance"', '"security"'), 'groups'],
  ])('another definition than was approved is refused, and lapses: %s', async (_, change, part) => {
    const { approved, reply } = await collectedAfter(change);
    expect([...outcome(reply), reply.body['differs']]).toEqual([409, 'approval_stale', [part]]);
    expect(await approving.until(approved, ['denied', 'lapsed'])).toMatchObject({ because: 'stale' });
    expect((await approving.eventsOf(approved)).at(-1)).toBe('approval.lapsed');
  });

  test.each([
    ['ttl_seconds', '61'],
    ['justification', '"another"'],
    ['per_call', 'true'],
    ['guarantee', '"irrevocable"'],
    ['params', '{"tenant": "other"}'],
    ['owner', '{"workload": "dev:agent-support", "key": null, "instance": null}'],
    ['task_id', '"task_0198c0de-7a11-7000-8000-000000000001"'],
  ])('and so is what was edited in the store: %s', async (part, value) => {
    const approved = await approving.approved();
    await house.onStore(`UPDATE mayfly.approvals SET asked = jsonb_set(asked, ARRAY[$2], $3::jsonb) WHERE id = $1`, [
      ...[approved.approval.slice(4), part, value],
    ]);
    expect(outcome(await approving.collect(approved.grant))).toEqual([409, 'approval_stale']);
    await approving.until(approved, ['denied', 'lapsed']);
  });

  test('another revision that changes nothing of it is in nobody’s way', async () => {
    const { reply } = await collectedAfter(edit(entitlements, 'max_ttl_seconds: 600', 'max_ttl_seconds: 599'));
    expect(reply.status).toBe(201);
    expect(Object(reply.body['grant'])['state']).toBe('active');
  });

  test('it is decided again: what policy denies by now is not given, and stands until its time is over', async () => {
    const { approved, reply } = await collectedAfter(edit('policies/test.cedar', '!= "closing"', '== "closing"'));
    expect(outcome(reply)).toEqual([403, 'denied_by_policy']);
    expect(await approving.stateOf(approved.grant)).toBe('approved');
    expect((await approving.collect(approved.grant)).status).toBe(201);
  });

  test('what the catalog does not have any more is not given', async () => {
    const { approved, reply } = await collectedAfter((files) => {
      files[entitlements] = (files[entitlements] ?? '').replace(/\n- name: ledger-db\/read-payments[^]*/, '\n');
      files['policies/test.cedar'] = (files['policies/test.cedar'] ?? '').replace(FINANCE, '');
    });
    expect(outcome(reply)).toEqual([403, 'not_in_task']);
    await approving.house.client().cancel(approved.task);
  });

  test('its life is counted from when it is collected, and cut to what is left of the task', async () => {
    const request = await house.sign({ phase: 'execute', entitlements: [PAYMENTS], ttl: 45 });
    const { task } = await house.client().openTask(request);
    const approved = await approving.approved(task.id);
    const reply = await approving.collect(approved.grant);
    expect(reply.status).toBe(201);
    const { deadline } = Object(reply.body['grant']);
    expect(Date.parse(deadline)).toBeLessThanOrEqual(Date.parse(task.not_after));
  });

  test('what is asked for with a key comes to that key, or not at all', async () => {
    const { Agent } = await import('../support/delegating.ts');
    const agent = await Agent.make(house);
    const task = await agent.open({ entitlements: [PAYMENTS] });
    const delivery = agent.key.delivery;
    const asked = await agent.call('POST', `/v1/tasks/${task.id}/grants`, { entitlement: PAYMENTS, delivery });
    const { grant, approval } = asked.body as { grant: { id: string }; approval: { id: string } };
    expect((await approving.shown(approval.id)).sealed_to).toBe(agent.key.thumbprint);
    await approving.decide('fay', approval.id, 'approve');
    const path = `/v1/grants/${grant.id}/collect`;
    // A foreign key, the workload without its key, and no key at all.
    expect(outcome(await approving.collect(grant.id, { delivery }))).toEqual([404, 'not_found']);
    expect(outcome(await (await Agent.make(house)).call('POST', path, { delivery }))).toEqual([404, 'not_found']);
    expect(outcome(await agent.call('POST', path, {}))).toEqual([409, 'delivery_not_approved']);
    const { key } = await Agent.make(house);
    expect(outcome(await agent.call('POST', path, { delivery: key.delivery }))).toEqual([409, 'delivery_not_approved']);
    const collected = await agent.call('POST', path, { delivery });
    expect(collected.status).toBe(201);
    expect(await use(await agent.key.open(String(collected.body['credential'])))).toBe(100);
  });
});

test('what another catalog would not have approved any more, or by others, is told before it is applied', async () => {
  const waiting = await approving.approved();
  expect((await approving.collect(waiting.grant)).status).toBe(201);
  const diff = async (policies: string) => {
    const reply = await approving.operator('olga', 'POST', '/v1/catalog/diff', {
      files: approvalFiles(house.files, policies),
    });
    const { drift, decisions } = whatIfBody.parse(reply.body);
    const task = drift.tasks.find(({ task: id }) => id === waiting.task);
    return { drift, decisions, task, asked: decisions.changed.filter((one) => one.task === waiting.task) };
  };
  const none = await diff(FINANCE.replace('@require_approval("finance")', ''));
  const all = [none.drift.approvals, none.decisions.approvals].map(
    ([{ group, newly_needed: newly, no_longer_needed: less } = {}]) => [...[group, newly, (less ?? 0) > 0]],
  );
  expect(all).toEqual([
    ['finance', 0, true],
    ['finance', 0, true],
  ]);
  expect([none.task, none.decisions.newly_to_be_approved]).toEqual([undefined, 0]);
  expect(none.asked).toMatchObject([
    { decision: 'permit', because: null, no_longer_approved_by: ['finance'] },
    { decision: 'permit', because: null, no_longer_approved_by: ['finance'] },
  ]);
  const other = await diff(FINANCE.replace('"finance"', '"security"'));
  expect(other.task?.grants).toMatchObject([{ id: waiting.grant, groups: ['security'] }]);
  expect(other.asked[0]).toMatchObject({
    ...{ because: 'approval_required', newly_approved_by: ['security'], no_longer_approved_by: ['finance'] },
  });
  expect((await diff(FINANCE)).asked).toEqual([]);
});
