import type { AuditEvent } from '../domain/audit-event.ts';
import type { Facts, Grant, GrantState } from '../domain/grant.ts';
import type { GrantId, TaskId } from '../domain/ids.ts';
import type { Revocation } from '../domain/revocation.ts';
import { auditRows } from './audit-rows.ts';
import { type Queryable, storeError, type Transaction } from './database.ts';
import { birthLockKeys } from './locks.ts';
import type { NewDecision } from './decisions.ts';
import type { TaskState } from './tasks.ts';

export interface Intent {
  readonly grant: Grant;
  readonly revocation: Revocation;
  readonly sink: boolean;
  readonly mintBy: Date;
  readonly decision: NewDecision;
  readonly limits: readonly IntentLimit[];
  readonly idempotency: { readonly key: string; readonly bodyDigest: Buffer } | null;
  readonly events: readonly AuditEvent[];
}

/** At most so many grants not yet contained, of whatever tree. */
export interface IntentLimit {
  readonly name: string;
  readonly per: 'workload' | 'target';
  /** Entitlements that count; null: all. */
  readonly of: readonly string[] | null;
  readonly grants: number;
}

export type IntentOutcome =
  | `limited:${string}`
  | 'done'
  | 'changed'
  | 'key_used'
  | 'busy'
  | 'killed'
  | 'paused'
  | 'failed_over';

/**
 * Intents before mints: decision, grant, obligation, key and evidence of each in one transaction, under the locks of a birth.
 * `changed`: what the decision was made on is no longer so; `busy`: it may not wait, and the tree is held alone;
 * `killed`: an operator has stopped it; `paused`: an operator has paused the target; `failed_over`: it is not reconciled since the store failed over. Only `done` has written anything. One that fails answers its SQLSTATE.
 */
export async function insertIntents(
  db: Queryable,
  intents: readonly { readonly intent: Intent; readonly state: TaskState }[],
  wait: boolean,
): Promise<readonly string[]> {
  const rows = await db.query<{ outcome: string }>({
    name: 'intend_all',
    text: 'SELECT outcome FROM mayfly.intend_all($1, $2)',
    values: [intentItems(intents), wait],
  });
  return rows.map(({ outcome }) => outcome);
}

const LIMITED = 'limited:';

/** The limit that left no room, if one did. */
export function limitOf(outcome: string): string | undefined {
  return outcome.startsWith(LIMITED) ? outcome.slice(LIMITED.length) : undefined;
}

/** The argument of `mayfly.intend_all`. */
export function intentItems(intents: readonly { readonly intent: Intent; readonly state: TaskState }[]): string {
  return `[${intents.map(({ intent, state }) => intentItem(intent, state)).join(',')}]`;
}

/** @throws MayflyError `store_unavailable` for an outcome that is an SQLSTATE. */
export function readOutcome<O extends string>(outcome: string, expected: readonly O[]): O {
  const found = expected.find((name) => name === outcome);
  if (found === undefined)
    throw storeError(Object.assign(new Error(`The store refused: ${outcome}.`), { code: outcome }));
  return found;
}

