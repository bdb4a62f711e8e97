import { z } from 'zod';
import { type FieldError, MayflyError } from '../domain/errors.ts';
import type { JsonObject } from './compact-jws.ts';
import type { Refusals } from './refusals.ts';

/** How far ahead of ours a signer's clock may be, in seconds. DESIGN §4, Times. */
const AHEAD_SECONDS = 30;
/** How long after `exp` a token is still taken, in seconds. */
const GRACE_SECONDS = 5;

/** 9999-12-31T23:59:59Z: beyond it no RFC 3339 text and no database has a place for the moment. */
const LAST_SECOND = 253_402_300_799;

/** A moment as seconds since 1970 (RFC 7519 §2, NumericDate). Fractions are allowed there. */
export const numericDate = z.number().min(0).max(LAST_SECOND);

/** SHA-256 of a key (RFC 7638), 32 bytes as canonical base64url. */
export const thumbprint = z
  .string()
  .regex(/^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$/, 'must be a SHA-256 thumbprint in base64url');

/** Text for people and logs: nothing invisible, no control or direction character, no line break. */
export const printable = (longest: number) =>
  z
    .string()
    .min(1)
    .max(longest)
    .regex(/^[\p{L}\p{M}\p{N}\p{P}\p{S}\p{Zs}]+$/u, 'must be printable text');

export interface TokenTimes {
  readonly exp: number;
  readonly iat?: number | undefined;
  readonly nbf?: number | undefined;
}

/** @throws MayflyError unless `aud` is ours alone, as a string or a one-element array. */
export function requireAudience(claims: JsonObject, audience: string, refusals: Refusals): void {
  const { aud } = claims;
  const named: unknown = Array.isArray(aud) && aud.length === 1 ? aud[0] : aud;
  if (named !== audience) throw new MayflyError(refusals.audience);
}

/** @throws MayflyError when `iat` or `nbf` lies more than 30 s ahead. */
export function requireBegun(times: TokenTimes, now: Date, refusals: Refusals): void {
  const latest = now.getTime() / 1000 + AHEAD_SECONDS;
  if ((times.iat ?? 0) > latest || (times.nbf ?? 0) > latest) throw new MayflyError(refusals.notYetValid);
}

/** @throws MayflyError when `exp` lies 5 s or more behind. */
export function requireNotExpired(times: TokenTimes, now: Date, refusals: Refusals): void {
  if (now.getTime() / 1000 >= times.exp + GRACE_SECONDS) throw new MayflyError(refusals.expired);
}

/** The places where a value does not fit, as paths from `root`. */
export function fieldErrors(error: z.ZodError, root = '$'): readonly FieldError[] {
  return error.issues.map(({ path, message }) => ({
    path: path.reduce<string>(
      (text, step) => text + (typeof step === 'number' ? `[${step}]` : `.${String(step)}`),
      root,
    ),
    message,
  }));
}

/** Whether a member of that name stands anywhere in a JSON value. */
export function hasMember(value: unknown, name: string): boolean {
  if (typeof value !== 'object' || value === null) return false;
  if (!Array.isArray(value) && Object.hasOwn(value, name)) return true;
  return Object.values(value).some((inner) => hasMember(inner, name));
}
