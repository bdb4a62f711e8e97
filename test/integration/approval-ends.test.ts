import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { grantBody } from '../../src/http/answers.ts';
import { explainedBody } from '../../src/http/decision-bodies.ts';
import { approvalFiles, Approving, FINANCE, INVOICES, PAYMENTS } from '../support/approving.ts';
import { Agent, outcome } from '../support/delegating.ts';
import { type House, startHouse } from '../support/house.ts';

let house: House;
let approving: Approving;

beforeAll(async () => {
  house = await startHouse({ env: { MAYFLY_APPROVALS_PER_TASK: '3', MAYFLY_MINTS_PER_TASK: '5' } });
  approving = new Approving(house);
  await house.broker.apply(approvalFiles(house.files));
});
afterAll(async () => {
  await house?.stop();
});

const REASON = { reason: 'the test' };

describe('what waits ends', () => {
  test('by its time: not decided, and not collected', async () => {
    const pending = await approving.wait();
    const approved = await approving.approved();
    await Promise.all([approving.expire(pending), approving.expire(approved)]);
    expect(await approving.until(pending, ['denied', 'lapsed'])).toMatchObject({ because: 'not_decided_in_time' });
    expect(await approving.until(approved, ['denied', 'lapsed'])).toMatchObject({ because: 'not_collected_in_time' });
    expect(outcome(await approving.decide('fay', pending.approval, 'approve'))).toEqual([409, 'approval_over']);
    expect(outcome(await approving.collect(approved.grant))).toEqual([409, 'approval_over']);
    expect((await approving.eventsOf(pending)).at(-1)).toBe('approval.lapsed');
  });

  test('with its task, in the same commit', async () => {
    const pending = await approving.wait();
    const approved = await approving.approved(pending.task);
    const { task } = await house.client().cancel(pending.task, { wait: 30 });
    expect(new Map(task.grants.map(({ id, state }) => [id, state]))).toEqual(
      new Map([pending.grant, approved.grant].map((id) => [id, 'denied'])),
    );
    for (const waiting of [pending, approved]) {
      expect(await approving.shown(waiting.approval)).toMatchObject({ state: 'lapsed', because: 'task_ended' });
      expect(outcome(await approving.decide('fay', waiting.approval, 'approve'))).toEqual([409, 'approval_over']);
      expect(outcome(await approving.collect(waiting.grant))).toEqual([409, 'approval_over']);
    }
  });

  test.each([
    ['its task', (task: string) => ({ scope: 'task', id: task })],
    ['its agent', () => ({ scope: 'agent', id: 'dev:agent-recon' })],
    ['its entitlement', () => ({ scope: 'entitlement', id: PAYMENTS })],
    ['its target', () => ({ scope: 'target', id: 'ledger-db' })],
    ['all', () => ({ scope: 'all' })],
  ])('with a kill of %s', async (_, scope) => {
    const pending = await approving.wait();
    const approved = await approving.approved(pending.task);
    const body = { ...scope(pending.task), ...REASON };
    const kill = await approving.operator('root', 'POST', '/v1/kill', body);
    expect(kill.status).toBe(201);
    try {
      for (const waiting of [pending, approved])
        expect(await approving.shown(waiting.approval)).toMatchObject({ state: 'lapsed', because: 'killed' });
      const asked = { entitlement: PAYMENTS };
      expect(outcome(await approving.agent('POST', `/v1/tasks/${pending.task}/grants`, asked))).toEqual([
        403,
        'killed',
      ]);
    } finally {
      await approving.operator('root', 'DELETE', `/v1/kill/${String(kill.body['id'])}`, REASON);
    }
  });

  test('with a kill of another entitlement it waits on', async () => {
    const pending = await approving.wait();
    const kill = await approving.operator('root', 'POST', '/v1/kill', {
      scope: 'entitlement',
      id: INVOICES,
      ...REASON,
    });
    await approving.operator('root', 'DELETE', `/v1/kill/${String(kill.body['id'])}`, REASON);
    expect((await approving.shown(pending.approval)).state).toBe('pending');
  });

  test('when its owner gives it up, said twice; nobody else may', async () => {
    const pending = await approving.wait();
    const stranger = await house.token('agent-support');
    const { ask } = await import('../support/ask.ts');
    for (const [method, path] of [
      ['DELETE', `/v1/grants/${pending.grant}`],
      ['GET', `/v1/grants/${pending.grant}`],
      ['POST', `/v1/grants/${pending.grant}/collect`],
    ] as const)
      expect(outcome(await ask(house.url, method, path, { token: stranger }))).toEqual([404, 'not_found']);
    for (const wait of ['', '?wait=20']) {
      const released = await approving.agent('DELETE', `/v1/grants/${pending.grant}${wait}`);
      expect([released.status, released.body['revocations']]).toEqual([wait === '' ? 202 : 200, []]);
      expect(grantBody.parse(released.body['grant'])).toMatchObject({ state: 'denied' });
    }
    expect(await approving.shown(pending.approval)).toMatchObject({ state: 'lapsed', because: 'released' });
  });
});

