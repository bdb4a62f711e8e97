import { within } from '../domain/within.ts';

const MAX_JWKS_BYTES = 64 * 1024;

const LOOPBACK = /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/;
const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

export interface FetchJwksOptions {
  readonly fetch: typeof globalThis.fetch;
  /** Made by `mayfly dev`: plain HTTP is taken, on loopback only. */
  readonly dev: boolean;
  readonly timeoutMs: number;
  /** Fires when the broker closes. */
  readonly signal: AbortSignal;
}

/**
 * Reads a JWKS document: no redirect is followed (it would move trust to another host), the whole exchange has one
 * deadline, and at most 64 KiB are read, whatever the headers say.
 * @throws Error that says what was wrong, for the log.
 */
export async function fetchJwks(url: string, options: FetchJwksOptions): Promise<string> {
  requireSafeUrl(url, options.dev);
  const response = await options.fetch(url, {
    redirect: 'manual',
    headers: { accept: 'application/jwk-set+json, application/json' },
    signal: within(options.timeoutMs, options.signal),
  });
  if (response.status !== 200) {
    await response.body?.cancel();
    throw new Error(`answered ${response.status}`);
  }
  return UTF8.decode(await readBounded(response));
}

/** @throws Error unless it is https, or dev trust on loopback. */
export function requireSafeUrl(text: string, dev: boolean): void {
  const url = new URL(text);
  if (url.username !== '' || url.password !== '') throw new Error('the URL holds a user name or password');
  if (url.protocol === 'https:') return;
  if (url.protocol === 'http:' && dev && LOOPBACK.test(url.hostname)) return;
  throw new Error('the URL is not https (plain http is for dev trust on loopback only)');
}

/** A body of at most 64 KiB. */
export async function readBounded(response: Response): Promise<Buffer> {
  if (!response.body) return Buffer.alloc(0);
  const body: AsyncIterable<Uint8Array> = response.body;
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  // Leaving the loop by throwing cancels the stream and frees its socket.
  for await (const chunk of body) {
    bytes += chunk.byteLength;
    if (bytes > MAX_JWKS_BYTES) throw new Error(`answered more than ${MAX_JWKS_BYTES} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
