import { randomUUID } from 'node:crypto';
import type { Reply } from '../support/ask.ts';
import { approvalFiles, Approving, PAYMENTS, type Waiting } from '../support/approving.ts';
import type { Play, Scenario } from './scenarios.ts';
import { plain, type World } from './world.ts';

/** Payments are to be approved; afterwards they are not. */
async function approving(world: World, play: (people: Approving, task: string) => Promise<Play>): Promise<Play> {
  const { house } = world;
  await house.broker.apply(approvalFiles(house.files));
  const { act, after } = await play(new Approving(house), await world.open());
  return {
    ...(act && { act }),
    after: async () => {
      await after();
      await house.broker.apply(house.files);
    },
  };
}

/** Asks until the answer is one of these. */
async function insist(world: World, ask: () => Promise<Reply>, ...wanted: readonly string[]): Promise<Reply> {
  let answer: Reply | undefined;
  await world.until(`it is ${wanted.join(' or ')}`, async () => {
    answer = await ask().catch(() => undefined);
    const { code } = answer?.body ?? {};
    return answer !== undefined && wanted.includes(typeof code === 'string' ? code : String(answer.status));
  });
  if (answer === undefined) throw new Error('there is no answer');
  return answer;
}

async function statesOf(world: World, { grant }: Pick<Waiting, 'grant'>): Promise<string> {
  const rows = await world.eye.store<{ states: string }>(
    `SELECT g.state || ' ' || a.state AS states FROM mayfly.grants g JOIN mayfly.approvals a ON a.grant_id = g.id WHERE g.id = $1`,
    [plain(grant)],
  );
  return rows[0]?.states ?? 'none';
}

async function expectStates(world: World, waiting: Waiting, ...allowed: readonly string[]): Promise<void> {
  const states = await statesOf(world, waiting);
  if (!allowed.includes(states)) throw new Error(`it is ${states}, not ${allowed.join(' or ')}`);
}

/** An agent asks for what is to be approved, and again by the same key: it waits once. */
export const ask: Scenario = (world) =>
  approving(world, async (people, task) => {
    const key = randomUUID();
    const body = { entitlement: PAYMENTS, ttl_seconds: 60 };
    const once = () => people.agent('POST', `/v1/tasks/${task}/grants`, body, { key });
    return {
      act: once,
      after: async () => {
        const { body: answer } = await insist(world, once, '202');
        const rows = await world.eye.store('SELECT FROM mayfly.approvals WHERE task_id = $1', [plain(task)]);
        if (rows.length !== 1) throw new Error(`it waits ${rows.length} times`);
        const { grant, approval } = answer as { grant: { id: string }; approval: { id: string } };
        await insist(world, () => people.decide('fay', approval.id, 'approve'), '200');
        await insist(world, () => people.collect(grant.id), '201');
      },
    };
  });

/** An approver says yes, and says so again: it can be collected. */
export const approve: Scenario = (world) =>
  approving(world, async (people, task) => {
    const waiting = await people.wait(task);
    const decide = () => people.decide('fay', waiting.approval, 'approve');
    return {
      act: decide,
      after: async () => {
        await insist(world, decide, '200', 'approval_over');
        await expectStates(world, waiting, 'approved approved');
        await insist(world, () => people.collect(waiting.grant), '201');
      },
    };
  });

/** An approver takes it back, and says so again: what lived of it ends. */
export const withdraw: Scenario = (world) =>
  approving(world, async (people, task) => {
    const waiting = await people.approved(task);
    await insist(world, () => people.collect(waiting.grant), '201');
    const decide = () => people.decide('fay', waiting.approval, 'withdraw');
    return {
      act: decide,
      after: async () => {
        await insist(world, decide, '200', 'approval_over');
        await world.untilEnded(task);
        await expectStates(world, waiting, 'revoked withdrawn');
      },
    };
  });

/** An agent collects, and again: it has a credential, or what was made ends by itself. */
export const collect: Scenario = (world) =>
  approving(world, async (people, task) => {
    const waiting = await people.approved(task);
    const once = () => people.collect(waiting.grant);
    return {
      act: once,
      after: async () => {
        const { status } = await insist(world, once, '201', 'approval_over');
        if (status === 201) await expectStates(world, waiting, 'active collected');
        else await world.untilEnded(task);
      },
    };
  });

/** It is not what was approved any more when it is collected. */
export const stale: Scenario = (world) =>
  approving(world, async (people, task) => {
    const waiting = await people.approved(task);
    const files = approvalFiles(world.house.files);
    const changed = (files['entitlements/ledger-db.yaml'] ?? '').replace(
      'max_ttl_seconds: 300',
      'max_ttl_seconds: 299',
    );
    await world.house.broker.apply({ ...files, 'entitlements/ledger-db.yaml': changed });
    const once = () => people.collect(waiting.grant);
    return {
      act: once,
      after: async () => {
        await insist(world, once, 'approval_stale', 'approval_over');
        await expectStates(world, waiting, 'denied lapsed');
      },
    };
  });

/** Its owner gives it up, and says so again. */
export const dropped: Scenario = (world) =>
  approving(world, async (people, task) => {
    const waiting = await people.wait(task);
    const drop = () => people.agent('DELETE', `/v1/grants/${waiting.grant}`);
    return {
      act: drop,
      after: async () => {
        await insist(world, drop, '202');
        await expectStates(world, waiting, 'denied lapsed');
      },
    };
  });

/** The time of one that is pending is over, and of one that was approved. */
export const overdue: Scenario = (world) =>
  approving(world, async (people, task) => {
    const waiting = [await people.wait(task), await people.approved(task)];
    const lapsed = () =>
      world.until('they have lapsed', async () =>
        (await Promise.all(waiting.map((one) => statesOf(world, one)))).every((states) => states === 'denied lapsed'),
      );
    return {
      act: async () => {
        for (const one of waiting) await people.expire(one);
        await lapsed();
      },
      after: lapsed,
    };
  });

/** A task ends with what waits in it. */
export const ended: Scenario = (world) =>
  approving(world, async (people, task) => {
    const waiting = [await people.wait(task), await people.approved(task)];
    const end = () => people.agent('POST', `/v1/tasks/${task}/cancel`);
    return {
      act: end,
      after: async () => {
        await insist(world, end, '202');
        for (const one of waiting) await expectStates(world, one, 'denied lapsed');
      },
    };
  });