describe('an approval that is withdrawn', () => {
  test('before it was used leaves nothing to collect', async () => {
    const approved = await approving.approved();
    expect(outcome(await approving.decide('vera', approved.approval, 'withdraw'))).toEqual([403, 'operator_only']);
    expect(outcome(await approving.decide('ellen', approved.approval, 'withdraw'))).toEqual([404, 'not_found']);
    // It only takes away: any approver in scope may.
    expect((await approving.decide('noel', approved.approval, 'withdraw')).body).toMatchObject({
      ...{ state: 'withdrawn', grant_state: 'denied' },
    });
    expect(outcome(await approving.collect(approved.grant))).toEqual([409, 'approval_over']);
    expect(outcome(await approving.decide('noel', approved.approval, 'withdraw'))).toEqual([409, 'approval_over']);
  });

  test('ends what lives of it, as drift, and is told so', async () => {
    const approved = await approving.approved();
    expect((await approving.collect(approved.grant)).status).toBe(201);
    expect((await approving.decide('fay', approved.approval, 'withdraw')).status).toBe(200);
    await approving.until(approved, ['revoked', 'withdrawn']);
    const grant = await approving.agent('GET', `/v1/grants/${approved.grant}`);
    expect(grant.body['ended_by']).toBe('drift');
    const [ended] = await house.onStore<{ cause: string; payload: Record<string, unknown> }>(
      `SELECT cause, payload FROM mayfly.audit_events WHERE grant_id = $1 AND type = 'grant.ended'`,
      [approved.grant.slice(4)],
    );
    expect(ended).toMatchObject({
      cause: 'drift',
      payload: { because: 'approval_withdrawn', approval_id: approved.approval },
    });
    expect(outcome(await approving.decide('fay', approved.approval, 'withdraw'))).toEqual([409, 'approval_over']);
  });

  test('is none, where nothing was approved yet', async () => {
    const pending = await approving.wait();
    const refused = await approving.decide('fay', pending.approval, 'withdraw');
    expect([...outcome(refused), refused.body['state']]).toEqual([409, 'approval_pending', 'pending']);
    expect(refused.body['detail']).toMatch(/deny it/);
    expect((await approving.shown(pending.approval)).state).toBe('pending');
  });
});

