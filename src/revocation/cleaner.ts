import type { RevocationId } from '../domain/ids.ts';
import type { ErrorClass } from '../domain/revocation.ts';
import type { Session } from '../provider.ts';
import { type Claim, claimClock, type Claimed, markClean } from '../store/claims.ts';
import type { RevocationDeps } from './deps.ts';
import { openSession } from './end-batch.ts';
import { engineEvent } from './evidence.ts';
import { recordFailures } from './failures.ts';
import { Heartbeat } from './heartbeat.ts';
import { callSignal, classOf, look, toRef } from './looking.ts';

const BATCH = 100;

/**
 * Cleans what is contained on one target: reap → verify → clean. Behind the fencing, never in its way: what comes together while
 * a batch is at work is cleaned together after it.
 */
export class Cleaner {
  readonly #deps: RevocationDeps;
  readonly #target: string;
  #waiting: Claimed[] = [];
  #atWork: readonly Claimed[] = [];
  #running: Promise<void> | undefined;
  #clock: () => Date = () => new Date();

  constructor(deps: RevocationDeps, target: string) {
    this.#deps = deps;
    this.#target = target;
  }

  add(claim: Claim, items: readonly Claimed[]): void {
    if (items.length === 0) return;
    this.#clock = () => claimClock(claim);
    this.#waiting.push(...items);
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
    });
  }

  /** Lets what was added be cleaned. */
  async idle(): Promise<void> {
    await this.#running;
  }

  async #run(): Promise<void> {
    const heartbeat = new Heartbeat(this.#deps, () => [...this.#atWork, ...this.#waiting]);
    try {
      while (this.#waiting.length > 0) {
        this.#atWork = this.#waiting.splice(0, BATCH);
        await this.#clean(this.#atWork, heartbeat.signal);
      }
    } catch (error) {
      // The store does not answer: what is contained stays so, and is claimed again for cleaning.
      this.#deps.log({ target: this.#target, error }, 'what was cleaned can not be recorded now');
      this.#waiting = [];
    } finally {
      this.#atWork = [];
      heartbeat.stop();
    }
  }

  async #clean(items: readonly Claimed[], signal: AbortSignal): Promise<void> {
    const failures = new Map<RevocationId, ErrorClass>();
    try {
      const session = await openSession(this.#deps, this.#target, items);
      const reaped = await reap(session, items, failures, signal);
      const seen = await look(session, reaped, failures, signal, 'clean');
      const now = this.#clock();
      const done = reaped.flatMap((item) => {
        const evidence = seen.get(item.id);
        if (evidence === undefined) return [];
        return [
          { item, evidence, now, event: engineEvent('revocation.clean', this.#deps, this.#target, item, { evidence }) },
        ];
      });
      if (done.length > 0) await markClean(this.#deps.db, done);
      this.#deps.db.announce(done.map(({ item }) => item.taskId));
    } catch (error) {
      this.#deps.log({ target: this.#target, error }, 'cleaning failed; it is tried again');
      for (const item of items) failures.set(item.id, classOf(error));
    }
    await recordFailures(this.#deps, this.#target, items, failures, this.#clock);
  }
}

async function reap(
  session: Session,
  items: readonly Claimed[],
  failures: Map<RevocationId, ErrorClass>,
  signal: AbortSignal,
): Promise<Claimed[]> {
  const outcomes = await session.reap(items.map(toRef), callSignal(signal));
  return items.filter((item, index) => {
    const outcome = outcomes[index];
    if (outcome?.ok === true && outcome.notBefore === undefined) return true;
    failures.set(item.id, outcome?.ok === false ? outcome.error.errorClass : 'retryable');
    return false;
  });
}
