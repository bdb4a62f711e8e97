import { randomUUID } from 'node:crypto';
import pg from 'pg';
import type { TargetDefinition } from '../../src/catalog/types.ts';
import type { Facts, Guarantee } from '../../src/domain/grant.ts';
import { Secret } from '../../src/domain/secret.ts';
import type { Session } from '../../src/provider.ts';
import type { ReconcileDeps } from '../../src/revocation/reconcile-deps.ts';
import { type Claim, claimDue } from '../../src/store/claims.ts';
import { Database } from '../../src/store/database.ts';
import { openTestDatabase } from './shared-store.ts';
import { syntheticProvider } from './synthetic/provider.ts';
import { type Kind, SyntheticTarget } from './synthetic/target.ts';

/** One grant as it was born, with its identity in the target. */
export interface Born {
  readonly id: string;
  readonly taskId: string;
  readonly handle: string;
  readonly revocationId: string;
}

/** What stands in the store for it. */
export interface Stands {
  readonly state: string;
  readonly ended_by: string | null;
  readonly revocation: string;
  readonly attempts: number;
  readonly last_error: string | null;
  readonly evidence: Readonly<Record<string, unknown>> | null;
  readonly claimed_by: string | null;
  readonly claim_number: string | null;
  readonly seconds_to_try: number;
  readonly seconds_held: number | null;
  readonly overdue: boolean;
}

export interface Told {
  readonly type: string;
  readonly correlation_id: string;
  readonly cause: string;
  readonly payload: Readonly<Record<string, unknown>>;
}

export interface BirthOptions {
  /** Seconds from now to its deadline. */
  readonly seconds?: number;
  readonly revision?: number;
  readonly guarantee?: Guarantee['revocation'];
  /** Not known, as after a crash in its mint. */
  readonly lost?: boolean;
  /** The mint did not take effect. */
  readonly unmade?: boolean;
}

/** A target of its own for one test, in its memory. */
export interface EngineTarget {
  readonly name: string;
  readonly synthetic: SyntheticTarget;
  readonly session: Session;
  /** Active grants of one task, minted. */
  bear(count: number, options?: BirthOptions): Promise<readonly Born[]>;
  /** Ends them: their obligations are due now, or in so many seconds. */
  end(born: readonly Born[], owed?: number): Promise<void>;
  /** Claims what is due, as a worker of that name. */
  claim(worker?: string, limit?: number): Promise<Claim>;
  /** Born, ended and claimed. */
  claimed(
    count: number,
    options?: BirthOptions & { readonly owed?: number },
  ): Promise<{ born: readonly Born[]; claim: Claim }>;
  /** Claims them once more, whose claim may hold still. */
  claimAgain(born: readonly Born[]): Promise<Claim>;
}

/** The parts of the engine call these; a test looks at what they were told. */
export interface EngineHouse {
  readonly db: Database;
  readonly storeUrl: Secret<string>;
  readonly deps: ReconcileDeps;
  /** What the observers were told, in order: name and arguments. */
  readonly observed: (readonly [string, ...unknown[]])[];
  readonly logs: { readonly event: Readonly<Record<string, unknown>>; readonly message: string }[];
  /** Tasks of which somebody was told that something changed. */
  readonly changed: string[];
  /** What was woken, and what is said to let nothing be claimed. */
  readonly woken: string[];
  readonly unclaimed: string[];
  /** Sessions to be answered instead: by target, or by `<target>@<revision>` as it was granted. */
  readonly sessions: Map<string, Session>;
  target(kind?: Kind): EngineTarget;
  standing(born: Born): Promise<Stands>;
  /** The events of one grant, or of one target as a whole. */
  told(of: Born | string): Promise<readonly Told[]>;
  onStore<R extends pg.QueryResultRow>(text: string, values?: unknown[]): Promise<R[]>;
  stop(): Promise<void>;
}

export const INSTALLATION = '01980000-0000-7000-8000-00000000c0de';

