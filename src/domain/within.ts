/**
 * A signal that fires with any of these, or after so many milliseconds. Not `AbortSignal.any` with `AbortSignal.timeout`: on
 * Node 20 nothing holds on to a time-out that only a composite refers to, so that once it is collected it never fires.
 */
export function within(millis: number, ...signals: readonly AbortSignal[]): AbortSignal {
  const late = new AbortController();
  setTimeout(
    () => late.abort(new DOMException('The operation was aborted due to timeout', 'TimeoutError')),
    millis,
  ).unref();
  return AbortSignal.any([late.signal, ...signals]);
}

/** The answer of a call that gets so many milliseconds, and is left behind when it does not end then. */
export async function bounded<T>(
  millis: number,
  signals: readonly AbortSignal[],
  call: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const signal = within(millis, ...signals);
  return await orAborted(call(signal), signal);
}

/** The answer of a call, or the reason of its signal: one that does not end when it is told to is left behind. */
export async function orAborted<T>(call: Promise<T>, signal: AbortSignal): Promise<T> {
  let stop = () => {};
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason instanceof Error ? signal.reason : new Error('aborted'));
    if (signal.aborted) stop();
    else signal.addEventListener('abort', stop, { once: true });
  });
  try {
    return await Promise.race([call, aborted]);
  } finally {
    signal.removeEventListener('abort', stop);
  }
}
