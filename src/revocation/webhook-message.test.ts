import { createHmac } from 'node:crypto';
import { expect, test } from 'vitest';
import type { EventId, GrantId, TaskId } from '../domain/ids.ts';
import { Secret } from '../domain/secret.ts';
import type { Notice } from '../store/notices.ts';
import { signature, webhookMessage } from './webhook-message.ts';

const KEY = Buffer.from('MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw', 'base64');
const SECRET = new Secret(`whsec_${KEY.toString('base64')}`);

const standard = { format: 'standard', secrets: [SECRET], now: new Date(0) } as const;

const notice: Notice = {
  eventId: '0198c0de-7a11-7000-8000-000000000005' as EventId,
  type: 'revocation.contained',
  ts: new Date('2026-11-23T01:00:00.123Z'),
  agent: 'dev:agent-recon',
  resource: 'ledger-db/read-invoices',
  cause: 'completed',
  taskId: '0198c0de-7a11-7000-8000-000000000001' as TaskId,
  grantId: '0198c0de-7a11-7000-8000-000000000002' as GrantId,
  payload: { target: 'ledger-db', handle: 'mfy_1', evidence: { oid: 16_400 }, late_seconds: 61.5, note: 'żółć' },
  attempts: 1,
};

test('a message is signed over its id, its time and its very bytes', () => {
  const { headers, body } = webhookMessage(notice, { ...standard, now: new Date('2026-11-23T01:00:07.900Z') });
  expect(headers['webhook-id']).toBe('evt_0198c0de-7a11-7000-8000-000000000005');
  expect(headers['webhook-timestamp']).toBe(String(Date.parse('2026-11-23T01:00:07Z') / 1000));
  const signed = `${headers['webhook-id']}.${headers['webhook-timestamp']}.${body}`;
  expect(headers['webhook-signature']).toBe(`v1,${createHmac('sha256', KEY).update(signed, 'utf8').digest('base64')}`);
});

test('a message tells what happened and how late, and not how the target looks inside', () => {
  const { body } = webhookMessage(notice, standard);
  expect(JSON.parse(body)).toEqual({
    type: 'revocation.contained_late',
    timestamp: '2026-11-23T01:00:00.123Z',
    data: {
      resource: 'ledger-db/read-invoices',
      agent: 'dev:agent-recon',
      cause: 'completed',
      task_id: 'task_0198c0de-7a11-7000-8000-000000000001',
      grant_id: 'grt_0198c0de-7a11-7000-8000-000000000002',
      target: 'ledger-db',
      late_seconds: 61.5,
      note: 'żółć',
    },
  });
});

test('a message is told as what it is, and of no task or grant where it is of none', () => {
  const { headers, body } = webhookMessage(
    { ...notice, type: 'target.breaker', taskId: null, grantId: null, payload: { state: 'open' } },
    standard,
  );
  expect(headers['content-type']).toBe('application/json');
  expect(JSON.parse(body)).toMatchObject({
    type: 'target.breaker',
    data: { task_id: null, grant_id: null, state: 'open' },
  });
});

test('a signature is the one of the specification’s own example', () => {
  expect(signature(SECRET, 'msg_p5jXN8AQM9LWM0D4loKWxJek', '1614265330', '{"test": 2432232314}')).toBe(
    'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=',
  );
});

test('while a secret is replaced, a message bears a signature by each', () => {
  const other = new Secret(`whsec_${Buffer.alloc(24, 9).toString('base64')}`);
  const { headers, body } = webhookMessage(notice, { ...standard, secrets: [SECRET, other] });
  const { 'webhook-id': id = '', 'webhook-timestamp': timestamp = '' } = headers;
  expect(headers['webhook-signature']).toBe(
    [SECRET, other].map((secret) => signature(secret, id, timestamp, body)).join(' '),
  );
});

test('a message says where to read on: the revocation, else the grant, else the task', () => {
  const dataOf = (over: Partial<Notice>) =>
    JSON.parse(webhookMessage({ ...notice, ...over }, { ...standard, url: 'https://broker.example' }).body).data;
  expect(dataOf({ payload: { revocation_id: 'rev_1' } })).toMatchObject({
    link: 'https://broker.example/v1/revocations/rev_1',
    command: 'mayfly revocations show rev_1',
  });
  expect(dataOf({})).toMatchObject({
    link: 'https://broker.example/v1/grants/grt_0198c0de-7a11-7000-8000-000000000002',
    command: 'mayfly explain grt_0198c0de-7a11-7000-8000-000000000002',
  });
  expect(dataOf({ grantId: null })).toMatchObject({
    link: 'https://broker.example/v1/tasks/task_0198c0de-7a11-7000-8000-000000000001/timeline',
  });
  expect(dataOf({ grantId: null, taskId: null })).not.toHaveProperty('link');
});

test('Slack is told plain text, in which nothing is markup and no value goes on for ever', () => {
  const payload = { reason: 'see <!channel> & <https://evil.example|here>\n*now*', note: 'x'.repeat(1_000) };
  const { headers, body } = webhookMessage({ ...notice, payload }, { ...standard, format: 'slack', secrets: [] });
  const { text, ...rest } = JSON.parse(body);
  expect(rest).toEqual({ mrkdwn: false });
  expect(text.split('\n')).toEqual([
    'Mayfly: revocation.contained_late at 2026-11-23T01:00:00.123Z',
    'resource: ledger-db/read-invoices',
    'agent: dev:agent-recon',
    'cause: completed',
    'task_id: task_0198c0de-7a11-7000-8000-000000000001',
    'grant_id: grt_0198c0de-7a11-7000-8000-000000000002',
    'reason: see &lt;!channel&gt; &amp; &lt;https://evil.example|here&gt; *now*',
    `note: ${'x'.repeat(300)}…`,
  ]);
  expect(headers).not.toHaveProperty('webhook-signature');
});
