import { Redis } from 'ioredis';
import { ProviderError } from '../../../src/provider.ts';

export interface Login {
  readonly host: string;
  readonly port: number;
  readonly username: string;
  readonly password: string;
}

/** A connection for one call, which ends with it or with its signal. @throws ProviderError */
export async function withRedis<T>(login: Login, signal: AbortSignal, work: (redis: Redis) => Promise<T>): Promise<T> {
  const options = { lazyConnect: true, enableReadyCheck: false, maxRetriesPerRequest: 0, retryStrategy: () => null };
  const redis = new Redis({ ...login, ...options });
  let failed: unknown;
  redis.on('error', (error) => (failed ??= error));
  const stop = (): void => redis.disconnect();
  signal.addEventListener('abort', stop, { once: true });
  try {
    if (signal.aborted) throw new ProviderError('retryable', 'There was no time left.');
    await redis.connect();
    return await work(redis);
  } catch (error) {
    throw classify(error, failed);
  } finally {
    signal.removeEventListener('abort', stop);
    redis.disconnect();
  }
}

type Transaction = ReturnType<Redis['multi']>;

/** Whether the transaction took place, and is on disk. One command of it that failed is a failure. */
export async function saved(transaction: Transaction): Promise<boolean> {
  const results = await transaction.call('ACL', 'SAVE').exec();
  const failed = results?.find(([error]) => error !== null);
  if (failed !== undefined) throw classify(failed[0]);
  // Nothing done is null; an answer without results is none of a transaction.
  return results !== null && results.length > 0;
}

/** Only the code goes on: a driver's error holds the command with its arguments, and so the password. */
export function classify(...errors: readonly unknown[]): ProviderError {
  const all = errors.flatMap((error) => [error, ...(Object(error).previousErrors ?? [])]);
  const ours = all.find((error) => error instanceof ProviderError);
  if (ours instanceof ProviderError) return ours;
  const codes = all.flatMap((error) => (error instanceof Error ? (/^[A-Z]{3,}(?= )/.exec(error.message) ?? []) : []));
  const refused = codes.find((code) => ['NOPERM', 'WRONGPASS', 'NOAUTH'].includes(code));
  if (refused !== undefined) return new ProviderError('denied', `Redis refuses that (${refused}).`);
  if (codes.includes('ERR')) return new ProviderError('misconfigured', 'Redis does not do that: is there an ACL file?');
  return new ProviderError('retryable', 'Redis did not answer in time.');
}
