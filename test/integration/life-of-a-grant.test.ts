import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Credential, GrantBody } from '../../src/client/index.ts';
import { type House, startHouse } from '../support/house.ts';

let house: House;
beforeAll(async () => {
  house = await startHouse();
});
afterAll(async () => {
  await house?.stop();
});

async function login(credential: Credential): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: String(credential['url']) });
  client.on('error', () => {});
  await client.connect();
  return client;
}

/** Roles of ours that are in the target's cluster for these grants. */
async function rolesLeft(...grants: readonly GrantBody[]): Promise<string[]> {
  const names = grants.map(({ id }) => `mfy_${id.slice(4).replaceAll('-', '')}`);
  return (
    await house.onTarget<{ rolname: string }>('SELECT rolname FROM pg_roles WHERE rolname = ANY($1)', [names])
  ).map((row) => row.rolname);
}

async function untilClean(grantId: string): Promise<GrantBody> {
  const client = house.client();
  for (;;) {
    const grant = await client.grant(grantId, { wait: 10 });
    if (grant.revocation?.state === 'clean') return grant;
  }
}

describe('one verified task, one credential', () => {
  test('works while the task lives and is proven gone when it completes, with the session that was open', async () => {
    const client = house.client();
    const { task } = await client.openTask(await house.sign());
    expect(task).toMatchObject({
      state: 'active',
      purpose: 'reconcile.invoices',
      phase: 'plan',
      subject: 'user:dana',
      workload: 'dev:agent-recon',
    });

    const { grant, credential } = await client.issue(task.id, {
      entitlement: 'ledger-db/read-invoices',
      ttl_seconds: 120,
    });
    expect(grant).toMatchObject({
      state: 'active',
      task_id: task.id,
      target: 'ledger-db',
      revocation: { state: 'scheduled' },
    });
    expect(Date.parse(grant.deadline) - Date.now()).toBeLessThanOrEqual(120_000);
    const session = await login(credential);
    expect((await session.query('SELECT count(*)::int AS n FROM invoices')).rows).toEqual([{ n: 100 }]);
    await expect(session.query('SELECT 1 FROM billing.payments')).rejects.toMatchObject({ code: '42501' });

    const ended = new Promise((resolve) => session.once('end', resolve));
    const done = await client.complete(task.id, { wait: 30 });
    expect(done.task.state).toBe('completed');
    expect(done.revocations).toMatchObject([
      {
        grant_id: grant.id,
        target: 'ledger-db',
        state: expect.stringMatching(/contained|clean/),
        evidence: expect.any(Object),
      },
    ]);
    await ended;
    await expect(login(credential)).rejects.toMatchObject({ code: '28P01' });
    const after = await untilClean(grant.id);
    expect(after).toMatchObject({ state: 'revoked', ended_by: 'completed' });
    expect(await rolesLeft(grant)).toEqual([]);
  });

  test('ends at its deadline by itself, and the evidence says how late', async () => {
    const client = house.client();
    const { task } = await client.openTask(await house.sign());
    const { grant } = await client.issue(task.id, { entitlement: 'ledger-db/read-invoices', ttl_seconds: 2 });
    const after = await untilClean(grant.id);
    expect(after).toMatchObject({ state: 'revoked', ended_by: 'expired' });
    expect(await rolesLeft(grant)).toEqual([]);
    const contained = (await client.timeline(task.id)).find((event) => event.type === 'revocation.contained');
    expect(contained?.payload['late_seconds']).toBeGreaterThanOrEqual(0);
  });

  test('a released grant ends alone', async () => {
    const client = house.client();
    const { task } = await client.openTask(await house.sign());
    const [first, second] = await Promise.all(
      [1, 2].map(() => client.issue(task.id, { entitlement: 'ledger-db/read-invoices' })),
    );
    if (first === undefined || second === undefined) throw new Error('no grants');
    const response = await fetch(`${house.url}/v1/grants/${first.grant.id}?wait=30`, {
      method: 'DELETE',
      headers: { authorization: `Bearer ${await house.token()}` },
    });
    expect(response.status).toBe(200);
    expect((await client.grant(first.grant.id)).ended_by).toBe('released');
    expect((await client.grant(second.grant.id)).state).toBe('active');
    await (await login(second.credential)).end();
    await client.cancel(task.id, { wait: 30 });
  });

  test('an expired task takes its grants along', async () => {
    const client = house.client();
    const { task } = await client.openTask(await house.sign({ ttl: 3 }));
    const { grant } = await client.issue(task.id, { entitlement: 'ledger-db/read-invoices' });
    expect(Date.parse(grant.deadline)).toBeLessThanOrEqual(Date.parse(task.not_after));
    await untilClean(grant.id);
    const response = await fetch(`${house.url}/v1/tasks/${task.id}?wait=10`, {
      headers: { authorization: `Bearer ${await house.token()}` },
    });
    expect(await response.json()).toMatchObject({ state: 'expired', ended_by: 'expired' });
    await expect(client.issue(task.id, { entitlement: 'ledger-db/read-invoices' })).rejects.toMatchObject({
      code: 'task_ended',
    });
  });

  test('renewal is a new decision: it extends the login in hand, never past the task', async () => {
    const client = house.client();
    const { task } = await client.openTask(await house.sign({ ttl: 60 }));
    const { grant, credential } = await client.issue(task.id, {
      entitlement: 'ledger-db/read-invoices',
      ttl_seconds: 20,
    });
    const renewed = await client.renew(grant.id, 600);
    expect(renewed).not.toHaveProperty('credential');
    expect(Date.parse(renewed.grant.deadline)).toBeGreaterThan(Date.parse(grant.deadline) + 15_000);
    expect(Date.parse(renewed.grant.deadline)).toBeLessThanOrEqual(Date.parse(task.not_after));
    const [role] = await house.onTarget<{ until: Date }>(
      'SELECT rolvaliduntil AS until FROM pg_roles WHERE rolname = $1',
      [String(credential['username'])],
    );
    expect(Math.abs((role?.until.getTime() ?? 0) - Date.parse(renewed.grant.deadline))).toBeLessThan(10_000);
    await client.complete(task.id, { wait: 30 });
    await expect(client.renew(grant.id, 60)).rejects.toMatchObject({ code: 'grant_ended', status: 409 });
  });
});