describe('a grant that was approved', () => {
  test('is not renewed: an approval is for one life', async () => {
    const approved = await approving.approved();
    await approving.collect(approved.grant);
    const renewed = await approving.agent('POST', `/v1/grants/${approved.grant}/renew`, { ttl_seconds: 60 });
    expect(outcome(renewed)).toEqual([403, 'approval_required']);
    const told = await house.onStore(
      `SELECT decision, payload->>'refusal' AS refusal FROM mayfly.audit_events WHERE grant_id = $1 AND action = 'renew'`,
      [approved.grant.slice(4)],
    );
    expect(told).toEqual([{ decision: 'deny', refusal: 'approval_required' }]);
  });

  test('stays when the catalog changes; one that was not approved ends where policy wants that now', async () => {
    const approved = await approving.approved();
    expect((await approving.collect(approved.grant)).status).toBe(201);
    const plain = `@id("plain") permit (principal is Mayfly::Task, action, resource == Mayfly::Entitlement::"${PAYMENTS}");`;
    await house.broker.apply(approvalFiles(house.files, plain));
    const open = await house.client().issue(approved.task, { entitlement: PAYMENTS });
    await house.broker.apply(approvalFiles(house.files, FINANCE));
    await approving.until({ ...approved, grant: open.grant.id }, ['revoked', 'collected']);
    const ended = await approving.agent('GET', `/v1/grants/${open.grant.id}`);
    expect(ended.body['ended_by']).toBe('drift');
    expect(await approving.stateOf(approved.grant)).toBe('active');
    const [told] = await house.onStore<{ payload: Record<string, unknown>; decision_id: string }>(
      `SELECT payload, decision_id FROM mayfly.audit_events WHERE grant_id = $1 AND type = 'grant.ended'`,
      [open.grant.id.slice(4)],
    );
    expect(told?.payload).toMatchObject({ because: 'approval_required', policies: ['payments-approved'] });
    const explained = await approving.operator('vera', 'GET', `/v1/decisions/dec_${told?.decision_id}`);
    expect(explained.body).toMatchObject({ action: 'retain', refusal: 'approval_required', replay: 'identical' });
  });

  test('is explained with who approved it, when and why; its owner is not told the words', async () => {
    const approved = await approving.approved();
    await approving.collect(approved.grant);
    const { body } = await approving.operator('vera', 'GET', `/v1/grants/${approved.grant}`);
    const explained = explainedBody.parse(
      (await approving.operator('vera', 'GET', `/v1/decisions/${String(body['decision_id'])}`)).body,
    );
    expect(explained).toMatchObject({
      ...{ decision: 'permit', replay: 'identical' },
      approval: {
        id: approved.approval,
        state: 'collected',
        words: [{ by: 'dev-operators:fay', reason: 'fay says so' }],
      },
    });
    const timeline = await house.client().timeline(approved.task);
    expect(timeline.map(({ type }) => type)).toContain('approval.approved');
    expect(JSON.stringify(timeline)).not.toContain('fay says so');
  });

  test('counts among what the task had, and while it waits neither among that nor among what it holds', async () => {
    const limits = 'at_most: [{ name: one-payment, grants: 1, per: tree, of: { sensitivities: [restricted] } }]\n';
    await house.broker.apply({ ...approvalFiles(house.files), 'limits.yaml': limits });
    try {
      const one = await approving.approved();
      const two = await approving.approved(one.task);
      expect((await approving.collect(one.grant)).status).toBe(201);
      expect(outcome(await approving.collect(two.grant))).toEqual([403, 'limit_reached']);
      await house.client().release(one.grant, { wait: 30 });
      expect((await approving.collect(two.grant)).status).toBe(201);
    } finally {
      await house.broker.apply(approvalFiles(house.files));
    }
  });
});

test('a limit wants an entitlement approved whatever policy permits it', async () => {
  const plain = `@id("plain") permit (principal is Mayfly::Task, action, resource == Mayfly::Entitlement::"${PAYMENTS}");`;
  const limits = 'approvals: [{ name: payments-approved, of: { sensitivities: [restricted] }, group: security }]\n';
  await house.broker.apply({ ...approvalFiles(house.files, plain), 'limits.yaml': limits });
  try {
    const waiting = await approving.wait();
    expect((await approving.shown(waiting.approval)).groups).toEqual(['security']);
    expect((await approving.decide('sid', waiting.approval, 'approve')).body['state']).toBe('approved');
    expect((await approving.collect(waiting.grant)).status).toBe(201);
    await house.client().issue(waiting.task, { entitlement: INVOICES });
  } finally {
    await house.broker.apply(approvalFiles(house.files));
  }
});

test('one task waits for so many and no more', async () => {
  const { task } = await approving.wait();
  await approving.wait(task);
  await approving.approved(task);
  const asked = { entitlement: PAYMENTS };
  const refused = await approving.agent('POST', `/v1/tasks/${task}/grants`, asked);
  expect([...outcome(refused), refused.headers['retry-after']]).toEqual([429, 'too_many_approvals', '5']);
  await house.client().issue(task, { entitlement: INVOICES });
});

