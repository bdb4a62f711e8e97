import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { AuditEvent } from '../../src/domain/audit-event.ts';
import { type GrantId, type TaskId, uuidv7 } from '../../src/domain/ids.ts';
import type { EndedBy } from '../../src/domain/task.ts';
import { claimDue, extendClaims, markContained } from '../../src/store/claims.ts';
import { Database, type Transaction } from '../../src/store/database.ts';
import { claimUndecided, markRetained, markUndecided } from '../../src/store/drift.ts';
import { endGrants, endGrantsOfTasks, endGrantsOn } from '../../src/store/grants.ts';
import { hastenKilled } from '../../src/store/kills.ts';
import { coalescedOwnedGrants } from '../../src/store/owned-grants.ts';
import { fallDue } from '../../src/store/revocations.ts';
import { endSubtree } from '../../src/store/task-ends.ts';
import { type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { createStore, type TestStore } from '../support/store.ts';

const ROUNDS = 60;
const TASKS = 3;
const GRANTS_OF_A_TASK = 12;
const LEASE_SECONDS = 5;

let server: PostgresServer;
let store: TestStore;
let owner: pg.Client;
const databases: Database[] = [];

beforeAll(async () => {
  // Soon, so that a test that meets many says so in time.
  server = await startPostgres({ version: 18, settings: { deadlock_timeout: '50ms' } });
  store = await createStore(server);
  owner = new pg.Client({ connectionString: store.ownerUrl.reveal() });
  await owner.connect();
});
afterAll(async () => {
  await Promise.all(databases.map((db) => db.close()));
  await owner?.end();
  await server?.stop();
});

/** Connections of their own for one of those that race. */
function connect(): Database {
  const db = new Database({ url: store.runtimeUrl, connections: 2, onError: () => {} });
  databases.push(db);
  return db;
}

interface Tree {
  readonly task: TaskId;
  readonly grants: readonly GrantId[];
}

/** Tasks with grants that are due already. Where they lie has nothing to do with the order of their ids. */
async function bear(target: string): Promise<Tree[]> {
  const trees = Array.from({ length: TASKS }, () => ({
    task: uuidv7() as TaskId,
    grants: Array.from({ length: GRANTS_OF_A_TASK }, () => uuidv7() as GrantId),
  }));
  const rows = trees.flatMap(({ task, grants }) => grants.map((id) => ({ id, task })));
  await owner.query(
    `WITH n AS MATERIALIZED (SELECT * FROM jsonb_to_recordset($1) AS n (id uuid, task uuid)),
      tasks AS (
        INSERT INTO mayfly.tasks (id, root_id, depth, max_depth, issuer, external_id, jti, request_digest, state, purpose, subject,
          workload_source, workload_subject, ceiling, opened_revision, created_at, not_after)
        SELECT DISTINCT task, task, 0, 0, 'i', task::text, task::text, ''::bytea, 'active', 'p', 's', 'w', 'w', '{}'::jsonb, 1, now(),
          now() + interval '1 hour' FROM n),
      decisions AS (
        INSERT INTO mayfly.decisions (id, task_id, action, resource, permitted, policies, errors, revision, inputs, decided_at)
        SELECT id, task, 'issue', 'e', true, '{}', '{}', 1, '{}', now() FROM n),
      grants AS (
        INSERT INTO mayfly.grants (id, task_id, root_id, entitlement, target, params, sink, state, handle, guarantee, deadline, mint_by,
          decision_id, decided_revision, created_at)
        SELECT id, task, task, 'e', $2, '{}', false, 'minting', id, '{}', now(), now(), id, 1, now() FROM n)
      INSERT INTO mayfly.revocations (id, grant_id, target, state, due_at, try_at)
      SELECT gen_random_uuid(), id, $2, 'scheduled', now(), now() FROM n`,
    [JSON.stringify(shuffled(rows)), target],
  );
  await owner.query(`UPDATE mayfly.grants SET state = 'active', activated_at = now() WHERE state = 'minting'`);
  return trees;
}

function shuffled<T>(items: readonly T[]): T[] {
  const drawn = items.map((item) => ({ item, place: Math.random() }));
  return drawn.sort((a, b) => a.place - b.place).map(({ item }) => item);
}

function ended(grantId: GrantId, taskId: TaskId | null, cause: EndedBy): AuditEvent {
  return {
    type: 'grant.ended',
    agent: 'w:w',
    subject: 's',
    resource: 'e',
    action: 'ended',
    decision: 'none',
    correlationId: 'race',
    posture: 'unknown',
    cause,
    taskId,
    grantId,
    decisionId: null,
    txn: null,
    policyDigest: 'none',
    payload: {},
  };
}

/** What one round has come to. */
interface Round {
  readonly target: string;
  readonly trees: readonly Tree[];
  readonly all: readonly GrantId[];
  /** In the order in which they were told to be ended, each as often as that. */
  readonly ended: { readonly id: GrantId; readonly by: string }[];
  readonly contained: Set<GrantId>;
  /** Nothing more is to be done, or something went wrong. */
  over(): boolean;
}

/** Each ends grants, or records that they are contained, just as the broker does it. */
const racers = {
  /** Their time came. */
  fallDue: () => {
    const db = connect();
    return async (round: Round) => {
      while (!round.over() && round.ended.length < round.all.length) {
        const fallen = await db.transaction({}, async (tx) => {
          const found = await fallDue(tx, round.target, 4);
          for (const one of found) tx.record(ended(one.grantId, one.taskId, one.endedBy));
          return found;
        });
        round.ended.push(...fallen.map(({ grantId }) => ({ id: grantId, by: 'fallDue' })));
      }
    };
  },
  /** Their owners release them, some at the same moment. */
  endEach: () => {
    const owned = coalescedOwnedGrants(connect());
    return async (round: Round) => {
      const release = async (id: GrantId) => {
        const event = ended(id, null, 'released');
        if (await owned.end({ id, endedBy: 'released', event, now: new Date() }))
          round.ended.push({ id, by: 'endEach' });
      };
      await Promise.all(shuffled(round.all).slice(0, 24).map(release));
    };
  },
  /** Their tasks end. */
  endGrants: () => {
    const db = connect();
    const end = async (tx: Transaction, task: TaskId) => {
      await endSubtree(tx, task, 'completed', 'completed');
      const found = await endGrantsOfTasks(tx, [task]);
      for (const { grant } of found) tx.record(ended(grant.id, task, 'completed'));
      return found.map(({ grant }) => ({ id: grant.id, by: 'endGrants' }));
    };
    return async (round: Round) => {
      const complete = async ({ task }: Tree) => {
        const found = await db.transaction({ root: { id: task, mode: 'exclusive' } }, (tx) => end(tx, task));
        round.ended.push(...found);
      };
      await Promise.all(shuffled(round.trees).map(complete));
    };
  },
  /** They are decided again: every other one drifts, and the others are told to be decided once more. */
  drift: () => {
    const [db, other] = [connect(), connect()];
    const decide = async (round: Round) =>
      await db.transaction({}, async (tx) => {
        const held = await claimUndecided(tx, 2, 5, []);
        const mine = held.filter(({ target }) => target === round.target).map(({ id }) => id);
        const drifted = mine.filter((_, index) => index % 2 === 0);
        await markRetained(tx, mine, 2);
        const found = await endGrants(tx, { grantIds: drifted }, 'drift');
        for (const { grant } of found) tx.record(ended(grant.id, grant.taskId, 'drift'));
        return found.map(({ grant }) => ({ id: grant.id, by: 'drift' }));
      });
    return async (round: Round) => {
      for (const { task } of shuffled(round.trees)) {
        const marked = other.transaction({ root: { id: task, mode: 'exclusive' } }, (tx) => markUndecided(tx, task));
        round.ended.push(...(await decide(round)), ...(await decide(round)));
        await marked;
      }
    };
  },
  /** Their target is killed, and once more: what had ended before is hastened. */
  kill: () => {
    const db = connect();
    return async (round: Round) => {
      for (let n = 0; n < 2; n++) {
        const found = await db.transaction({ kill: 'exclusive' }, async (tx) => {
          const killed = await endGrantsOn(tx, round.target, null, 'operator');
          await hastenKilled(tx, { scope: 'target', subject: round.target });
          for (const { grant } of killed) tx.record(ended(grant.id, grant.taskId, 'operator'));
          return killed;
        });
        round.ended.push(...found.map(({ grant }) => ({ id: grant.id, by: 'kill' })));
      }
    };
  },
  /** A worker: the target is done at once, while its heart beats. */
  markContained: () => {
    const db = connect();
    return async (round: Round) => {
      while (!round.over() && round.contained.size < round.all.length) {
        const claim = await claimDue(db, round.target, 'worker', LEASE_SECONDS, 10);
        const items = claim?.items.filter(({ contained }) => !contained) ?? [];
        if (items.length === 0) continue;
        const done = items.map((item) => ({ item, evidence: {}, now: new Date(), event: null }));
        const [ours] = await Promise.all([
          markContained(db, done, LEASE_SECONDS),
          extendClaims(db, items, LEASE_SECONDS),
        ]);
        for (const { id, grantId } of items) if (ours.has(id)) round.contained.add(grantId);
      }
    };
  },
};

/** The SQLSTATE behind an error, if there is one. */
function codeOf(error: unknown): string {
  for (let cause = error; cause instanceof Error; cause = cause.cause)
    if ('code' in cause && typeof cause.code === 'string' && /^[0-9A-Z]{5}$/.test(cause.code)) return cause.code;
  return String(error);
}

test.each<[string, (keyof typeof racers)[]]>([
  ['deadlines and releases', ['fallDue', 'endEach', 'markContained', 'markContained']],
  ['deadlines and ends of tasks', ['fallDue', 'endGrants', 'markContained', 'markContained']],
  ['deadlines, ends of tasks and drift', ['fallDue', 'endGrants', 'drift', 'drift', 'markContained', 'markContained']],
  ['deadlines, releases and kills', ['fallDue', 'endEach', 'kill', 'markContained', 'markContained']],
  ['deadlines, releases and ends of tasks', ['fallDue', 'endEach', 'endGrants', 'markContained', 'markContained']],
])(
  '%s meet at the same grants, and the workers too: none is in another’s way, and each grant ends once',
  async (target, names) => {
    const racing = names.map((name) => ({ name, run: racers[name]() }));
    const endedBy = new Map<string, number>();
    for (let n = 0; n < ROUNDS; n++) {
      const trees = await bear(target);
      const failures: string[] = [];
      const all = trees.flatMap(({ grants }) => grants);
      const round: Round = { target, trees, all, ended: [], contained: new Set(), over: () => failures.length > 0 };
      await Promise.all(
        racing.map(({ name, run }) => run(round).catch((error: unknown) => failures.push(`${name}: ${codeOf(error)}`))),
      );
      expect(failures).toEqual([]);
      expect(round.ended.map(({ id }) => id).sort()).toEqual([...all].sort());
      for (const { by } of round.ended) endedBy.set(by, (endedBy.get(by) ?? 0) + 1);
      const { rows } = await owner.query(
        `SELECT g.id, g.state, r.state AS revocation, array_agg(e.cause = g.ended_by) AS told FROM mayfly.grants g
         JOIN mayfly.revocations r ON r.grant_id = g.id LEFT JOIN mayfly.audit_events e ON e.grant_id = g.id AND e.type = 'grant.ended'
         WHERE g.id = ANY($1) GROUP BY 1, 2, 3 ORDER BY 1`,
        [all],
      );
      expect(rows).toEqual(
        [...all].sort().map((id) => ({ id, state: 'revoked', revocation: 'contained', told: [true] })),
      );
    }
    // Each of them came first at times: else nothing met.
    const enders = new Set(names.filter((name) => name !== 'markContained'));
    expect([...endedBy.keys()].sort()).toEqual([...enders].sort());
  },
);

test('a heartbeat waits for nobody: what another has in hand counts as ours, and is extended at the next beat', async () => {
  const db = connect();
  const trees = await bear('beating');
  await db.transaction({}, async (tx) => {
    for (const { task } of trees) await endSubtree(tx, task, 'completed', 'completed');
    await endGrantsOfTasks(
      tx,
      trees.map(({ task }) => task),
    );
  });
  const claim = await claimDue(db, 'beating', 'worker', LEASE_SECONDS, 10);
  const items = claim?.items ?? [];
  expect(items).toHaveLength(10);
  const extended = async () =>
    (
      await owner.query<{ id: string }>(
        `SELECT id FROM mayfly.revocations WHERE target = 'beating' AND claimed_until > now() + interval '1 minute' ORDER BY id`,
      )
    ).rows.map(({ id }) => id);
  const all = items.map(({ id }) => id).sort();
  const held = all[3];

  await owner.query('BEGIN');
  try {
    await owner.query('SELECT 1 FROM mayfly.revocations WHERE id = $1 FOR UPDATE', [held]);
    expect(await extendClaims(db, items, 100)).toBe(10);
    expect(await extended()).toEqual(all.filter((id) => id !== held));
  } finally {
    await owner.query('ROLLBACK');
  }
  expect(await extendClaims(db, items, 100)).toBe(10);
  expect(await extended()).toEqual(all);
  const lost = items.map(({ id, claimNumber }) => ({ id, claimNumber: claimNumber - 1n }));
  expect(await extendClaims(db, lost, 1_000)).toBe(0);
});
