import { afterAll, beforeAll, expect, test } from 'vitest';
import { approvalFiles, Approving, PAYMENTS, type Waiting } from '../support/approving.ts';
import type { Reply } from '../support/ask.ts';
import { type House, startHouse } from '../support/house.ts';

const ROUNDS = 6;

let house: House;
let approving: Approving;
/** Another replica. */
let other: string;

beforeAll(async () => {
  house = await startHouse();
  approving = new Approving(house);
  await house.broker.apply(approvalFiles(house.files));
  other = (await house.startReplica()).url;
}, 60_000);
afterAll(async () => {
  await house?.stop();
});

const statuses = (replies: readonly Reply[]) => replies.map(({ status }) => status).toSorted((a, b) => a - b);
/** What may be said of a collection that something came in the way of: the target, too, where it was fenced while it worked. */
const COLLECTED = [undefined, 'approval_over', 'task_ended', 'killed', 'target_unavailable'];
const codes = (replies: readonly Reply[]) =>
  replies.map(({ body: { code } }) => (typeof code === 'string' ? code : undefined));

async function statesOf({ grant }: Waiting): Promise<string> {
  const [row] = await house.onStore<{ states: string }>(
    `SELECT g.state || ' ' || a.state AS states FROM mayfly.grants g JOIN mayfly.approvals a ON a.grant_id = g.id WHERE g.id = $1`,
    [grant.slice(4)],
  );
  return row?.states ?? 'none';
}

/** Both at once, one at each replica. */
async function both(
  one: (url: string) => Promise<Reply>,
  two: (url: string) => Promise<Reply>,
): Promise<[Reply, Reply]> {
  return await Promise.all([one(house.url), two(other)]);
}

