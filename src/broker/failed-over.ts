import { MayflyError } from '../domain/errors.ts';

/** So long a comparison of a target takes, mostly. */
const RETRY_SECONDS = 3;

export function failedOverProblem(target: string): MayflyError {
  return new MayflyError(
    'store_failed_over',
    `Target ${target} was not reconciled, or the kills not confirmed, since the store failed over.`,
    {
      retryAfterSeconds: RETRY_SECONDS,
    },
  );
}
