/**
 * Waits for `work`, but no longer than `signal` allows: then calls `stop`, which must make the work end soon, and
 * rejects with `reason()`. What the work still comes to is ignored.
 */
export async function abortable<T>(
  work: Promise<T>,
  signal: AbortSignal,
  stop: () => void,
  reason: () => Error,
): Promise<T> {
  let abort: (() => void) | undefined;
  const aborted = new Promise<'aborted'>((resolve) => {
    abort = () => resolve('aborted');
    signal.addEventListener('abort', abort, { once: true });
    if (signal.aborted) {
      abort();
    }
  });
  try {
    const first = await Promise.race([aborted, work.then((value) => ({ value }))]);
    if (first === 'aborted') {
      stop();
      work.catch(() => {});
      throw reason();
    }
    return first.value;
  } finally {
    if (abort !== undefined) {
      signal.removeEventListener('abort', abort);
    }
  }
}

/** Pauses that long, or until the signal fires, whichever is first. Never rejects. */
export function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) {
      resolve();
      return;
    }
    const wake = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', wake);
      resolve();
    };
    const timer = setTimeout(wake, milliseconds);
    signal.addEventListener('abort', wake, { once: true });
  });
}
