/** Two within this time are one: `npm` passes on what the terminal has sent to the whole group. */
const SAME_MILLIS = 500;

/**
 * Resolves with the first SIGINT or SIGTERM, from now on. A later one ends the process at once: somebody is in a hurry, and
 * everything here survives that.
 */
export function untilSignal(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    let first: number | undefined;
    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      process.on(signal, () => {
        first ??= performance.now();
        if (performance.now() - first > SAME_MILLIS) process.exit(signal === 'SIGINT' ? 130 : 143);
        resolve(signal);
      });
    }
  });
}