/** The store and what the parts of the engine are given; no part of it runs by itself. */
export async function startEngineHouse(): Promise<EngineHouse> {
  const opened = await openTestDatabase();
  const changed: string[] = [];
  const db = new Database({
    url: opened.runtimeUrl,
    connections: 4,
    onError: () => {},
    onChanged: (ids) => changed.push(...ids),
  });
  const owner = new pg.Client({ connectionString: opened.superuserUrl.reveal() });
  owner.on('error', () => {});
  await owner.connect();
  const onStore: EngineHouse['onStore'] = async (text, values = []) => (await owner.query(text, values)).rows;

  const observed: (readonly [string, ...unknown[]])[] = [];
  const logs: EngineHouse['logs'] = [];
  const woken: string[] = [];
  const unclaimed: string[] = [];
  const targets = new Map<string, SyntheticTarget>();
  const provider = syntheticProvider(targets);
  const sessions = new Map<string, Session>();
  const observe =
    (name: string) =>
    (...args: readonly unknown[]) =>
      void observed.push([name, ...args]);

  const deps: ReconcileDeps = {
    db,
    targetAt: async (name, revision, asGranted) =>
      definitionOf(asGranted && sessions.has(`${name}@${revision}`) ? `${name}@${revision}` : name),
    session: ({ name }) => {
      const session = sessions.get(name);
      if (session === undefined) throw new Error(`no target ${name}`);
      return session;
    },
    unclaimed: (target) => void unclaimed.push(target),
    policyDigest: () => 'sha256:test',
    observer: {
      ...{ contained: observe('contained'), notSeen: observe('notSeen'), failed: observe('failed') },
      ...{ returned: observe('returned'), fencedUnrecorded: observe('fencedUnrecorded') },
      ...{ overdue: observe('overdue'), breaker: observe('breaker') },
    },
    found: {
      ...{ orphaned: observe('orphaned'), lost: observe('lost'), drifted: observe('drifted') },
      changed: observe('changed'),
      ...{ unverified: observe('unverified'), reconciled: observe('reconciled') },
      ...{ unreconciled: observe('unreconciled'), stranger: observe('stranger') },
    },
    worker: 'worker-1',
    random: () => 0,
    log: (event, message) => void logs.push({ event, message }),
    targets: () => [...targets.keys()].map(definitionOf),
    ...{ revision: () => 1, maxChangedShare: 0 },
    entitlement: () => ({}),
    wake: (target) => void woken.push(target),
  };

  const makeTarget = (kind: Kind = 'handles'): EngineTarget => {
    const name = `target-${randomUUID()}`;
    const synthetic = new SyntheticTarget(kind);
    targets.set(name, synthetic);
    const session = provider.connect(
      { system: name },
      {
        ...{ target: name, installation: INSTALLATION, log: () => {} },
        secret: () => {
          throw new Error('no secret is asked for here');
        },
      },
    );
    sessions.set(name, session);
    const made: EngineTarget = {
      name,
      synthetic,
      session,
      bear: async (count, options = {}) => {
        const deadline = new Date(Date.now() + (options.seconds ?? 300) * 1000);
        const taskId = randomUUID();
        const born = await Promise.all(
          Array.from({ length: count }, async () => {
            const id = randomUUID();
            const handle = session.reserve(id);
            const facts = options.unmade === true ? null : await mint(session, id, handle, deadline);
            return { id, taskId, handle, revocationId: randomUUID(), facts: options.lost === true ? null : facts };
          }),
        );
        const rows = born.map(({ id, handle, revocationId, facts }) => ({
          id,
          handle,
          revocation: revocationId,
          facts,
        }));
        await onStore(BEAR_TASK, [taskId, deadline]);
        const promise = { revocation: options.guarantee ?? 'immediate', native_expiry: true };
        await onStore(BEAR, [
          ...[taskId, deadline, name, JSON.stringify(promise), options.revision ?? 1, JSON.stringify(rows)],
        ]);
        await onStore(
          `UPDATE mayfly.grants SET state = 'active', activated_at = clock_timestamp() - interval '1 second' WHERE task_id = $1`,
          [taskId],
        );
        return born;
      },
      end: async (born, owed = 0) => {
        const ids = born.map(({ id }) => id);
        await onStore(
          `UPDATE mayfly.grants SET state = 'revoking', ended_at = clock_timestamp(), ended_by = 'completed' WHERE id = ANY($1)`,
          [ids],
        );
        await onStore(
          `UPDATE mayfly.revocations SET state = 'due', due_at = clock_timestamp() + make_interval(secs => $2),
             try_at = clock_timestamp() WHERE grant_id = ANY($1)`,
          [ids, owed],
        );
      },
      claim: async (worker = deps.worker, limit = 50) => {
        const claim = await claimDue(db, name, worker, 5, limit);
        if (claim === undefined) throw new Error('nothing is due');
        return claim;
      },
      claimed: async (count, { owed = 0, ...birth } = {}) => {
        const born = await made.bear(count, birth);
        await made.end(born, owed);
        return { born, claim: await made.claim() };
      },
      claimAgain: async (born) => {
        await onStore(
          `UPDATE mayfly.revocations SET try_at = clock_timestamp(), claimed_until = clock_timestamp() WHERE grant_id = ANY($1)`,
          [born.map(({ id }) => id)],
        );
        return await made.claim();
      },
    };
    return made;
  };

  return {
    ...{ db, storeUrl: opened.runtimeUrl, deps, observed, logs, changed, woken, unclaimed, sessions, onStore },
    target: makeTarget,
    standing: async ({ id }) => {
      const [row] = await onStore<Stands & pg.QueryResultRow>(
        `SELECT g.state, g.ended_by, r.state AS revocation, r.attempts, r.last_error, r.evidence, r.claimed_by, r.claim_number,
           extract(epoch FROM r.try_at - clock_timestamp())::float8 AS seconds_to_try,
           extract(epoch FROM r.claimed_until - clock_timestamp())::float8 AS seconds_held, r.overdue_at IS NOT NULL AS overdue
         FROM mayfly.grants g JOIN mayfly.revocations r ON r.grant_id = g.id WHERE g.id = $1`,
        [id],
      );
      if (row === undefined) throw new Error(`no grant ${id}`);
      return row;
    },
    told: async (of) =>
      await onStore<Told & pg.QueryResultRow>(
        `SELECT type, correlation_id, cause, payload FROM mayfly.audit_events
         WHERE ${typeof of === 'string' ? 'grant_id IS NULL AND resource' : 'grant_id'} = $1 ORDER BY ts, id`,
        [typeof of === 'string' ? of : of.id],
      ),
    stop: async () => {
      await db.close();
      await owner.end();
      await opened.close();
    },
  };
}