describe('bounds', () => {
  test('the shortest of all bounds counts, and the answer says what was cut', async () => {
    const token = await house.token();
    const client = house.client();
    const { task } = await client.openTask(await house.sign({ maxTtl: 90 }));
    const issue = async (ttl: number) => {
      const response = await fetch(`${house.url}/v1/tasks/${task.id}/grants`, {
        method: 'POST',
        headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
        body: JSON.stringify({ entitlement: 'ledger-db/read-invoices', ttl_seconds: ttl }),
      });
      return (await response.json()) as { grant: GrantBody; cut?: unknown };
    };
    expect(await issue(80_000)).toMatchObject({ cut: { by: 'request', asked_seconds: 80_000, granted_seconds: 90 } });
    expect(await issue(30)).not.toHaveProperty('cut');
    const { task: free } = await client.openTask(await house.sign());
    const { grant } = await client.issue(free.id, { entitlement: 'ledger-db/read-invoices' });
    // The entitlement would allow 600 s, policy's @max_ttl 300.
    expect(Date.parse(grant.deadline) - Date.now()).toBeLessThanOrEqual(300_000);
    await Promise.all([client.complete(task.id, { wait: 30 }), client.complete(free.id, { wait: 30 })]);
  });

  test('what policy denies is denied with its public reason, and recorded', async () => {
    const client = house.client('agent-support');
    const { task } = await client.openTask(
      await house.sign({
        workload: 'agent-support',
        purpose: 'answer.customer',
        entitlements: ['ledger-db/read-payments'],
      }),
    );
    await expect(client.issue(task.id, { entitlement: 'ledger-db/read-payments' })).rejects.toMatchObject({
      status: 403,
      code: 'denied_by_policy',
      problem: { reasons: ['Support does not see payments.'], decision_id: expect.stringMatching(/^dec_/) },
    });
    const [row] = await house.onStore('SELECT permitted, policies FROM mayfly.decisions WHERE task_id = $1', [
      task.id.slice(5),
    ]);
    expect(row).toEqual({ permitted: false, policies: ['no-payments-for-support'] });
    expect((await client.timeline(task.id)).map((event) => event.type)).toContain('decision.made');
  });

  test('an entitlement outside the task is refused alike, whether it exists or not', async () => {
    const client = house.client();
    const { task } = await client.openTask(await house.sign());
    const refusals = await Promise.all(
      ['ledger-db/read-payments', 'ledger-db/no-such-thing'].map((entitlement) =>
        client.issue(task.id, { entitlement }).catch((error: unknown) => error),
      ),
    );
    const bodies = refusals.map((error) => ({ ...(error as { problem: object }).problem, instance: '' }));
    expect(bodies[0]).toEqual(bodies[1]);
    expect(bodies[0]).toMatchObject({ code: 'not_in_task', status: 403 });
  });
});

