import { createHmac } from 'node:crypto';
import { expect, test } from 'vitest';
import type { EventId, GrantId, TaskId } from '../domain/ids.ts';
import { Secret } from '../domain/secret.ts';
import type { Notice } from '../store/notices.ts';
import { webhookMessage } from './webhook-message.ts';

const KEY = Buffer.from('MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw', 'base64');
const SECRET = new Secret(`whsec_${KEY.toString('base64')}`);

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
  const { headers, body } = webhookMessage(notice, SECRET, new Date('2026-11-23T01:00:07.900Z'));
  expect(headers['webhook-id']).toBe('evt_0198c0de-7a11-7000-8000-000000000005');
  expect(headers['webhook-timestamp']).toBe(String(Date.parse('2026-11-23T01:00:07Z') / 1000));
  const signed = `${headers['webhook-id']}.${headers['webhook-timestamp']}.${body}`;
  expect(headers['webhook-signature']).toBe(`v1,${createHmac('sha256', KEY).update(signed, 'utf8').digest('base64')}`);
});

test('a message tells what happened and how late, and not how the target looks inside', () => {
  const { body } = webhookMessage(notice, SECRET, new Date(0));
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
    SECRET,
    new Date(0),
  );
  expect(headers['content-type']).toBe('application/json');
  expect(JSON.parse(body)).toMatchObject({
    type: 'target.breaker',
    data: { task_id: null, grant_id: null, state: 'open' },
  });
});
