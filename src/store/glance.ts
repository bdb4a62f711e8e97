/**
 * Something that may be a little old, read at most once in `keptMillis` however many ask. A read that takes longer than
 * `patienceMillis` is a failure to whoever waits for it, and serves those who ask once it is there.
 */
export function glance<T>(keptMillis: number, patienceMillis: number, read: () => Promise<T>): () => Promise<T> {
  let kept: { readonly value: T; readonly at: number } | undefined;
  let reading: Promise<T> | undefined;
  const begin = async (): Promise<T> => {
    const at = performance.now();
    try {
      const value = await read();
      kept = { value, at };
      return value;
    } finally {
      reading = undefined;
    }
  };
  return async () => {
    if (kept !== undefined && performance.now() - kept.at < keptMillis) return kept.value;
    reading ??= begin();
    return await inTime(patienceMillis, reading);
  };
}

async function inTime<T>(millis: number, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error('The store does not answer in time.')), millis);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
