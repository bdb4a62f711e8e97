import type { TaskId } from '../domain/ids.ts';
import type { Transaction } from './database.ts';

/** A delegation or an event, whose signature and claims hold. */
export interface SignedWord {
  readonly iss: string;
  readonly jti: string;
  /** SHA-256 of the decoded payload. */
  readonly payloadDigest: Buffer;
}

/** One that counts for a task, and who brought it. */
export interface TakenWord extends SignedWord {
  /** What comes of it, or what it is about. */
  readonly taskId: TaskId;
  readonly carrier: string;
}

/** The use of an `(iss, jti)` before this one. */
export interface EarlierWord {
  readonly taskId: TaskId;
  /** The same word, brought by the same carrier. */
  readonly same: boolean;
}

/** Counts a word, once. Answers its use before, if there was one; waits for one that is under way. */
export async function takeWord(tx: Transaction, word: TakenWord): Promise<EarlierWord | undefined> {
  const { iss, jti, payloadDigest, taskId, carrier } = word;
  const taken = await tx.query({
    name: 'take_word',
    text: `INSERT INTO mayfly.signed_words (iss, jti, payload_digest, task_id, carrier, taken_at) VALUES ($1, $2, $3, $4, $5, $6)
      ON CONFLICT DO NOTHING RETURNING 1`,
    values: [iss, jti, payloadDigest, taskId, carrier, tx.now],
  });
  if (taken.length > 0) return undefined;
  const rows = await tx.query<{ task_id: TaskId; same: boolean }>({
    name: 'find_word',
    text: 'SELECT task_id, payload_digest = $3 AND carrier = $4 AS same FROM mayfly.signed_words WHERE iss = $1 AND jti = $2',
    values: [iss, jti, payloadDigest, carrier],
  });
  const [row] = rows;
  if (row === undefined) throw new Error('A word that was taken is gone.');
  return { taskId: row.task_id, same: row.same };
}
