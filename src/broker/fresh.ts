import type { Catalog } from '../catalog/types.ts';
import { MayflyError } from '../domain/errors.ts';
import { isStale, type KnownSignals } from '../policy/signals.ts';

/** Until a source is heard again, which nobody here can tell. */
const RETRY_SECONDS = 5;

/** @throws MayflyError `stale_signals`: nothing begins while a source is silent that the catalog calls `required`. */
export function requireFresh(
  { signalSources }: Pick<Catalog, 'signalSources'>,
  { heard }: Pick<KnownSignals, 'heard'>,
  now: Date,
): void {
  if (signalSources.some((source) => source.required && isStale(source, heard, now)))
    throw new MayflyError('stale_signals', undefined, { retryAfterSeconds: RETRY_SECONDS });
}