test('one task asks for so many in its whole life, whatever became of them', async () => {
  const task = await approving.open();
  for (let asked = 0; asked < 5; asked++) {
    const { grant } = await approving.wait(task);
    expect((await approving.agent('DELETE', `/v1/grants/${grant}`)).status).toBe(202);
  }
  const refused = await approving.agent('POST', `/v1/tasks/${task}/grants`, { entitlement: PAYMENTS });
  expect([...outcome(refused), refused.body['detail']]).toEqual([429, 'too_many_approvals', 'It has had 5.']);
  expect(Number(refused.headers['retry-after'])).toBeGreaterThan(5);
  await house.client().issue(task, { entitlement: INVOICES });
});

describe('an Idempotency-Key', () => {
  const asked = { entitlement: PAYMENTS, ttl_seconds: 60 };
  const again = (task: string, key: string, body: object = asked) =>
    approving.agent('POST', `/v1/tasks/${task}/grants`, body, { key });

  test('that comes again while its grant waits is answered with that grant, and makes nothing', async () => {
    const task = await approving.open();
    const first = await again(task, 'one');
    const second = await again(task, 'one');
    expect([second.status, second.body, second.headers['idempotency-replayed']]).toEqual([202, first.body, 'true']);
    expect(outcome(await again(task, 'one', { ...asked, ttl_seconds: 61 }))).toEqual([422, 'idempotency_key_reused']);
    expect(await approving.listed(`?task=${task}`)).toHaveLength(1);
  });

  test('that comes again when it was collected ends that grant, and waits anew', async () => {
    const first = await approving.wait(undefined, {}, 'two');
    await approving.decide('fay', first.approval, 'approve');
    expect((await approving.collect(first.grant)).status).toBe(201);
    const second = await approving.wait(first.task, {}, 'two');
    expect(second.grant).not.toBe(first.grant);
    await approving.until(first, ['revoked', 'collected']);
    expect(await approving.stateOf(second.grant)).toBe('pending_approval');
  });

  test('that comes again when the time of what waits is over waits anew', async () => {
    const first = await approving.wait(undefined, {}, 'late');
    await approving.expire(first);
    const second = await approving.wait(first.task, {}, 'late');
    expect(second.grant).not.toBe(first.grant);
    expect(await approving.until(first, ['denied', 'lapsed'])).toMatchObject({ because: 'not_decided_in_time' });
    expect(await approving.stateOf(second.grant)).toBe('pending_approval');
  });

  test('that stands for what is to be approved is answered at once where policy does not want that any more', async () => {
    const first = await approving.wait(undefined, {}, 'three');
    const plain = `@id("plain") permit (principal is Mayfly::Task, action, resource == Mayfly::Entitlement::"${PAYMENTS}");`;
    await house.broker.apply(approvalFiles(house.files, plain));
    try {
      const body = { entitlement: PAYMENTS, justification: 'invoice 7 is disputed', ttl_seconds: 60 };
      expect((await again(first.task, 'three', body)).status).toBe(201);
      expect(await approving.until(first, ['denied', 'lapsed'])).toMatchObject({ because: 'replaced' });
    } finally {
      await house.broker.apply(approvalFiles(house.files));
    }
  });
});

test('tasks that are delegated: nobody approves for whom a task above it is on behalf of, and all of them are shown', async () => {
  const [lead, helper] = [await Agent.make(house), await Agent.make(house, 'agent-support')];
  const more = { entitlements: [PAYMENTS, INVOICES] };
  const parent = await lead.open({ ...more, subject: 'user:frank' });
  const child = await lead.beget(parent, helper, { entitlements: [PAYMENTS] });
  const reply = await helper.call('POST', `/v1/tasks/${child.id}/grants`, { entitlement: PAYMENTS });
  expect(reply.status).toBe(202);
  const { id } = Object(reply.body['approval']) as { id: string };
  expect((await approving.shown(id)).above).toEqual([
    expect.objectContaining({ task_id: parent.id, subject: 'user:frank', workload: 'dev:agent-recon' }),
  ]);
  // The agent above it, too.
  for (const who of ['frank', 'agent-recon'])
    expect(outcome(await approving.decide(who, id, 'approve'))).toEqual([403, 'approver_is_party']);
  // As if the delegation had been on behalf of somebody else.
  await house.onStore(`UPDATE mayfly.tasks SET subject = 'user:ann' WHERE id = $1`, [child.id.slice(5)]);
  expect(outcome(await approving.decide('frank', id, 'approve'))).toEqual([403, 'approver_is_party']);
  expect((await approving.decide('fay', id, 'approve')).body['state']).toBe('approved');
  // The child's end is its parent's.
  await lead.client().complete(parent.id);
  expect(await approving.shown(id)).toMatchObject({ state: 'lapsed', because: 'task_ended' });
});

