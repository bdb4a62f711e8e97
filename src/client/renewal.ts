import type { MintedBody, Renewed } from './bodies.ts';
import type { MayflyClient } from './index.ts';
import { ProblemError } from './problem.ts';

/** Renewed when this much of its life is over. */
const RENEW_AFTER = 0.6;
const LONGEST_PAUSE_SECONDS = 5;
const SHORTEST_PAUSE_SECONDS = 0.2;

export interface RenewalOptions {
  readonly onRenewed?: (renewed: Renewed) => void;
  /** Tried again; told once until it succeeds. */
  readonly onDelayed?: (error: unknown) => void;
  /** Not tried again: it ends at this deadline. */
  readonly onLost?: (error: unknown, deadline: string) => void;
}

/**
 * Renews a grant while policy allows, until it is stopped. It keeps no process alive.
 *
 * Lives are counted from the moment of the answer, on our own steady clock: this machine's time of day may not be the broker's.
 */
export class Renewal {
  readonly #client: MayflyClient;
  readonly #options: RenewalOptions;
  readonly #id: string;
  /** Asked for again each time, in whole seconds. */
  readonly #life: number;
  #deadline: string;
  #endsAt: number;
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;
  #complained = false;

  constructor(client: MayflyClient, grant: MintedBody, options: RenewalOptions = {}) {
    this.#client = client;
    this.#options = options;
    this.#id = grant.id;
    this.#deadline = grant.deadline;
    const seconds = (Date.parse(grant.deadline) - Date.parse(grant.created_at)) / 1000;
    this.#life = Math.max(1, Math.round(seconds));
    this.#endsAt = seconds + now();
    if (grant.per_call !== true) this.#plan(seconds * RENEW_AFTER);
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  #plan(seconds: number): void {
    if (!this.#stopped) this.#timer = setTimeout(() => void this.#renew(), seconds * 1000).unref();
  }

  async #renew(): Promise<void> {
    try {
      const renewed = await this.#client.renew(this.#id, this.#life);
      if (this.#stopped) return;
      this.#options.onRenewed?.(renewed);
      const { grant, cut } = renewed;
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
      this.#options.onLost?.(error, this.#deadline);
      return;
    }
    if (!this.#complained) this.#options.onDelayed?.(error);
    this.#complained = true;
    this.#plan(Math.min(LONGEST_PAUSE_SECONDS, Math.max(SHORTEST_PAUSE_SECONDS, left / 5)));
  }
}

function now(): number {
  return performance.now() / 1000;
}
