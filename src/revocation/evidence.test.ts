import { expect, test } from 'vitest';
import type { GrantId, RevocationId, TaskId } from '../domain/ids.ts';
import { engineEvent, targetEvent } from './evidence.ts';

const deps = { worker: 'worker-1', policyDigest: () => 'sha256:abc' };
const about = {
  ...{ agent: 'dev:agent', subject: 'user:dana', entitlement: 'ledger-db/read', txn: 'txn-1' },
  ...{ taskId: 'task' as TaskId, grantId: 'grant' as GrantId },
};

test('an event of the engine says whose it is, which claim caused it, and what it is about', () => {
  const whole = { ...about, id: 'rev' as RevocationId, handle: 'mfy_1', claimNumber: 7n, endedBy: 'expired' as const };
  expect(engineEvent('revocation.contained', deps, 'ledger-db', whole, { n: 1 })).toEqual({
    ...{ type: 'revocation.contained', action: 'contained', decision: 'none', posture: 'unknown', cause: 'expired' },
    ...{ agent: 'dev:agent', subject: 'user:dana', resource: 'ledger-db/read', correlationId: 'worker-1#7' },
    ...{ taskId: 'task', grantId: 'grant', decisionId: null, txn: 'txn-1', policyDigest: 'sha256:abc' },
    payload: { target: 'ledger-db', handle: 'mfy_1', revocation_id: 'rev_rev', n: 1 },
  });
});

test('what is not known of it is left out, or said to be none', () => {
  expect(engineEvent('grant.ended', deps, 'ledger-db', about, { by: 'deadline' })).toMatchObject({
    ...{ action: 'ended', correlationId: 'worker-1', cause: 'none' },
  });
  const { payload } = engineEvent('grant.ended', deps, 'ledger-db', about, { by: 'deadline' });
  expect(payload).toStrictEqual({ target: 'ledger-db', by: 'deadline' });
});

test('an event about a target as a whole is nobody’s in particular', () => {
  expect(targetEvent('target.breaker', deps, 'ledger-db', { state: 'open' })).toEqual({
    ...{ type: 'target.breaker', agent: 'none', subject: 'none', resource: 'ledger-db', action: 'breaker' },
    ...{ decision: 'none', correlationId: 'worker-1', posture: 'unknown', cause: 'none' },
    ...{ taskId: null, grantId: null, decisionId: null, txn: null, policyDigest: 'sha256:abc' },
    payload: { state: 'open' },
  });
});
