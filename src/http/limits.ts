import { RateLimiterMemory, RateLimiterRes } from 'rate-limiter-flexible';
import type { Config } from '../config.ts';
import { MayflyError } from '../domain/errors.ts';
import { workloadId } from '../domain/task.ts';
import type { Caller } from '../identity/types.ts';

const MINUTE = 60;
/** A poll lasts no longer than a minute, and most of them less. */
const POLL_RETRY_SECONDS = 5;
/** Of the longest answers a caller may ask for so many in a minute: each keeps the replica busy for 0.4 s (measured). */
const LONGEST_A_MINUTE = 10;

export type LimitSettings = Pick<
  Config,
  'calls_per_address' | 'calls_per_caller' | 'evaluations_per_caller' | 'signals_per_source' | 'polls_per_caller'
>;

/**
 * How much one party may ask of this replica. Counted in memory (0.3 µs a call, measured): a shared count would cost each call a
 * round trip, and what is to be kept off is a flood, not a number. What takes access back is not counted at all.
 */
export class Limits {
  readonly #addresses: RateLimiterMemory;
  readonly #callers: RateLimiterMemory;
  readonly #evaluations: RateLimiterMemory;
  readonly #signals: RateLimiterMemory;
  readonly #mostPolls: number;
  readonly #polls = new Map<string, number>();

  constructor(settings: LimitSettings) {
    this.#addresses = new RateLimiterMemory({ points: settings.calls_per_address, duration: MINUTE });
    this.#callers = new RateLimiterMemory({ points: settings.calls_per_caller, duration: MINUTE });
    this.#evaluations = new RateLimiterMemory({ points: settings.evaluations_per_caller, duration: MINUTE });
    this.#signals = new RateLimiterMemory({ points: settings.signals_per_source, duration: MINUTE });
    this.#mostPolls = settings.polls_per_caller;
  }

  /** Before anything is known of the caller. @throws MayflyError `too_many_calls` */
  async countAddress(address: string): Promise<void> {
    await count(this.#addresses, networkOf(address), 'from this address');
  }

  /** @throws MayflyError `too_many_calls` */
  async countCaller(caller: Caller): Promise<void> {
    await count(this.#callers, nameOf(caller), 'by this caller');
  }

  /** @param share How much of the longest answer this one is. @throws MayflyError `too_many_calls` */
  async countLong(caller: Caller, share: number): Promise<void> {
    const calls = Math.floor((this.#callers.points / LONGEST_A_MINUTE) * share);
    await count(this.#callers, nameOf(caller), 'by this caller', 'calls', calls);
  }

  /** Each is a decision and an event that are kept. @throws MayflyError `too_many_calls` */
  async countEvaluations(caller: Caller, evaluations: number): Promise<void> {
    await count(this.#evaluations, nameOf(caller), 'by this caller', 'evaluations', evaluations);
  }

  /** Though they may take access back: each is an event that is kept, and may have much decided again. @throws MayflyError `too_many_calls` */
  async countSignals(caller: Caller, signals: number): Promise<void> {
    await count(this.#signals, nameOf(caller), 'by this source', 'signals', signals);
  }

  /** Answers how to end the poll, or undefined when the caller has as many open as it may. */
  openPoll(caller: Caller): (() => void) | undefined {
    const name = nameOf(caller);
    const open = this.#polls.get(name) ?? 0;
    if (open >= this.#mostPolls) return undefined;
    this.#polls.set(name, open + 1);
    return () => {
      const left = (this.#polls.get(name) ?? 0) - 1;
      if (left > 0) this.#polls.set(name, left);
      else this.#polls.delete(name);
    };
  }
}

export function tooManyPolls(): MayflyError {
  return new MayflyError('too_many_polls', undefined, { retryAfterSeconds: POLL_RETRY_SECONDS });
}

async function count(
  limiter: RateLimiterMemory,
  key: string,
  whose: string,
  what = 'calls',
  points = 1,
): Promise<void> {
  try {
    await limiter.consume(key, points);
  } catch (thrown) {
    if (!(thrown instanceof RateLimiterRes)) throw thrown;
    const detail = `There were more than ${limiter.points} ${what} ${whose} within a minute.`;
    throw new MayflyError('too_many_calls', detail, { retryAfterSeconds: Math.ceil(thrown.msBeforeNext / 1000) });
  }
}

function nameOf(caller: Caller): string {
  return caller.kind === 'workload' ? workloadId(caller.workload) : `operator ${caller.operator}`;
}

/** Of IPv6 the first 64 bits: whoever has one address there has all of them. */
function networkOf(address: string): string {
  if (!address.includes(':') || address.includes('.')) return address.replace(/^::ffff:/i, '');
  const [head = '', tail = ''] = address.split('::');
  const [front, back] = [head, tail].map((part) => (part === '' ? [] : part.split(':')));
  const zeros = Array.from({ length: 8 - (front?.length ?? 0) - (back?.length ?? 0) }, () => '0');
  return [...(front ?? []), ...zeros, ...(back ?? [])]
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(':');
}
