import { ProviderError } from '../../src/provider.ts';

/**
 * The answer of work that is left behind, and goes on, when its signal fires first.
 * @param left Called then.
 * @throws ProviderError `retryable` then.
 */
export async function orLeft<T>(work: Promise<T>, doing: string, signal: AbortSignal, left: () => void): Promise<T> {
  return await new Promise<T>((resolve, reject) => {
    const stop = (): void => {
      left();
      reject(new ProviderError('retryable', `${doing}: it did not answer in time`));
    };
    if (signal.aborted) stop();
    else signal.addEventListener('abort', stop, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', stop));
  });
}
