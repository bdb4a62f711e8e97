import { type GrantBody, type MayflyClient, ProblemError } from '../../client/index.ts';
import { explain } from '../fail.ts';
import { note } from '../output.ts';

/** Renewed when this much of its life is over. */
const RENEW_AFTER = 0.6;
const LONGEST_PAUSE_SECONDS = 5;
const SHORTEST_PAUSE_SECONDS = 0.2;

/**
 * Renews a grant while the command lives and policy allows. When it may not go on, the command keeps what it has until its deadline.
 *
 * Lives are counted from the moment of the answer, on our own steady clock: this machine's time of day may not be the broker's.
 */
export class Renewal {
  readonly #client: MayflyClient;
  readonly #id: string;
  /** Asked for again each time, in whole seconds. */
  readonly #life: number;
  #deadline: string;
  #endsAt: number;
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;
  #complained = false;

  constructor(client: MayflyClient, grant: GrantBody) {
    this.#client = client;
    this.#id = grant.id;
    this.#deadline = grant.deadline;
    const seconds = (Date.parse(grant.deadline) - Date.parse(grant.created_at)) / 1000;
    this.#life = Math.max(1, Math.round(seconds));
    this.#endsAt = seconds + now();
    this.#plan(seconds * RENEW_AFTER);
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  #plan(seconds: number): void {
    if (!this.#stopped) this.#timer = setTimeout(() => void this.#renew(), seconds * 1000);
  }

  async #renew(): Promise<void> {
    try {
      const { grant, cut } = await this.#client.renew(this.#id, this.#life);
      // At the end of the task a renewal brings nothing more: then the deadline stands.
      if (grant.deadline <= this.#deadline) return;
      const seconds = cut?.granted_seconds ?? this.#life;
      this.#deadline = grant.deadline;
      this.#endsAt = seconds + now();
      this.#complained = false;
      this.#plan(seconds * RENEW_AFTER);
    } catch (error) {
      this.#failed(error);
    }
  }

  #failed(error: unknown): void {
    if (this.#stopped) return;
    const left = this.#endsAt - now();
    // A token may just be renewed by the platform, a broker restarted, a limit met; every other refusal stands.
    const passing = !(error instanceof ProblemError) || error.status >= 500 || [401, 429].includes(error.status);
    if (!passing || left <= 0) {
      note(`mayfly: the credential could not be renewed and ends at ${this.#deadline}. ${explain(error)}`);
      return;
    }
    if (!this.#complained) note(`mayfly: the credential could not be renewed; trying again. ${explain(error)}`);
    this.#complained = true;
    this.#plan(Math.min(LONGEST_PAUSE_SECONDS, Math.max(SHORTEST_PAUSE_SECONDS, left / 5)));
  }
}

function now(): number {
  return performance.now() / 1000;
}
