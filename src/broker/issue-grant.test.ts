import { setTimeout } from 'node:timers/promises';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { randomIds, type TaskId, uuidv7 } from '../domain/ids.ts';
import type { Task } from '../domain/task.ts';
import { sampleSeen } from '../http/testing/samples.ts';
import type { WorkloadCaller } from '../identity/types.ts';
import { type Minted, type MintRequest, ProviderError, type Ref, Secret, type Session } from '../provider.ts';
import { Database, type Statement } from '../store/database.ts';
import type { Activation, Intent } from '../store/intents.ts';
import type { BrokerDeps } from './deps.ts';
import { issueGrant } from './issue-grant.ts';
import { noProposals } from './testing/proposals.ts';
import { active, guarantee, READ } from './testing/revision.ts';

const TTL = 120;
const MINT_SECONDS = 10;
const SECOND = 1_000;

const caller: WorkloadCaller = {
  kind: 'workload',
  workload: { source: 'dev', subject: 'agent-recon' },
  keyThumbprint: null,
  instance: null,
  expiresAt: new Date('2100-01-01T00:00:00Z'),
};
const context = { requestId: 'r-1', gone: new AbortController().signal };

/** The true time. The store goes by it; it stands still unless a test lets it pass. */
let time = 0;
/** Milliseconds that this machine's wall clock is ahead of the store's. */
let ahead = 0;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['Date'] });
  ahead = 0;
  pass(Date.parse('2026-11-22T18:00:00Z') - time);
  return () => vi.useRealTimers();
});

/** Time goes by everywhere, but not for `performance.now()`: as on a machine that was suspended meanwhile. */
function pass(millis: number): void {
  time += millis;
  vi.setSystemTime(time + ahead);
}

function isAhead(millis: number): void {
  ahead = millis;
  pass(0);
}

