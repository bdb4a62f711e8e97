import { ProviderError, within } from '../../src/provider.ts';
import { abortable } from './abort.ts';
import type { BrokerConnection } from './connection.ts';
import { ConnectionLost, givenUp } from './errors.ts';

/** How long one may take to open, in milliseconds. */
const openTimeout = 5000;
/**
 * What was idle for so long may be gone without a word, as behind a firewall that forgot it: it is asked first, and answers within
 * the other, all in milliseconds. Else a fence would hang on each of them until its own time is over.
 */
const trustedFor = 10_000;
const answerTimeout = 2000;

/**
 * Connections of one kind of work, kept open once they are: the standing one of the revoking pool is there before a
 * flood of logins can keep it out.
 */
export class ConnectionPool {
  readonly #open: (signal: AbortSignal) => Promise<BrokerConnection>;
  /** Each with the `performance.now()` since when it has been. */
  readonly #idle: { readonly free: BrokerConnection; readonly since: number }[] = [];
  readonly #used = new Set<BrokerConnection>();
  readonly #waiting: (() => void)[] = [];
  readonly #closing = new AbortController();
  #free: number;

  /** @param open Gets a signal that also fires when opening takes too long. */
  constructor(max: number, open: (signal: AbortSignal) => Promise<BrokerConnection>) {
    this.#free = max;
    this.#open = open;
  }

  /** Runs `work` on a connection of its own; waits for one if all are in use. @throws ProviderError */
  async use<T>(signal: AbortSignal, work: (connection: BrokerConnection) => Promise<T>): Promise<T> {
    await this.#slot(signal);
    try {
      return await this.#with((await this.#takeIdle(signal)) ?? (await this.#opened(signal)), work);
    } finally {
      this.#release();
    }
  }

  /**
   * As `use`, for work that may be done twice: when an idle connection turns out to be dead, it is done again on a
   * new one.
   */
  async useTwice<T>(signal: AbortSignal, work: (connection: BrokerConnection) => Promise<T>): Promise<T> {
    await this.#slot(signal);
    try {
      const idle = await this.#takeIdle(signal);
      if (idle !== undefined) {
        try {
          return await this.#with(idle, work);
        } catch (error) {
          if (!(error instanceof ConnectionLost) || signal.aborted) {
            throw error;
          }
        }
      }
      return await this.#with(await this.#opened(signal), work);
    } finally {
      this.#release();
    }
  }

  /** Sees to it that at least one connection stands open. */
  async warm(signal: AbortSignal): Promise<void> {
    if (this.#idle.length + this.#used.size === 0) {
      await this.use(signal, async () => {});
    }
  }

  /** Ends all of them, also those in use and those being opened. */
  async close(): Promise<void> {
    this.#closing.abort();
    for (const wake of this.#waiting.splice(0)) {
      wake();
    }
    for (const { connection } of this.#used) {
      connection.destroy();
    }
    await Promise.all(this.#idle.splice(0).map(({ free }) => free.connection.close()));
  }

  async #with<T>(used: BrokerConnection, work: (connection: BrokerConnection) => Promise<T>): Promise<T> {
    this.#used.add(used);
    try {
      return await work(used);
    } finally {
      this.#used.delete(used);
      if (this.#closing.signal.aborted) {
        await used.connection.close();
      } else if (used.connection.alive) {
        this.#idle.push({ free: used, since: performance.now() });
      }
    }
  }

  async #opened(signal: AbortSignal): Promise<BrokerConnection> {
    const opened = await this.#open(within(openTimeout, signal, this.#closing.signal));
    if (this.#closing.signal.aborted) {
      await opened.connection.close();
      throw new ProviderError('retryable', 'the target was closed meanwhile');
    }
    return opened;
  }

  async #takeIdle(signal: AbortSignal): Promise<BrokerConnection | undefined> {
    for (let found = this.#idle.pop(); found !== undefined && !signal.aborted; found = this.#idle.pop()) {
      const { free, since } = found;
      if (!free.connection.alive) continue;
      if (performance.now() - since < trustedFor || (await this.#answers(free, signal))) return free;
    }
    return undefined;
  }

  /** One that does not is gone. */
  async #answers(free: BrokerConnection, signal: AbortSignal): Promise<boolean> {
    this.#used.add(free);
    try {
      await free.connection.query('asking whether it is there', 'SELECT', [], within(answerTimeout, signal));
      return true;
    } catch {
      free.connection.destroy();
      return false;
    } finally {
      this.#used.delete(free);
    }
  }

  async #slot(signal: AbortSignal): Promise<void> {
    const doing = 'waiting for a connection';
    if (signal.aborted) {
      throw givenUp(doing);
    }
    if (this.#free > 0) {
      this.#free -= 1;
    } else if (!this.#closing.signal.aborted) {
      // The one who releases hands its slot over, so that nobody overtakes.
      let turn = (): void => {};
      const ours = new Promise<void>((resolve) => {
        turn = resolve;
        this.#waiting.push(turn);
      });
      const giveBack = (): void => {
        const place = this.#waiting.indexOf(turn);
        if (place >= 0) {
          this.#waiting.splice(place, 1);
        } else {
          this.#release();
        }
      };
      await abortable(ours, signal, giveBack, () => givenUp(doing));
    }
    if (this.#closing.signal.aborted) {
      throw new ProviderError('retryable', 'the target was closed');
    }
  }

  #release(): void {
    const next = this.#waiting.shift();
    if (next === undefined) {
      this.#free += 1;
    } else {
      next();
    }
  }
}
