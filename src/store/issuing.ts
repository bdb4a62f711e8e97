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

const OUTCOMES = ['done', 'changed', 'key_used', 'busy'] as const;
const ACTIVATED = ['done', 'ended', 'busy'] as const;

/** On the pool: asks of the same moment share statement and commit, and none waits there for a tree that is held alone. */
export function coalescedIssuing(db: Queryable): Issuing {
  const alone = issuingWithin(db);
  const reads = new Coalescer((ids: readonly TaskId[]) => readTaskStates(db, ids));
  const intents = new Coalescer((items: readonly { intent: Intent; state: TaskState }[]) =>
    insertIntents(db, items, false),
  );
  const activations = new Coalescer((items: readonly Activation[]) => activateGrants(db, items, false));
  return {
    readTask: (id) => reads.call(id),
    intend: async (intent, state) => {
      // Two batches that took keys in crossing order would wait for each other.
      if (intent.idempotency !== null) return await alone.intend(intent, state);
      const outcome = readOutcome(await intents.call({ intent, state }), OUTCOMES);
      return outcome === 'busy' ? await alone.intend(intent, state) : outcome;
    },
    activate: async (activation) => {
      const outcome = readOutcome(await activations.call(activation), ACTIVATED);
      return outcome === 'busy' ? await alone.activate(activation) : outcome;
    },
  };
}

/** Within a transaction, or one at a time: waits for whoever holds the tree. */
export function issuingWithin(db: Queryable): Issuing {
  return {
    readTask: async (id) => (await readTaskStates(db, [id]))[0] ?? null,
    intend: async (intent, state) =>
      readOutcome((await insertIntents(db, [{ intent, state }], true))[0] ?? '', OUTCOMES),
    activate: async (activation) => {
      const outcome = readOutcome((await activateGrants(db, [activation], true))[0] ?? '', ACTIVATED);
      return outcome === 'done' ? 'done' : 'ended';
    },
  };
}