/** A broker whose store and target are played by the test, and what was said to them. */
function house(
  during: {
    read?: () => void;
    intend?: () => void;
    outcomes?: ('done' | 'changed')[];
    mint?: (minted: Minted) => Promise<Minted>;
    activated?: 'ended';
    mintSeconds?: number;
  } = {},
) {
  const id = uuidv7(time) as TaskId;
  const task: Task = {
    id,
    rootId: id,
    parentId: null,
    depth: 0,
    maxDepth: 0,
    issuer: 'https://orchestrator.example',
    externalId: 'run-7',
    jti: 'j-1',
    txn: null,
    state: 'active',
    purpose: 'reconcile.invoices',
    phase: null,
    subject: 'user:dana',
    workload: caller.workload,
    keyThumbprint: null,
    instance: null,
    deliveryThumbprint: null,
    ceiling: { entitlements: [READ], params: {}, maxTtlSeconds: null },
    intentHash: null,
    createdAt: new Date(time - 60 * SECOND),
    notAfter: new Date(time + 3_600 * SECOND),
    endedAt: null,
    endedBy: null,
  };
  const intents: Intent[] = [];
  const asked: { ref: Ref; request: MintRequest }[] = [];
  const activations: Activation[] = [];
  const statements: Statement[] = [];
  const alarms: number[] = [];
  const outcomes = [...(during.outcomes ?? [])];

  const db = new Database({ url: new Secret('postgres://nobody@127.0.0.1:1/none'), connections: 1, onError: () => {} });
  vi.spyOn(db, 'transaction').mockImplementation(async (_locks, body) => {
    const query = async (statement: Statement) => {
      statements.push(statement);
      return [];
    };
    return await body({
      now: new Date(time),
      query,
      changed: () => {},
      record: () => {},
      decided: () => {},
      used: () => {},
    });
  });

  const unasked = async () => await Promise.reject(new Error('nobody asks this here'));
  const identity = { verifyTaskRequest: unasked, verifyTaskEvent: unasked, verifyDelegation: unasked };
  const session: Session = {
    guarantee: async () => guarantee,
    reserve: (grantId) => `handle-${grantId}`,
    // As the contract says: every time is on this machine's clock.
    mint: async (ref, request): Promise<Minted> => {
      asked.push({ ref, request });
      if (Date.now() > request.mintBy.getTime()) throw new ProviderError('retryable', 'the time to mint by has passed');
      const minted = { secret: new Secret({ username: 'u' }), expiresAt: request.deadline, facts: { oid: 7 } };
      return (await during.mint?.(minted)) ?? minted;
    },
    fence: unasked,
    verify: unasked,
    reap: unasked,
    check: unasked,
    close: async () => {},
  };
  const deps: BrokerDeps = {
    db,
    issuing: {
      readTask: async () => {
        during.read?.();
        return {
          task,
          now: new Date(time),
          seen: sampleSeen(),
          heldSeconds: 0,
          fingerprint: '',
          killed: false,
          heard: {},
        };
      },
      intend: async (intent) => {
        intents.push(intent);
        during.intend?.();
        return outcomes.shift() ?? 'done';
      },
      activate: async (activation) => {
        activations.push(activation);
        return during.activated ?? 'done';
      },
    },
    ownedGrants: { find: unasked, end: unasked },
    proofs: { spend: unasked },
    nonces: null,
    changes: { publish: () => {}, wait: unasked },
    catalog: { ready: true, current: () => active, refresh: unasked },
    identity: { ...identity, authenticate: unasked, explain: unasked, signIn: unasked },
    access: () => ({ session, config: {} }),
    alarms: { in: (_target, millis) => void alarms.push(millis), now: () => {} },
    living: { remember: () => {} },
    drift: { wake: () => {}, spread: () => {} },
    kept: { remember: () => {} },
    observer: { decided: () => {}, minted: () => {}, signalled: () => {} },
    ids: randomIds,
    audience: 'https://broker.example',
    approvals: { pendingSeconds: 60, unusedSeconds: 60, perTask: 10 },
    proposals: noProposals(),
    ...{
      mintsPerTask: 1_000,
      sessionSeconds: 1,
      tasksAlive: { hasRoom: async () => true },
      taskEvaluations: { hasRoom: async () => true },
      ownedRoots: { find: async () => undefined },
    },
    mintSeconds: during.mintSeconds ?? MINT_SECONDS,
    log: () => {},
  };
  const request = { entitlement: READ, ttlSeconds: TTL, justification: null, delivery: null, idempotencyKey: null };
  return {
    task,
    activations,
    alarms,
    statements,
    asked,
    issue: async () => {
      const issued = await issueGrant(deps, caller, id, request, context);
      if ('pending' in issued) throw new Error('it was to be issued');
      return issued;
    },
    /** What was committed last, and what the target was told then. */
    told: () => {
      const intent = intents.at(-1);
      const said = asked.at(-1);
      if (intent === undefined || said === undefined) throw new Error('nothing was minted');
      return { intent, ...said };
    },
  };
}

