import type { TaskId } from '../domain/ids.ts';
import { Coalescer } from './coalescer.ts';
import type { Queryable } from './database.ts';
import {
  type Activation,
  activateGrants,
  activationItems,
  insertIntents,
  type Intent,
  type IntentOutcome,
  intentItems,
  limitOf,
  readOutcome,
} from './intents.ts';
import { readTaskStates, STATE_COLUMNS, type StateRow, type TaskState, toState } from './tasks.ts';

/** The three steps of the issuing path in the store. */
export interface Issuing {
  readTask(id: TaskId): Promise<TaskState | null>;
  intend(intent: Intent, state: TaskState): Promise<IntentOutcome>;
  /** `undecided`: it is to be decided again first. */
  activate(activation: Activation): Promise<'done' | 'ended' | 'undecided'>;
}

const OUTCOMES = ['done', 'changed', 'key_used', 'busy', 'killed', 'paused', 'failed_over'] as const;
const ACTIVATED = ['done', 'ended', 'busy', 'undecided'] as const;
/** SQLSTATE of the trigger `grant_undecided`. */
const UNDECIDED = 'MF001';

function readIntended(outcome: string): IntentOutcome {
  return limitOf(outcome) === undefined ? readOutcome(outcome, OUTCOMES) : `limited:${limitOf(outcome)}`;
}

function readActivated(outcome: string): (typeof ACTIVATED)[number] {
  return readOutcome(outcome === UNDECIDED ? 'undecided' : outcome, ACTIVATED);
}

/** One step of one ask. */
type Step =
  | { readonly kind: 'read'; readonly id: TaskId }
  | { readonly kind: 'intend'; readonly intent: Intent; readonly state: TaskState }
  | { readonly kind: 'activate'; readonly activation: Activation };
type Answer = TaskState | string | null;

/** On the pool: steps of the same moment share statement and commit, and none waits there for a tree that is held alone. */
export function coalescedIssuing(db: Queryable): Issuing {
  const alone = issuingWithin(db);
  const steps = new Coalescer((batch: readonly Step[]) => takeSteps(db, batch));
  const outcomeOf = async (step: Step): Promise<string> => {
    const answer = await steps.call(step);
    return typeof answer === 'string' ? answer : '';
  };
  return {
    readTask: async (id) => {
      const answer = await steps.call({ kind: 'read', id });
      return typeof answer === 'string' ? null : answer;
    },
    intend: async (intent, state) => {
      // Two batches that took keys in crossing order would wait for each other.
      if (intent.idempotency !== null) return await alone.intend(intent, state);
      const outcome = readIntended(await outcomeOf({ kind: 'intend', intent, state }));
      return outcome === 'busy' ? await alone.intend(intent, state) : outcome;
    },
    activate: async (activation) => {
      const outcome = readActivated(await outcomeOf({ kind: 'activate', activation }));
      return outcome === 'busy' ? await alone.activate(activation) : outcome;
    },
  };
}

/** Within a transaction, or one at a time: waits for whoever holds the tree. */
export function issuingWithin(db: Queryable): Issuing {
  return {
    readTask: async (id) => (await readTaskStates(db, [id]))[0] ?? null,
    intend: async (intent, state) => readIntended((await insertIntents(db, [{ intent, state }], true))[0] ?? ''),
    activate: async (activation) => {
      const outcome = readActivated((await activateGrants(db, [activation], true))[0] ?? '');
      return outcome === 'busy' ? 'ended' : outcome;
    },
  };
}

/** One statement for all of them. What it reads is as before what it writes: a decision on that is then found to have `changed`. */
async function takeSteps(db: Queryable, asked: readonly Step[]): Promise<Answer[]> {
  // Activations lock grants in the order in which an end of several does.
  const batch = asked.toSorted((a, b) => compare(grantOf(a), grantOf(b)));
  const reads = batch.flatMap((step) => (step.kind === 'read' ? [step.id] : []));
  const intents = batch.flatMap((step) => (step.kind === 'intend' ? [step] : []));
  const activations = batch.flatMap((step) => (step.kind === 'activate' ? [step.activation] : []));
  const answers =
    reads.length === batch.length
      ? { read: await readTaskStates(db, reads), intend: [], activate: [] }
      : await takeMixed(db, reads, intents, activations);
  const next = { read: answers.read.values(), intend: answers.intend.values(), activate: answers.activate.values() };
  const answered = new Map(batch.map((step) => [step, next[step.kind].next().value ?? null]));
  return asked.map((step) => answered.get(step) ?? null);
}

function grantOf(step: Step): string {
  return step.kind === 'activate' ? step.activation.grant.id : '';
}

function compare(a: string, b: string): number {
  return a < b ? -1 : Number(a > b);
}

async function takeMixed(
  db: Queryable,
  reads: readonly TaskId[],
  intents: readonly { readonly intent: Intent; readonly state: TaskState }[],
  activations: readonly Activation[],
): Promise<{ read: (TaskState | null)[]; intend: string[]; activate: string[] }> {
  const rows = await db.query<StateRow & { step: Step['kind']; outcome: string | null }>({
    name: 'take_steps',
    text: `SELECT s.step, s.outcome, ${STATE_COLUMNS} FROM (
        SELECT 'read' AS step, n, NULL AS outcome, id FROM unnest($1::uuid[]) WITH ORDINALITY AS read (id, n)
        UNION ALL SELECT 'intend', n, outcome, NULL FROM mayfly.intend_all($2, false) WITH ORDINALITY AS intended (outcome, n)
        UNION ALL SELECT 'activate', n, outcome, NULL FROM mayfly.activate_all($3, false) WITH ORDINALITY AS activated (outcome, n)
      ) s LEFT JOIN LATERAL (SELECT * FROM mayfly.task_states t WHERE t.id = s.id OFFSET 0) t ON true ORDER BY s.n`,
    values: [reads, intentItems(intents), activationItems(activations)],
  });
  const of = (step: Step['kind']) => rows.filter((row) => row.step === step);
  return {
    read: of('read').map((row) => (row.id === null ? null : toState(row))),
    intend: of('intend').map(({ outcome }) => outcome ?? ''),
    activate: of('activate').map(({ outcome }) => outcome ?? ''),
  };
}
