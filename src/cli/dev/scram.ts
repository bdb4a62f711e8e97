import { createHash, createHmac, pbkdf2, randomBytes, timingSafeEqual } from 'node:crypto';
import { promisify } from 'node:util';
import type { Secret } from '../../domain/secret.ts';

const derive = promisify(pbkdf2);
const VERIFIER = /^SCRAM-SHA-256\$(\d{1,7}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)$/;

/**
 * What PostgreSQL stores instead of a password (RFC 5803), made here so that no statement, log or
 * `pg_stat_activity` ever holds the password. ASCII passwords only: SASLprep is not applied.
 */
export async function scramVerifier(
  password: Secret<string>,
  salt: Buffer = randomBytes(16),
  iterations = 4096,
): Promise<string> {
  const salted = await derive(password.reveal(), salt, iterations, 32, 'sha256');
  const storedKey = createHash('sha256').update(hmac(salted, 'Client Key')).digest('base64');
  const serverKey = hmac(salted, 'Server Key').toString('base64');
  return `SCRAM-SHA-256$${iterations}:${salt.toString('base64')}$${storedKey}:${serverKey}`;
}

/** Whether this password is the one behind a stored verifier; false for null and for other kinds of verifier. */
export async function matchesVerifier(password: Secret<string>, verifier: string | null): Promise<boolean> {
  const [, iterations, salt] = VERIFIER.exec(verifier ?? '') ?? [];
  if (verifier === null || iterations === undefined || salt === undefined) return false;
  const ours = Buffer.from(await scramVerifier(password, Buffer.from(salt, 'base64'), Number(iterations)));
  const theirs = Buffer.from(verifier);
  return ours.length === theirs.length && timingSafeEqual(ours, theirs);
}

function hmac(key: Buffer, text: string): Buffer {
  return createHmac('sha256', key).update(text).digest();
}
