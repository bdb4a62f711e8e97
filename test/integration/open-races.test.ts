import { describe, expect, test } from 'vitest';
import type { TaskBody } from '../../src/client/index.ts';
import { ask, type Reply } from '../support/ask.ts';
import { forge } from '../support/forge.ts';
import { expectRefusal, READ, refused, useRefusals } from '../support/refusals.ts';

useRefusals();

describe('two opens racing', () => {
  const race = async (...requests: readonly string[]): Promise<Reply[]> => {
    const { house, token } = refused();
    return await Promise.all(
      requests.map((text) => ask(house.url, 'POST', '/v1/tasks', { token, body: { request: text } })),
    );
  };
  const statuses = (replies: readonly Reply[]) => replies.map(({ status }) => status).sort((one, other) => one - other);
  const made = async (column: 'jti' | 'external_id', value: unknown): Promise<number> =>
    (await refused().house.onStore(`SELECT 1 FROM mayfly.tasks WHERE ${column} = $1`, [value])).length;

  test('with one request open one task', async () => {
    const signed = await refused().house.sign();
    const replies = await race(signed, signed, signed, signed);
    expect(statuses(replies)).toEqual([200, 200, 200, 201]);
    expect(new Set(replies.map(({ body }) => (body['task'] as TaskBody).id)).size).toBe(1);
  });

  test('with one jti and two texts open one task, and the other is told so', async () => {
    const { house } = refused();
    const signed = await house.sign();
    let jti: unknown;
    const other = forge(house.devDir, 'orchestrator', signed, ({ claims }) => {
      jti = claims['jti'];
      Object.assign(Object(claims['task']), { id: `another-${String(jti)}` });
    });
    const replies = await race(signed, other, signed, other);
    expect(statuses(replies)).toEqual([200, 201, 401, 401]);
    for (const reply of replies.filter(({ status }) => status === 401))
      await expectRefusal(reply, 401, 'task_request_used');
    expect(await made('jti', jti)).toBe(1);
  });

  test('with two jti and one id of the issuer open one task, and the other is told so', async () => {
    const { house } = refused();
    const signed = await house.sign();
    let id: unknown;
    const other = forge(house.devDir, 'orchestrator', signed, ({ claims }) => {
      ({ id } = Object(claims['task']));
      claims['jti'] = `another-${String(claims['jti'])}`;
    });
    const replies = await race(signed, other);
    expect(statuses(replies)).toEqual([201, 409]);
    for (const reply of replies.filter(({ status }) => status === 409))
      await expectRefusal(reply, 409, 'external_id_used');
    expect(await made('external_id', id)).toBe(1);
  });

  test('by two workloads: only the one that is named has it, and nothing is burnt', async () => {
    const { house, token } = refused();
    const body = { request: await house.sign() };
    const send = (who: string) => ask(house.url, 'POST', '/v1/tasks', { token: who, body });
    const [theirs, ours] = await Promise.all([send(await house.token('agent-support')), send(token)]);
    await expectRefusal(theirs, 403, 'workload_not_named');
    expect(ours.status).toBe(201);
  });

  test('after the task has ended give that task, and mint nothing', async () => {
    const { house, token } = refused();
    const signed = await house.sign();
    const { task } = await house.client().openTask(signed);
    await house.client().cancel(task.id, { wait: 30 });
    const again = await ask(house.url, 'POST', '/v1/tasks', { token, body: { request: signed, issue: [READ] } });
    expect(again).toMatchObject({ status: 200, body: { task: { id: task.id, state: 'cancelled', grants: [] } } });
    expect(again.body).not.toHaveProperty('issued');
  });
});
