import { afterAll, beforeAll, expect, test } from 'vitest';
import { AgentKey, type TaskBody } from '../../src/client/index.ts';
import { ask, type Reply } from '../support/ask.ts';
import { type House, startHouse } from '../support/house.ts';

/** One signed request, however often and wherever it is shown. */

const READ = 'ledger-db/read-invoices';

let house: House;
let key: AgentKey;
let token: string;
beforeAll(async () => {
  house = await startHouse({ proofOfPossession: 'required' });
  key = await AgentKey.make();
  token = await house.token();
});
afterAll(() => house?.stop());

interface Shown {
  readonly url?: string;
  readonly by?: AgentKey | null;
  readonly as?: string;
}

/** Opens a task and asks for a credential with it. */
async function open(request: string, { url = house.url, by = key, as = token }: Shown = {}): Promise<Reply> {
  const headers = by === null ? {} : { dpop: await by.prove('POST', `${house.url}/v1/tasks`, as) };
  return await ask(url, 'POST', '/v1/tasks', { token: as, headers, body: { request, issue: [READ] } });
}

/** As an agent does: what is too busy to answer is asked again. */
async function openPatiently(request: string, url: string): Promise<Reply> {
  for (;;) {
    const reply = await open(request, { url });
    if (reply.status !== 503) return reply;
  }
}

const taskOf = ({ body }: Reply) => body['task'] as TaskBody;

async function mintedFor(task: TaskBody): Promise<number> {
  const rows = await house.onStore('SELECT 1 FROM mayfly.grants WHERE task_id = $1', [task.id.slice('task_'.length)]);
  return rows.length;
}

test('32 at once over two replicas open one task and mint once, and after each restart it is that task', async () => {
  let replica = await house.startReplica();
  const request = await house.sign({ keyThumbprint: key.thumbprint });
  const replies = await Promise.all(
    Array.from(
      { length: 32 },
      async (_, index) => await openPatiently(request, index % 2 === 0 ? house.url : replica.url),
    ),
  );
  expect(replies.map(({ status }) => status).sort((a, b) => a - b)).toEqual([
    ...Array.from({ length: 31 }, () => 200),
    201,
  ]);
  const [first] = replies;
  if (first === undefined) throw new Error('nothing was answered');
  const task = taskOf(first);
  expect(new Set(replies.map((reply) => taskOf(reply).id))).toEqual(new Set([task.id]));
  expect(replies.filter(({ text }) => text.includes('"password"'))).toHaveLength(1);
  expect(await mintedFor(task)).toBe(1);

  for (const restart of [
    async () => {
      await house.broker.stop();
      house.broker = await house.restart();
    },
    async () => {
      await replica.stop();
      replica = await house.startReplica();
    },
  ]) {
    await restart();
    for (const url of [house.url, replica.url]) {
      const again = await open(request, { url });
      expect([again.status, taskOf(again).id]).toEqual([200, task.id]);
    }
  }
  expect(await mintedFor(task)).toBe(1);
  await replica.stop();
});

test('is refused to whoever lacks a proof, which burns nothing: its owner opens it afterwards', async () => {
  const replica = await house.startReplica();
  const request = await house.sign({ keyThumbprint: key.thumbprint });
  const thief = { token: await house.token('agent-support'), key: await AgentKey.make() };
  const refused = async (shown: Shown, status: number, code: string) => {
    for (const url of [house.url, replica.url]) {
      expect(await open(request, { ...shown, url })).toMatchObject({ status, body: { code } });
    }
  };
  const byAll = async () => {
    await refused({ by: null }, 401, 'proof_missing');
    await refused({ by: thief.key }, 401, 'request_key_wrong');
    await refused({ as: thief.token, by: thief.key }, 403, 'workload_not_named');
    await refused({ as: thief.token }, 403, 'workload_not_named');
  };
  await byAll();
  const opened = await open(request);
  expect(opened.status).toBe(201);
  await byAll();
  expect(await mintedFor(taskOf(opened))).toBe(1);
  await replica.stop();
});
