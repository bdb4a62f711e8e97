import { note } from '../output.ts';
import { CliError } from '../fail.ts';
import { type RunningChild, statusOf } from './child.ts';

const ENDING = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const;
/** Of no meaning to us; without a listener the first would open Node's debugger. */
const OTHERS = ['SIGUSR1', 'SIGUSR2'] as const;
/** A terminal sends them to the whole group: the child has them already. */
const FROM_TERMINAL: readonly NodeJS.Signals[] = ['SIGINT', 'SIGQUIT'];

/** Two within this time are one: `npx` and `npm` pass on what the terminal has sent to the whole group. */
const SAME_MILLIS = 500;

/** The caller wants out before there was a child. */
export class Interrupted extends CliError {
  readonly signal: NodeJS.Signals;

  constructor(signal: NodeJS.Signals) {
    super(`${signal} came before the command was started.`, statusOf(signal));
    this.signal = signal;
  }
}

/**
 * What becomes of signals to `mayfly run`. Before there is a child the first one is remembered, so that a task that was opened
 * is ended; while there is one they are the child's; after it the first one is let pass, so that the credential is taken back.
 * A second one, before or after, leaves at once: then the credential ends at its deadline.
 */
export class Signals {
  #child: RunningChild | undefined;
  #asked: { readonly signal: NodeJS.Signals; readonly at: number } | undefined;
  #over = false;
  readonly #leaving = new AbortController();

  constructor() {
    for (const signal of [...ENDING, ...OTHERS]) process.on(signal, this.#receive);
  }

  /** Aborted, with Interrupted, when a signal came before there was a child. */
  get leaving(): AbortSignal {
    return this.#leaving.signal;
  }

  /** @throws Interrupted when a signal came. */
  check(): void {
    if (this.#asked !== undefined) throw new Interrupted(this.#asked.signal);
  }

  passTo(child: RunningChild): void {
    this.#child = child;
    // It came between the last check and the start.
    if (this.#asked !== undefined) child.kill(this.#asked.signal);
    this.#asked = undefined;
  }

  childEnded(): void {
    this.#child = undefined;
    this.#over = true;
  }

  close(): void {
    for (const signal of [...ENDING, ...OTHERS]) process.off(signal, this.#receive);
  }

  readonly #receive = (signal: NodeJS.Signals): void => {
    if (this.#child !== undefined) {
      if (!(process.stdin.isTTY && FROM_TERMINAL.includes(signal))) this.#child.kill(signal);
      return;
    }
    if (OTHERS.some((other) => other === signal)) return;
    if (this.#asked === undefined) {
      this.#asked = { signal, at: performance.now() };
      this.#leaving.abort(new Interrupted(signal));
      note(
        this.#over
          ? `mayfly: ${signal}: the credential is being taken back. Once more leaves it to its deadline.`
          : `mayfly: ${signal} before the command was started: its task is being ended.`,
      );
    } else if (performance.now() - this.#asked.at > SAME_MILLIS) {
      process.exit(statusOf(signal));
    }
  };
}
