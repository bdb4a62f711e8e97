import type { TaskId } from '../domain/ids.ts';
import { Coalescer } from './coalescer.ts';
import type { Queryable } from './database.ts';
import {
  type Activation,
  activateGrants,
  insertIntents,
  type Intent,
  type IntentOutcome,
  readOutcome,
} from './intents.ts';
import { readTaskStates, type TaskState } from './tasks.ts';

/** The three statements of the issuing path. */
export interface Issuing {
  readTask(id: TaskId): Promise<TaskState | null>;
  intend(intent: Intent, state: TaskState): Promise<IntentOutcome>;
  activate(activation: Activation): Promise<'done' | 'ended'>;
}

const OUTCOMES = ['done', 'changed', 'key_used'] as const;
const ACTIVATED = ['done', 'ended'] as const;

/** On the pool: asks of the same moment share statement and commit. */
export function coalescedIssuing(db: Queryable): Issuing {
  const reads = new Coalescer((ids: readonly TaskId[]) => readTaskStates(db, ids));
  const intents = new Coalescer((items: readonly { intent: Intent; state: TaskState }[]) => insertIntents(db, items));
  const activations = new Coalescer((items: readonly Activation[]) => activateGrants(db, items));
  return {
    readTask: (id) => reads.call(id),
    intend: async (intent, state) => readOutcome(await intents.call({ intent, state }), OUTCOMES),
    activate: async (activation) => readOutcome(await activations.call(activation), ACTIVATED),
  };
}

/** Within a transaction. */
export function issuingWithin(db: Queryable): Issuing {
  return {
    readTask: async (id) => (await readTaskStates(db, [id]))[0] ?? null,
    intend: async (intent, state) => readOutcome((await insertIntents(db, [{ intent, state }]))[0] ?? '', OUTCOMES),
    activate: async (activation) => readOutcome((await activateGrants(db, [activation]))[0] ?? '', ACTIVATED),
  };
}