test('a task that is opened with `issue` tells what waits', async () => {
  const request = await house.sign({ phase: 'execute', entitlements: [INVOICES, PAYMENTS] });
  const { body, status } = await approving.agent('POST', '/v1/tasks', { request, issue: [INVOICES, PAYMENTS] });
  expect(status).toBe(201);
  expect(Object(body['issued'])).toEqual([
    expect.objectContaining({ entitlement: INVOICES, credential: expect.anything() }),
    {
      entitlement: PAYMENTS,
      grant: expect.objectContaining({ state: 'pending_approval' }),
      approval: expect.objectContaining({ groups: ['finance'] }),
    },
  ]);
  const states = Object(Object(body['task'])['grants']) as { state: string }[];
  expect(states.map(({ state }) => state).sort()).toEqual(['active', 'pending_approval']);
});

describe('bad input', () => {
  test.each([
    [{ decision: 'maybe', reason: 'x' }],
    [{ decision: 'approve' }],
    [{ decision: 'approve', reason: '' }],
    [{ decision: 'approve', reason: 'x'.repeat(1_001) }],
    [{ decision: 'approve', reason: 'x', force: true }],
  ])('%j is no decision', async (body) => {
    const path = '/v1/approvals/apr_0198c0de-7a11-7000-8000-0123456789ab';
    expect(outcome(await approving.operator('fay', 'POST', path, body))).toEqual([400, 'invalid_request']);
  });

  test('what is no approval, and what is none of its grants', async () => {
    for (const id of [
      'apr_0198c0de-7a11-7000-8000-0123456789ab',
      'grt_0198c0de-7a11-7000-8000-0123456789ab',
      'x',
      '%00',
    ]) {
      expect(outcome(await approving.decide('fay', id, 'approve'))).toEqual([404, 'not_found']);
      expect(outcome(await approving.operator('vera', 'GET', `/v1/approvals/${id}`))).toEqual([404, 'not_found']);
      expect(outcome(await approving.collect(id))).toEqual([404, 'not_found']);
    }
    const task = await approving.open();
    const { grant } = await house.client().issue(task, { entitlement: INVOICES });
    expect(outcome(await approving.collect(grant.id))).toEqual([409, 'grant_ended']);
    expect(outcome(await approving.collect(grant.id, { ttl_seconds: 5 }))).toEqual([400, 'invalid_request']);
  });

  test.each(['?state=maybe', '?limit=0', '?limit=201', '?cursor=x', '?task=x', '?all=1'])(
    '%s is no list',
    async (query) => {
      const reply = await approving.operator('vera', 'GET', `/v1/approvals${query}`);
      expect(outcome(reply)).toEqual([400, 'invalid_request']);
    },
  );

  test('a list is filtered, paged, and holds what is in scope', async () => {
    const task = await approving.open();
    const waiting = [await approving.wait(task), await approving.wait(task), await approving.approved(task)];
    const ids = waiting.map(({ approval }) => approval).reverse();
    expect((await approving.listed(`?task=${task}`)).map(({ id }) => id)).toEqual(ids);
    expect((await approving.listed(`?task=${task}&state=approved`)).map(({ id }) => id)).toEqual(ids.slice(0, 1));
    const page = await approving.operator('vera', 'GET', `/v1/approvals?task=${task}&limit=2`);
    const rest = await approving.listed(`?task=${task}&limit=2&cursor=${String(page.body['next_cursor'])}`);
    expect(rest.map(({ id }) => id)).toEqual(ids.slice(2));
    expect((await approving.operator('ellen', 'GET', `/v1/approvals?task=${task}`)).body['items']).toEqual([]);
  });
});
