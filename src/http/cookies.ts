import type { IncomingMessage } from 'node:http';
import { MayflyError } from '../domain/errors.ts';
import { oneHeader } from './parse.ts';

/** `__Host-`: of this very host, over TLS (or on loopback), for every path; no other host or page can set it (RFC 6265bis §4.1.3). */
export const SESSION_COOKIE = '__Host-mayfly-session';
export const LOGIN_COOKIE = '__Host-mayfly-login';

/** A cookie that came once; what comes twice is of no use. */
export function readCookie(request: IncomingMessage, name: string): string | undefined {
  const values = (oneHeader(request, 'cookie') ?? '').split(';').flatMap((pair) => {
    const equals = pair.indexOf('=');
    return equals > 0 && pair.slice(0, equals).trim() === name ? [pair.slice(equals + 1).trim()] : [];
  });
  return values.length === 1 ? values[0] : undefined;
}

/** No script reads it. `Lax`: who comes back from the issuer brings it, and no page of another site can make the browser send it with a POST. */
export function cookieText(name: string, value: string, seconds: number): string {
  return `${name}=${value}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=${Math.max(0, Math.floor(seconds))}`;
}

/**
 * What changes something by a cookie alone must come from a page of ours: every browser names the origin of such a call.
 * @throws MayflyError `cross_site_refused`
 */
export function requireOwnOrigin(request: IncomingMessage, publicUrl: string): void {
  if (request.method === 'GET' || request.method === 'HEAD') return;
  if (oneHeader(request, 'origin') !== new URL(publicUrl).origin) throw new MayflyError('cross_site_refused');
}