/** Nothing of it lives, or ever will. */
async function untilOver(waiting: Waiting): Promise<string> {
  for (;;) {
    const states = await statesOf(waiting);
    if (/^(denied|revoked) /.test(states)) return states;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

test('of a yes and a no at once one counts, and the other is told so', async () => {
  for (let round = 0; round < ROUNDS; round++) {
    const waiting = await approving.wait();
    const [yes, no] = await both(
      (url) => approving.decide('fay', waiting.approval, 'approve', url),
      (url) => approving.decide('frank', waiting.approval, 'deny', url),
    );
    expect(statuses([yes, no])).toEqual([200, 409]);
    expect(codes([yes, no])).toContain('approval_over');
    expect(await statesOf(waiting)).toBe(yes.status === 200 ? 'approved approved' : 'denied denied');
    expect((await approving.shown(waiting.approval)).words).toHaveLength(1);
  }
});

test('however often it is collected at once, there is one credential', async () => {
  for (let round = 0; round < 3; round++) {
    const waiting = await approving.approved();
    const replies = await Promise.all(
      Array.from({ length: 8 }, (_, n) => approving.collect(waiting.grant, undefined, n % 2 === 0 ? house.url : other)),
    );
    expect(statuses(replies)).toEqual([201, 409, 409, 409, 409, 409, 409, 409]);
    expect(new Set(codes(replies))).toEqual(new Set([undefined, 'approval_over']));
    expect(await statesOf(waiting)).toBe('active collected');
    const roles = await house.onTarget(
      `SELECT FROM pg_roles WHERE rolname LIKE '%${waiting.grant.slice(4).replaceAll('-', '')}%'`,
    );
    expect(roles).toHaveLength(1);
  }
});

test('a task that ends while it is decided or collected leaves nothing, whoever was first', async () => {
  for (let round = 0; round < ROUNDS; round++) {
    const pending = await approving.wait();
    const approved = await approving.approved(pending.task);
    const [decided, collected] = await Promise.all([
      approving.decide('fay', pending.approval, 'approve', other),
      approving.collect(approved.grant, undefined, other),
      house.client().cancel(pending.task),
    ]);
    expect([200, 409]).toContain(decided.status);
    expect(COLLECTED).toContain(codes([collected])[0]);
    expect(await untilOver(pending)).toBe('denied lapsed');
    expect(await untilOver(approved)).toMatch(/^(denied lapsed|revoked collected)$/);
  }
});

test('its time that is over while it is decided or collected: either way both say the same', async () => {
  for (let round = 0; round < ROUNDS; round++) {
    const pending = await approving.wait();
    const approved = await approving.approved(pending.task);
    const [decided, collected] = await Promise.all([
      approving.decide('fay', pending.approval, 'approve', other),
      approving.collect(approved.grant, undefined, other),
      approving.expire(pending),
      approving.expire(approved),
    ]);
    const collection = codes([collected])[0] ?? 'given';
    const states = collected.status === 201 ? await statesOf(approved) : await untilOver(approved);
    expect(['given: active collected', 'approval_over: denied lapsed']).toContain(`${collection}: ${states}`);
    // What was approved in time has a time of its own from then on, unless that was what was over.
    const decision = codes([decided])[0] ?? 'approved';
    const became = decided.status === 200 ? 'either' : await untilOver(pending);
    expect(['approved: either', 'approval_over: denied lapsed']).toContain(`${decision}: ${became}`);
  }
});

test('what is withdrawn or killed while it is collected does not live on', async () => {
  for (let round = 0; round < ROUNDS; round++) {
    const waiting = await approving.approved();
    const killed = await approving.approved();
    const [withdrawn, kill, ...collected] = await Promise.all([
      approving.decide('fay', waiting.approval, 'withdraw', other),
      approving.operator('root', 'POST', '/v1/kill', { scope: 'task', id: killed.task, reason: 'the race' }, other),
      approving.collect(waiting.grant),
      approving.collect(killed.grant),
    ]);
    expect([withdrawn.status, kill.status]).toEqual([200, 201]);
    for (const reply of collected) expect(COLLECTED).toContain(codes([reply])[0]);
    expect(await untilOver(waiting)).toMatch(/ withdrawn$/);
    expect(await untilOver(killed)).toMatch(/^(denied lapsed|revoked collected)$/);
    await approving.operator('root', 'DELETE', `/v1/kill/${String(kill.body['id'])}`, { reason: 'over' });
  }
});

test('a revision that changes what was approved, while it is collected: given before it, or stale', async () => {
  const files = approvalFiles(house.files);
  const changed = (files['entitlements/ledger-db.yaml'] ?? '').replace('max_ttl_seconds: 300', 'max_ttl_seconds: 299');
  for (let round = 0; round < 3; round++) {
    const waiting = await approving.approved();
    const [collected] = await Promise.all([
      approving.collect(waiting.grant, undefined, other),
      house.broker.apply({ ...files, 'entitlements/ledger-db.yaml': changed }),
    ]);
    const collection = codes([collected])[0] ?? 'given';
    expect(['given: active collected', 'approval_stale: denied lapsed']).toContain(
      `${collection}: ${await statesOf(waiting)}`,
    );
    await house.broker.apply(files);
  }
});

test('the same key asked with at once waits once', async () => {
  const task = await approving.open();
  const body = { entitlement: PAYMENTS, ttl_seconds: 60 };
  const replies = await Promise.all(
    Array.from({ length: 8 }, (_, n) =>
      approving.agent('POST', `/v1/tasks/${task}/grants`, body, { key: 'one', url: n % 2 === 0 ? house.url : other }),
    ),
  );
  expect(new Set(statuses(replies))).toEqual(new Set([202]));
  expect(new Set(replies.map(({ body: { approval } }) => JSON.stringify(approval))).size).toBe(1);
  expect(await approving.listed(`?task=${task}`)).toHaveLength(1);
});

test('of many that ask at once so many wait, and no more', async () => {
  const task = await approving.open();
  const replies = await Promise.all(
    Array.from({ length: 16 }, (_, n) =>
      approving.agent(
        'POST',
        `/v1/tasks/${task}/grants`,
        { entitlement: PAYMENTS },
        { url: n % 2 === 0 ? house.url : other },
      ),
    ),
  );
  expect(statuses(replies)).toEqual([
    ...Array.from({ length: 10 }, () => 202),
    ...Array.from({ length: 6 }, () => 429),
  ]);
  expect(await approving.listed(`?task=${task}&state=pending`)).toHaveLength(10);
});
