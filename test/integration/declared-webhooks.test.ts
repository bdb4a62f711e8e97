import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { webhooksBody, webhookTestBody } from '../../src/http/webhook-bodies.ts';
import { startCli } from '../support/cli.ts';
import { type House, startHouse } from '../support/house.ts';
import { grantsIn, type Operators, operatorsOf } from '../support/operators.ts';
import { isSignedBy, startReceiver, type WebhookReceiver } from '../support/webhook-receiver.ts';

const KEY = `whsec_${Buffer.alloc(24, 3).toString('base64')}`;
// The command is a process of its own.
vi.setConfig({ testTimeout: 180_000 });

let house: House;
let operators: Operators;
let receiver: WebhookReceiver;

beforeAll(async () => {
  receiver = await startReceiver();
  house = await startHouse();
  operators = operatorsOf(house);
  const folder = join(house.secretsDir, '_webhooks', 'oncall');
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'key'), `${KEY}\n`);
  await house.broker.apply({
    ...house.files,
    'webhooks.yaml': `
- { name: oncall, dev: true, url: "${receiver.url}", events: [kill.*, grant.ended], secret: file:key }
- { name: astray, dev: true, url: "${receiver.url}", events: [kill.*], secret: file:key }
`,
  });
});
afterAll(async () => {
  await house?.stop();
  receiver?.stop();
});

async function listed() {
  const { items } = webhooksBody.parse((await operators.get('/v1/webhooks')).body);
  return new Map(items.map((item) => [item.name, item]));
}

test('a kill, and what it ended, is told in the transaction that did it; what the agent itself ends is not', async () => {
  const { task, grants } = await grantsIn(house, 1);
  const other = await grantsIn(house, 1);
  await house.client().complete(other.task.id);
  const raised = await operators.post('/v1/kill', { scope: 'task', id: task.id, reason: 'it runs wild' });
  await vi.waitFor(() => expect(receiver.received).toHaveLength(2), { timeout: 30_000 });
  expect(new Set(receiver.received.map(({ type }) => type))).toEqual(new Set(['grant.ended', 'kill.raised']));
  expect(receiver.received.every((message) => isSignedBy(KEY, message))).toBe(true);
  const ended = receiver.received.find(({ type }) => type === 'grant.ended');
  expect(JSON.parse(ended?.body ?? '').data).toMatchObject({
    ...{ cause: 'operator', target: 'ledger-db', grant_id: grants[0]?.id, task_id: task.id },
    link: expect.stringMatching(new RegExp(`^${house.url}/v1/revocations/rev_`)),
    command: expect.stringMatching(/^mayfly revocations show rev_/),
  });
  expect(ended?.body).not.toContain('mfy_');
  await house.onStore(
    `UPDATE mayfly.kills SET lifted_at = clock_timestamp(), lifted_by = 'test' WHERE lifted_at IS NULL`,
  );
  expect(raised.status).toBe(201);
});

test('a test goes the way of every event, and the list says how each webhook fares', async () => {
  const reply = await operators.post('/v1/webhooks/oncall/test?wait=30');
  const told = webhookTestBody.parse(reply.body);
  expect([reply.status, told]).toMatchObject([200, { webhook: 'oncall', state: 'delivered', attempts: 1 }]);
  expect(receiver.received.find(({ id }) => id === told.webhook_id)).toMatchObject({ type: 'webhook.test' });
  const astray = await operators.post('/v1/webhooks/astray/test?wait=30');
  expect([astray.status, astray.body]).toMatchObject([202, { state: 'pending', last_error: 'secret_missing' }]);
  const fares = await listed();
  expect(fares.get('oncall')).toMatchObject({ state: 'ok', pending: 0, given_up: 0, targets: null });
  expect(fares.get('astray')).toMatchObject({ state: 'failing', last_error: 'secret_missing' });
  expect(JSON.stringify([...fares])).not.toContain(receiver.url);
  expect((await operators.post('/v1/webhooks/nowhere/test')).status).toBe(404);
  const metrics = await (await fetch(`${house.url}/metrics`)).text();
  expect(metrics).toMatch(
    /mayfly_webhook_failing_seconds\{webhook="astray"\} 0\.|mayfly_webhook_failing_seconds\{webhook="astray"\} [1-9]/,
  );
  expect(metrics).toContain('mayfly_webhook_failing_seconds{webhook="oncall"} 0\n');
});

test('an operator tests and lists in the terminal', async () => {
  const mayfly = (...args: string[]) => startCli(args, { env: { MAYFLY_DIR: house.devDir } }).ended;
  const tested = await mayfly('webhooks', 'test', 'oncall');
  expect([tested.code, tested.stdout]).toEqual([0, expect.stringMatching(/^oncall took evt_\S+\.\n$/)]);
  const failed = await mayfly('webhooks', 'test', 'astray');
  expect([failed.code, failed.stderr]).toEqual([1, expect.stringContaining('astray did not take it (secret_missing)')]);
  const all = await mayfly('webhooks', 'list');
  expect(all.stdout).toMatch(/^WEBHOOK +FORMAT +STATE .*\nastray +standard +failing .*\noncall +standard +ok /);
});