describe('who asks', () => {
  test('the same request from its owner gives the same task, 32 at once over two replicas: one 201', async () => {
    const replica = await house.startReplica();
    const request = await house.sign();
    const token = await house.token();
    const open = async (url: string) =>
      fetch(`${url}/v1/tasks`, {
        method: 'POST',
        headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
        body: JSON.stringify({ request }),
      });
    const host = new URL(house.url).host;
    expect(host).not.toBe('');
    const answers = await Promise.all(
      Array.from({ length: 32 }, (_, index) => open(index % 2 === 0 ? house.url : replica.url)),
    );
    const statuses = answers.map((answer) => answer.status).sort((a, b) => a - b);
    expect(statuses).toEqual([...Array.from({ length: 31 }, () => 200), 201]);
    const bodies = (await Promise.all(answers.map((answer) => answer.json()))) as { task: { id: string } }[];
    expect(new Set(bodies.map(({ task }) => task.id)).size).toBe(1);
    await replica.stop();
  });

  test('another workload can not use a request, nor burn it', async () => {
    const request = await house.sign();
    await expect(house.client('agent-support').openTask(request)).rejects.toMatchObject({
      code: 'workload_not_named',
      status: 403,
    });
    expect((await house.client().openTask(request)).task.state).toBe('active');
  });

  test('a second request for the same external id is refused, also after its end', async () => {
    const client = house.client();
    const { task } = await client.openTask(await house.sign({ externalId: 'once-only' }));
    await client.cancel(task.id);
    await expect(client.openTask(await house.sign({ externalId: 'once-only' }))).rejects.toMatchObject({
      code: 'external_id_used',
      status: 409,
    });
  });

  test('what belongs to another workload looks as if it did not exist', async () => {
    const owner = house.client();
    const stranger = house.client('agent-support');
    const { task } = await owner.openTask(await house.sign());
    const { grant } = await owner.issue(task.id, { entitlement: 'ledger-db/read-invoices' });
    const missing = '019a0000-0000-7000-8000-000000000000';
    const pairs: [() => Promise<unknown>, () => Promise<unknown>][] = [
      [() => stranger.task(task.id), () => stranger.task(`task_${missing}`)],
      [() => stranger.timeline(task.id), () => stranger.timeline(`task_${missing}`)],
      [
        () => stranger.issue(task.id, { entitlement: 'ledger-db/read-invoices' }),
        () => stranger.issue(`task_${missing}`, { entitlement: 'ledger-db/read-invoices' }),
      ],
      [() => stranger.complete(task.id), () => stranger.complete(`task_${missing}`)],
      [() => stranger.cancel(task.id), () => stranger.cancel('task_nonsense')],
      [() => stranger.grant(grant.id), () => stranger.grant(`grt_${missing}`)],
      [() => stranger.renew(grant.id, 60), () => stranger.renew(`grt_${missing}`, 60)],
    ];
    for (const pair of pairs) {
      const [foreign, unknown] = await Promise.all(
        pair.map(async (call) =>
          call().catch((error: unknown) => ({ ...(error as { problem: object }).problem, instance: '' })),
        ),
      );
      expect(foreign).toEqual(unknown);
      expect(foreign).toMatchObject({ code: 'not_found', status: 404 });
    }
    expect((await owner.task(task.id)).state).toBe('active');
    await owner.complete(task.id, { wait: 30 });
  });

  test('an operator may end what is not its own, an agent may not act as one', async () => {
    const { task } = await house.client().openTask(await house.sign());
    const operator = (
      await house.issuer.signOperatorToken({ subject: 'olga', roles: ['operator'], audience: house.url })
    ).token;
    const asOperator = { authorization: `Bearer ${operator}`, 'content-type': 'application/json' };
    const body = JSON.stringify({ entitlement: 'ledger-db/read-invoices' });
    expect(
      (await fetch(`${house.url}/v1/tasks/${task.id}/grants`, { method: 'POST', headers: asOperator, body })).status,
    ).toBe(401);
    expect((await fetch(`${house.url}/v1/tasks/${task.id}`, { headers: asOperator })).status).toBe(200);
    expect((await fetch(`${house.url}/v1/tasks/${task.id}/timeline`, { headers: asOperator })).status).toBe(403);
    expect(
      (await fetch(`${house.url}/v1/tasks/${task.id}/cancel`, { method: 'POST', headers: asOperator, body: '{}' }))
        .status,
    ).toBe(202);
  });
});