/** The same session with no more than each must have, and what is given. */
export function bareSession(session: Session, more: Partial<Session> = {}): Session {
  return {
    guarantee: (...args) => session.guarantee(...args),
    reserve: (...args) => session.reserve(...args),
    mint: (...args) => session.mint(...args),
    fence: (...args) => session.fence(...args),
    verify: (...args) => session.verify(...args),
    reap: (...args) => session.reap(...args),
    check: (...args) => session.check(...args),
    close: () => session.close(),
    ...more,
  };
}

/** @throws Error unless there is one. */
export function only<T>([one]: readonly T[]): T {
  if (one === undefined) throw new Error('there is none');
  return one;
}

/** A number of seconds that is known only roughly. */
export function seconds(from: number, to: number): { asymmetricMatch(value: unknown): boolean } {
  return { asymmetricMatch: (value) => typeof value === 'number' && value >= from && value <= to };
}

function definitionOf(name: string): TargetDefinition {
  return {
    ...{ name, provider: 'synthetic', connection: { system: name }, environment: 'test', owner: 'team' },
    ...{ sensitivity: 'internal', labels: {} },
  };
}

async function mint(session: Session, grantId: string, handle: string, deadline: Date): Promise<Facts> {
  const minted = await session.mint(
    { grantId, handle, facts: null, deadline },
    { grantId, entitlement: 'e', config: {}, params: {}, deadline, notAfter: deadline, mintBy: deadline },
    AbortSignal.timeout(10_000),
  );
  return minted.facts;
}

const BEAR_TASK = `INSERT INTO mayfly.tasks (id, root_id, depth, max_depth, issuer, external_id, jti, request_digest, txn, state, purpose,
    subject, workload_source, workload_subject, ceiling, opened_revision, created_at, not_after)
  VALUES ($1::uuid, $1::uuid, 0, 0, 'i', $1::text, $1::text, '', 'txn-1', 'active', 'p', 'user:dana', 'dev', 'agent', '{}', 1, clock_timestamp(), $2)`;

const BEAR = `WITH n AS (SELECT * FROM jsonb_to_recordset($6::jsonb) AS n(id uuid, handle text, revocation uuid, facts jsonb)),
  decisions AS (
    INSERT INTO mayfly.decisions (id, task_id, action, resource, permitted, policies, errors, revision, inputs, decided_at)
    SELECT id, $1::uuid, 'issue', 'e', true, '{}', '{}', 1, '{}', clock_timestamp() FROM n),
  grants AS (
    INSERT INTO mayfly.grants (id, task_id, root_id, entitlement, target, params, sink, state, handle, facts, guarantee, deadline, mint_by,
      decision_id, decided_revision, created_at)
    SELECT id, $1::uuid, $1::uuid, $3 || '/use', $3, '{}', false, 'minting', handle, nullif(facts, 'null'), $4::jsonb, $2::timestamptz,
      clock_timestamp(), id, $5::bigint, clock_timestamp() FROM n)
  INSERT INTO mayfly.revocations (id, grant_id, target, state, due_at, try_at)
  SELECT revocation, id, $3, 'scheduled', $2::timestamptz, $2::timestamptz FROM n`;
