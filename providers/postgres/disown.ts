import { performance } from 'node:perf_hooks';
import { ProviderError, type Ref } from '../../src/provider.ts';
import type { Connection } from './connection.ts';
import { classify } from './errors.ts';
import { oidOf, strayed } from './handle.ts';
import { preparedSays } from './prepared.ts';
import type { Target } from './target.ts';

/** Objects and large objects per transaction. Each takes locks (a table about five), and there are some 6 400 of them. */
const objectsAtOnce = 100;
const blobsAtOnce = 500;
/** Milliseconds to wait for a lock. */
const lockWait = 200;
/** Milliseconds for one role, so that an agent with a million things holds up its neighbours for so long at most. */
const longest = 5000;

interface Holdings {
  readonly oid: number | null;
  readonly keep: boolean;
  /** The other databases in which the role holds something. */
  readonly databases: readonly string[];
}
interface Answer {
  readonly outcome: string;
  readonly gone: number;
  readonly next: number;
  readonly failed: readonly string[];
}
type Step = 'blobs' | 'objects' | 'kept' | 'rest';
type Ask = (step: Step, from: number) => Promise<Answer>;

/**
 * Removes what a fenced role owns or was granted, in the target's database and in every other one that is listed, in
 * bounded transactions: progress stays, whatever happens later. Tables and sequences go to the quarantine role where
 * the entitlement keeps them.
 * @returns Why something stayed, or null. What lies in a database that is not listed is left to `drop` to report.
 */
export async function disown(target: Target, ref: Ref, signal: AbortSignal): Promise<ProviderError | null> {
  const { installation } = target.context;
  const until = performance.now() + longest;
  try {
    return await target.cleaning.useTwice(signal, async ({ connection, status }) => {
      const stray = strayed(ref, status);
      if (stray !== null) {
        return stray;
      }
      const [row] = await connection.query<{ holdings: Holdings }>(
        'looking for what the role owns',
        'SELECT mayfly.holdings($1, $2, $3, $4) AS holdings',
        [installation, ref.handle, oidOf(ref.facts), templateOf(ref)],
        signal,
      );
      const oid = row?.holdings.oid ?? null;
      if (row === undefined || oid === null) {
        return null;
      }
      const { keep, databases } = row.holdings;
      const clean = async (where: string, on: Connection): Promise<void> => {
        const ask: Ask = async (step, from) => {
          const [answered] = await on.query<{ answer: Answer }>(
            `removing what the role owns in ${where}`,
            'SELECT mayfly.disown($1, $2, $3, $4, $5, $6, $7, $8, $9) AS answer',
            [
              ...[installation, status.system_identifier, ref.handle, oid, step, keep, from],
              ...[step === 'blobs' ? blobsAtOnce : objectsAtOnce, lockWait],
            ],
            signal,
          );
          if (performance.now() > until && answered?.answer.outcome === 'more') {
            throw new ProviderError(
              'retryable',
              `dropping: the role owns much in ${where}; some of it is gone, more is left`,
            );
          }
          return answered?.answer ?? { outcome: 'done', gone: 0, next: 0, failed: ['the target gave no answer'] };
        };
        await cleanOne(where, keep, ask);
      };
      await clean(target.config.database, connection);
      for (const database of databases.filter((name) => target.config.databases.includes(name))) {
        await target.elsewhere(database, signal, (on) => clean(database, on));
      }
      return null;
    });
  } catch (error) {
    const failed = classify(error, 'dropping');
    const prepared = await preparedSays(target, oidOf(ref.facts), signal).catch(() => '');
    return prepared === '' ? failed : new ProviderError(failed.errorClass, `${failed.message}${prepared}`);
  }
}

/** One database: large objects; then everything else, pass by pass, since one thing may need another; then rights. */
async function cleanOne(where: string, keep: boolean, ask: Ask): Promise<void> {
  const pass = async (step: Step): Promise<{ readonly gone: number; readonly failed: readonly string[] }> => {
    const failed: string[] = [];
    let gone = 0;
    for (let from = 0; ; ) {
      const answer = await ask(step, from);
      if (answer.outcome !== 'more' && answer.outcome !== 'done') {
        const says = answer.outcome === 'live' ? 'can log in there' : 'is not known there as one of ours';
        throw new ProviderError('misconfigured', `dropping: the role owns things in ${where} and ${says}`);
      }
      gone += answer.gone;
      failed.push(...answer.failed);
      if (answer.outcome === 'done') {
        return { gone, failed };
      }
      from = answer.next;
    }
  };
  const whole = async (step: Step): Promise<void> => {
    for (;;) {
      const { gone, failed } = await pass(step);
      if (failed.length === 0) {
        return;
      }
      if (gone === 0 || step !== 'objects') {
        const says = failed.slice(0, 3).map(printable).join('; ');
        throw new ProviderError('retryable', `dropping: in ${where}, ${says}${failed.length > 3 ? '; and more' : ''}`);
      }
    }
  };
  await whole('blobs');
  await whole('objects');
  if (keep) {
    await whole('kept');
  }
  await whole('rest');
}

/** Names that an agent chose, for a person to read. */
export function printable(text: string): string {
  return text.replaceAll(/[^\x20-\x7e\u00a0-\uffff]+/g, ' ').slice(0, 300);
}

function templateOf(ref: Ref): string | null {
  const template = ref.facts?.['template'];
  return typeof template === 'string' ? template : null;
}