describe('asking again', () => {
  const ask = async (taskId: string, key: string, body: object) => {
    const response = await fetch(`${house.url}/v1/tasks/${taskId}/grants`, {
      method: 'POST',
      headers: {
        authorization: `Bearer ${await house.token()}`,
        'content-type': 'application/json',
        'idempotency-key': key,
      },
      body: JSON.stringify(body),
    });
    return {
      status: response.status,
      replayed: response.headers.get('idempotency-replayed'),
      body: (await response.json()) as { grant: GrantBody; credential: Credential; code?: string },
    };
  };

  test('with the same key ends the first grant and mints afresh: one live credential is left', async () => {
    const client = house.client();
    const { task } = await client.openTask(await house.sign());
    const first = await ask(task.id, 'retry-1', { entitlement: 'ledger-db/read-invoices' });
    const second = await ask(task.id, 'retry-1', { entitlement: 'ledger-db/read-invoices' });
    expect([first.status, first.replayed, second.status, second.replayed]).toEqual([201, null, 201, 'true']);
    expect(second.body.grant.id).not.toBe(first.body.grant.id);
    await untilClean(first.body.grant.id);
    await (await login(second.body.credential)).end();
    expect(await rolesLeft(first.body.grant, second.body.grant)).toHaveLength(1);
    expect((await ask(task.id, 'retry-1', { entitlement: 'ledger-db/read-invoices', ttl_seconds: 5 })).body.code).toBe(
      'idempotency_key_reused',
    );
    await client.complete(task.id, { wait: 30 });
  });

  test('at once with one key: the second is told to wait', async () => {
    const client = house.client();
    const { task } = await client.openTask(await house.sign());
    const answers = await Promise.all(
      Array.from({ length: 8 }, () => ask(task.id, 'at-once', { entitlement: 'ledger-db/read-invoices' })),
    );
    expect(answers.filter(({ status }) => status === 409).every(({ body }) => body.code === 'key_in_flight')).toBe(
      true,
    );
    await client.complete(task.id, { wait: 30 });
    const live = await house.onStore(
      `SELECT 1 FROM mayfly.grants WHERE task_id = $1 AND state IN ('minting', 'active')`,
      [task.id.slice(5)],
    );
    expect(live).toEqual([]);
  });

  test('completing twice answers the same, cancelling what is completed is refused', async () => {
    const client = house.client();
    const { task } = await client.openTask(await house.sign());
    await client.complete(task.id);
    expect((await client.complete(task.id)).task.state).toBe('completed');
    await expect(client.cancel(task.id)).rejects.toMatchObject({ code: 'task_ended', status: 409 });
  });
});

test('an end and a birth never miss each other: no grant is active after the end was answered', async () => {
  const client = house.client();
  for (let round = 0; round < 5; round++) {
    const { task } = await client.openTask(await house.sign());
    const births = Array.from({ length: 6 }, () =>
      client.issue(task.id, { entitlement: 'ledger-db/read-invoices' }).catch((error: unknown) => error),
    );
    await client.cancel(task.id);
    const [row] = await house.onStore<{ n: number }>(
      `SELECT count(*)::int AS n FROM mayfly.grants WHERE task_id = $1 AND state = 'active'`,
      [task.id.slice(5)],
    );
    expect(row?.n).toBe(0);
    await Promise.all(births);
    const { revocations } = await client.cancel(task.id, { wait: 30 });
    for (const { grant_id: grantId } of revocations) await untilClean(grantId ?? '');
    const left = await house.onTarget(`SELECT rolname FROM pg_roles WHERE rolname = ANY($1)`, [
      revocations.map(({ grant_id: id }) => `mfy_${id?.slice(4).replaceAll('-', '')}`),
    ]);
    expect(left).toEqual([]);
  }
});

test('forty asks at once for one task all get their own credential, though each changes what the others were decided on', async () => {
  const client = house.client();
  const { task } = await client.openTask(await house.sign());
  const issued = await Promise.all(
    Array.from({ length: 40 }, () => client.issue(task.id, { entitlement: 'ledger-db/read-invoices' })),
  );
  expect(new Set(issued.map(({ credential }) => credential['username'])).size).toBe(40);
  const [row] = await house.onStore<{ decisions: number; seen: number }>(
    `SELECT count(*)::int AS decisions, count(DISTINCT inputs->'context'->'tree'->>'live_grants')::int AS seen
     FROM mayfly.decisions WHERE task_id = $1`,
    [task.id.slice(5)],
  );
  // Each was decided on a number of its own: none of them overlooked another.
  expect(row).toEqual({ decisions: 40, seen: 40 });
  const { revocations } = await client.complete(task.id, { wait: 30 });
  expect(revocations).toHaveLength(40);
});

test('the timeline tells the whole story in order, with nothing null', async () => {
  const client = house.client();
  const { task } = await client.openTask(await house.sign());
  const { grant } = await client.issue(task.id, { entitlement: 'ledger-db/read-invoices' });
  await client.complete(task.id, { wait: 30 });
  await untilClean(grant.id);
  const types = (await client.timeline(task.id)).map((event) => event.type);
  expect(types).toEqual([
    'task.opened',
    'decision.made',
    'grant.intended',
    'grant.activated',
    'task.completed',
    'grant.ended',
    'revocation.contained',
    'revocation.clean',
  ]);
});