describe.each([
  ['in step with the store', 0],
  ['a minute and a half ahead of the store', 90 * SECOND],
  ['a minute and a half behind the store', -90 * SECOND],
])('on a machine whose clock is %s', (_, off) => {
  beforeEach(() => isAhead(off));

  test('the target is told times of this machine’s clock, the store its own', async () => {
    const broker = house();
    await broker.issue();
    const { intent, ref, request } = broker.told();
    expect(intent.grant.deadline.getTime()).toBe(time + TTL * SECOND);
    expect(intent.mintBy.getTime()).toBe(time + MINT_SECONDS * SECOND);

    expect(ref.deadline.getTime()).toBe(Date.now() + TTL * SECOND);
    expect(request.deadline).toEqual(ref.deadline);
    expect(request.mintBy.getTime()).toBe(Date.now() + MINT_SECONDS * SECOND);
    expect(request.notAfter.getTime()).toBe(broker.task.notAfter.getTime() + off);
  });

  test('what comes back is on the store’s clock: the answer, the evidence and the alarm', async () => {
    const broker = house();
    const issued = await broker.issue();
    const { intent } = broker.told();
    expect(issued.expiresAt).toEqual(intent.grant.deadline);
    expect(issued.grant.grant.deadline).toEqual(intent.grant.deadline);
    expect(broker.activations).toHaveLength(1);
    const [activation] = broker.activations;
    expect(activation?.event.payload['native_expiry']).toBe(intent.grant.deadline.toISOString());
    // Carried on by `performance.now()`, which does not stand still here.
    expect((activation?.now.getTime() ?? 0) - time).toBeGreaterThanOrEqual(0);
    expect((activation?.now.getTime() ?? 0) - time).toBeLessThan(5 * SECOND);
    expect(broker.alarms).toHaveLength(1);
    expect(broker.alarms[0]).toBeLessThanOrEqual(TTL * SECOND);
    expect(broker.alarms[0]).toBeGreaterThan((TTL - 5) * SECOND);
  });

  test('suspended between decision and mint, it wakes too late: nothing is minted, and the grant is ended', async () => {
    const broker = house({ intend: () => pass((MINT_SECONDS + 1) * SECOND) });
    await expect(broker.issue()).rejects.toMatchObject({ code: 'target_unavailable' });
    const { request } = broker.told();
    expect(request.mintBy.getTime()).toBeLessThan(Date.now());
    expect(broker.asked).toHaveLength(1);
    expect(broker.activations).toEqual([]);
    expect(broker.statements).toMatchObject([
      { name: 'end_grants', values: [new Date(time), false, 'mint_failed', [request.grantId]] },
    ]);
  });

  test('suspended for less, it mints what was decided, for as long as is left of it', async () => {
    const broker = house({ intend: () => pass((MINT_SECONDS - 1) * SECOND) });
    const issued = await broker.issue();
    const { intent, request } = broker.told();
    expect(request.deadline.getTime()).toBe(Date.now() + (TTL - MINT_SECONDS + 1) * SECOND);
    expect(request.mintBy.getTime()).toBe(Date.now() + 1 * SECOND);
    expect(issued.expiresAt).toEqual(intent.grant.deadline);
  });

  test('a question that was long on its way to the store makes the times earlier, never later', async () => {
    const broker = house({ read: () => pass(3 * SECOND) });
    await broker.issue();
    const { intent, request } = broker.told();
    const inTrueTime = (told: Date) => told.getTime() - off;
    expect(inTrueTime(request.deadline)).toBe(intent.grant.deadline.getTime() - 3 * SECOND);
    expect(inTrueTime(request.mintBy)).toBe(intent.mintBy.getTime() - 3 * SECOND);
  });

  test('decided again after a change, it is measured again', async () => {
    let correction = 7 * SECOND;
    const corrected = () => {
      isAhead(ahead + correction);
      correction = 0;
    };
    const broker = house({ intend: corrected, outcomes: ['changed'] });
    await broker.issue();
    const { intent, request } = broker.told();
    expect(request.deadline.getTime() - intent.grant.deadline.getTime()).toBe(off + 7 * SECOND);
  });
});

test.each([
  ['had ended', 'task_ended', { activated: 'ended' as const }],
  [
    'was given up',
    'target_unavailable',
    { mintSeconds: 0.01, mint: async (made: Minted) => await setTimeout(200, made) },
  ],
])('what a target has made after its grant %s is kept for whoever ends it', async (_, code, during) => {
  const broker = house(during);
  await expect(broker.issue()).rejects.toMatchObject({ code });
  expect(broker.statements[0]).toMatchObject({ name: 'end_grants' });
  const values = [broker.told().request.grantId, JSON.stringify({ oid: 7 }), expect.any(Date)];
  await vi.waitFor(() => expect(broker.statements.at(-1)).toMatchObject({ name: 'keep_late_facts', values }), {
    timeout: 30_000,
  });
});