function intentItem(intent: Intent, { fingerprint, now }: TaskState): string {
  const { grant, revocation, decision, idempotency } = intent;
  const item = {
    locks: birthLockKeys(grant.rootId),
    seen: fingerprint,
    decision: {
      id: decision.id,
      task_id: decision.taskId,
      action: decision.action,
      resource: decision.resource,
      permitted: decision.permitted,
      policies: decision.policies,
      errors: decision.errors,
      max_ttl_seconds: decision.maxTtlSeconds,
      revision: decision.revision,
      inputs: decision.inputs,
      decided_at: now,
    },
    grant: {
      id: grant.id,
      task_id: grant.taskId,
      root_id: grant.rootId,
      entitlement: grant.entitlement,
      target: grant.target,
      params: grant.params,
      sink: intent.sink,
      state: 'minting',
      handle: grant.handle,
      guarantee: grant.guarantee,
      deadline: grant.deadline,
      per_call: grant.perCall,
      mint_by: intent.mintBy,
      decision_id: grant.decisionId,
      decided_revision: grant.decidedRevision,
      created_at: grant.createdAt,
      limits: intent.limits,
    },
    revocation: {
      id: revocation.id,
      grant_id: grant.id,
      target: grant.target,
      state: 'scheduled',
      due_at: revocation.dueAt,
      try_at: revocation.tryAt,
      attempts: 0,
    },
    key: idempotency && {
      task_id: grant.taskId,
      key: idempotency.key,
      body_digest: `\\x${idempotency.bodyDigest.toString('hex')}`,
      grant_id: grant.id,
    },
    events: auditRows(intent.events, now),
  };
  return JSON.stringify(item);
}

export interface Activation {
  readonly grant: Grant;
  readonly facts: Facts;
  readonly event: AuditEvent;
  /** The store's clock, for the event. */
  readonly now: Date;
}

/**
 * `minting → active`, only while the task is alive; the obligation moves to the grant's deadline. `ended` when the grant was
 * ended meanwhile: then only the facts are kept, for whoever ends it.
 */
export async function activateGrants(
  db: Queryable,
  activations: readonly Activation[],
  wait: boolean,
): Promise<readonly string[]> {
  const rows = await db.query<{ outcome: string }>({
    name: 'activate_all',
    text: 'SELECT outcome FROM mayfly.activate_all($1, $2)',
    values: [activationItems(activations), wait],
  });
  return rows.map(({ outcome }) => outcome);
}

/** The argument of `mayfly.activate_all`. */
export function activationItems(activations: readonly Activation[]): string {
  const items = activations.map(({ grant, facts, event, now }) => ({
    locks: birthLockKeys(grant.rootId),
    grant: grant.id,
    facts,
    events: auditRows([event], now),
  }));
  return JSON.stringify(items);
}

/** What an Idempotency-Key of a task stands for. */
export interface UsedKey {
  readonly grantId: GrantId;
  readonly state: GrantState;
  readonly sameBody: boolean;
}

/** Locks the key until the end of the transaction. */
export async function findUsedKey(
  tx: Transaction,
  taskId: TaskId,
  key: string,
  bodyDigest: Buffer,
): Promise<UsedKey | undefined> {
  const rows = await tx.query<{ grant_id: GrantId; state: GrantState; same_body: boolean }>({
    name: 'find_used_key',
    text: `SELECT k.grant_id, g.state, k.body_digest = $3 AS same_body FROM mayfly.idempotency_keys k
      JOIN mayfly.grants g ON g.id = k.grant_id WHERE k.task_id = $1 AND k.key = $2 FOR UPDATE OF k`,
    values: [taskId, key, bodyDigest],
  });
  const row = rows[0];
  return row && { grantId: row.grant_id, state: row.state, sameBody: row.same_body };
}

/** Takes a key that was not used yet. False: it was. */
export async function takeKey(
  tx: Transaction,
  taskId: TaskId,
  grantId: GrantId,
  { key, bodyDigest }: NonNullable<Intent['idempotency']>,
): Promise<boolean> {
  const rows = await tx.query({
    text: `INSERT INTO mayfly.idempotency_keys (task_id, key, body_digest, grant_id) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING RETURNING key`,
    values: [taskId, key, bodyDigest, grantId],
  });
  return rows.length === 1;
}

/** Lets a used key stand for the grant that replaces the first one. */
export async function moveUsedKey(tx: Transaction, taskId: TaskId, key: string, grantId: GrantId): Promise<void> {
  await tx.query({
    name: 'move_used_key',
    text: 'UPDATE mayfly.idempotency_keys SET grant_id = $3 WHERE task_id = $1 AND key = $2',
    values: [taskId, key, grantId],
  });
}
