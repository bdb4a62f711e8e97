/**
 * A signal that fires with any of these, or after so many milliseconds. Not `AbortSignal.any` with `AbortSignal.timeout`: on
 * Node 20 nothing holds on to a time-out that only a composite refers to, so that once it is collected it never fires.
 */
export function within(millis: number, ...signals: readonly AbortSignal[]): AbortSignal {
  const late = new AbortController();
  setTimeout(() => late.abort(new DOMException('The operation was aborted due to timeout', 'TimeoutError')), millis).unref();
  return AbortSignal.any([late.signal, ...signals]);
}
