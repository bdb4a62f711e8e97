import { ask, type Reply } from '../support/ask.ts';
import type { Scenario } from './scenarios.ts';
import { plain } from './world.ts';

/** An agent asks before a tool call, and again: what was answered was written down. */
export const evaluate: Scenario = async (world) => {
  const task = await world.open();
  const body = {
    subject: { type: 'task', id: task },
    action: { name: 'read' },
    resource: { type: 'document', id: '1' },
  };
  const once = async (): Promise<Reply> =>
    await ask(world.url, 'POST', '/access/v1/evaluation', { token: await world.house.token(), body });
  return {
    act: once,
    after: async () => {
      let reply: Reply | undefined;
      await world.until('it is answered', async () => {
        reply = await once().catch(() => undefined);
        return reply?.status === 200;
      });
      const context = Object(reply?.body['context']) as { evaluation_id?: string };
      const rows = await world.eye.store<{ id: string }>(
        `SELECT id FROM mayfly.decisions WHERE task_id = $1 AND action = 'evaluate'`,
        [plain(task)],
      );
      if (!rows.some(({ id }) => `dec_${id}` === context.evaluation_id))
        throw new Error('what was answered was not written down');
    },
  };
};
