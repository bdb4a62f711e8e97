import { inspect } from 'node:util';

/**
 * A value that must not be printed. `JSON.stringify`, `util.inspect`, template strings and string
 * concatenation all give `[secret]`, at any depth, so that a log line or an error that holds one by
 * mistake holds nothing. Opened in two places only: the provider that sends it to the target, and
 * the response that hands it to the agent.
 */
export class Secret<T> {
  readonly #value: T;

  constructor(value: T) {
    this.#value = value;
  }

  /** The value itself. Every call is a place a reviewer must look at. */
  reveal(): T {
    return this.#value;
  }

  toJSON(): string {
    return '[secret]';
  }

  toString(): string {
    return '[secret]';
  }

  [inspect.custom](): string {
    return '[secret]';
  }
}
