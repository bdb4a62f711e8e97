import type { Grant } from '../../domain/grant.ts';
import { noUses } from '../../domain/holdings.ts';
import type { DecisionId, EventId, GrantId, RevocationId, TaskId } from '../../domain/ids.ts';
import type { Revocation } from '../../domain/revocation.ts';
import { Secret } from '../../domain/secret.ts';
import type { Task } from '../../domain/task.ts';
import type { WorkloadCaller } from '../../identity/types.ts';
import type { Seen } from '../../store/tasks.ts';
import type { GrantWithRevocation } from '../../store/grants.ts';
import type { StoredEvent } from '../../store/timeline.ts';

export const TASK_ID = '0198c0de-7a11-7000-8000-000000000001' as TaskId;
export const GRANT_ID = '0198c0de-7a11-7000-8000-000000000002' as GrantId;
export const PASSWORD = 'canary-2b9f0c1d';

export const agent: WorkloadCaller = {
  kind: 'workload',
  workload: { source: 'dev', subject: 'agent-recon' },
  keyThumbprint: null,
  instance: null,
  expiresAt: new Date(Date.now() + 3_600_000),
};

export function sampleTask(over: Partial<Task> = {}): Task {
  return {
    id: TASK_ID,
    rootId: TASK_ID,
    parentId: null,
    depth: 0,
    maxDepth: 1,
    issuer: 'https://orchestrator.example',
    externalId: 'run-7',
    jti: 'j-1',
    txn: null,
    state: 'active',
    purpose: 'reconcile.invoices',
    phase: 'plan',
    subject: 'user:dana',
    workload: agent.workload,
    keyThumbprint: null,
    instance: null,
    deliveryThumbprint: null,
    ceiling: { entitlements: ['ledger-db/read-invoices'], params: {}, maxTtlSeconds: null },
    intentHash: null,
    createdAt: new Date('2026-11-22T18:00:00Z'),
    notAfter: new Date('2026-11-22T19:00:00Z'),
    endedAt: null,
    endedBy: null,
    ...over,
  };
}

export function sampleSeen(over: Partial<Seen> = {}): Seen {
  return {
    ...{ state: 'active', phase: null, revision: 1, live_grants: 0, sensitive_sinks: 0, grants: 0 },
    ...{ own_live_grants: 0, own_grants: 0, held: {}, touched: [], given: {}, uses: noUses },
    ...over,
  };
}

export function sampleGrant(
  over: { grant?: Partial<Grant>; revocation?: Partial<Revocation> } = {},
): GrantWithRevocation {
  const grant: Grant = {
    id: GRANT_ID,
    taskId: TASK_ID,
    rootId: TASK_ID,
    entitlement: 'ledger-db/read-invoices',
    target: 'ledger-db',
    params: { tenant: 'acme' },
    state: 'active',
    handle: 'mfy_handle',
    facts: { oid: 16_400 },
    guarantee: {
      revocation: 'immediate',
      native_expiry: true,
      ends_sessions: true,
      enumerable: true,
      min_ttl_seconds: 1,
      max_ttl_seconds: 3_600,
      says: 'Login and sessions end at once.',
    },
    deadline: new Date('2026-11-22T18:05:00Z'),
    decisionId: '0198c0de-7a11-7000-8000-000000000003' as DecisionId,
    decidedRevision: 1,
    perCall: false,
    createdAt: new Date('2026-11-22T18:00:00.120Z'),
    endedAt: null,
    endedBy: null,
    ...over.grant,
  };
  const revocation: Revocation = {
    id: '0198c0de-7a11-7000-8000-000000000004' as RevocationId,
    grantId: grant.id,
    target: grant.target,
    state: 'scheduled',
    dueAt: grant.deadline,
    tryAt: grant.deadline,
    attempts: 0,
    lastError: null,
    overdueAt: null,
    evidence: null,
    containedAt: null,
    cleanAt: null,
    ...over.revocation,
  };
  return { grant, revocation };
}

/** The same grant, ended and proven so. */
export function containedGrant(): GrantWithRevocation {
  return sampleGrant({
    grant: { state: 'revoked', endedAt: new Date('2026-11-22T18:01:00Z'), endedBy: 'completed' },
    revocation: {
      state: 'contained',
      attempts: 1,
      evidence: { sessions_ended: 1 },
      containedAt: new Date('2026-11-22T18:01:00Z'),
    },
  });
}

export function sampleCredential(): Secret<Readonly<Record<string, unknown>>> {
  return new Secret({ host: 'db.example', port: 5432, database: 'ledger', username: 'mfy_handle', password: PASSWORD });
}

export function sampleEvent(over: Partial<StoredEvent> = {}): StoredEvent {
  return {
    id: '0198c0de-7a11-7000-8000-000000000005' as EventId,
    ts: new Date('2026-11-22T18:00:00.001Z'),
    type: 'task.opened',
    agent: 'dev:agent-recon',
    subject: 'user:dana',
    resource: 'none',
    action: 'opened',
    decision: 'none',
    correlationId: 'r-1',
    posture: 'unknown',
    cause: 'none',
    taskId: TASK_ID,
    grantId: null,
    decisionId: null,
    txn: null,
    policyDigest: 'sha256:00',
    payload: { purpose: 'reconcile.invoices' },
    ...over,
  };
}
