/**
 * A signal that fires with any of these, or after so many milliseconds. Not `AbortSignal.any` with `AbortSignal.timeout`: on
 * Node 20 nothing holds on to a time-out that only a composite refers to, so that once it is collected it never fires.
 */
export function within(millis: number, ...signals: readonly AbortSignal[]): AbortSignal {
  const late = new AbortController();
  setTimeout(() => late.abort(timeout()), millis).unref();
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

/**
 * As {@link bounded}, for calls that are made often: the timer of one that has its answer is let go of. One that failed may have left
 * something at work, which is still told.
 */
export async function timed<T>(millis: number, call: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(timeout()), millis).unref();
  const answer = await orAborted(call(late.signal), late.signal);
  clearTimeout(timer);
  return answer;
}

/** As `AbortSignal.timeout` gives it. */
function timeout(): DOMException {
  return new DOMException('The operation was aborted due to timeout', 'TimeoutError');
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
