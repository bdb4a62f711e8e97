import { createHash, createHmac, pbkdf2, pbkdf2Sync, randomBytes } from 'node:crypto';
import { promisify } from 'node:util';

const deriveInBackground = promisify(pbkdf2);
/** Up to so many iterations it takes less time to derive the key than to hand the work to another thread. */
const SHORT = 64;

async function deriveKey(password: string, salt: Buffer, iterations: number): Promise<Buffer> {
  const asked = [password, salt, iterations, 32, 'sha256'] as const;
  return iterations <= SHORT ? pbkdf2Sync(...asked) : await deriveInBackground(...asked);
}

/** 192 random bits, ASCII (SASLprep leaves it alone), and safe in a URL as it stands. */
export function randomPassword(): string {
  return randomBytes(24).toString('base64url');
}

/**
 * The SCRAM-SHA-256 verifier of a password, as PostgreSQL stores it (RFC 5802 §3, RFC 7677):
 * `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`. The target never sees the password. A verifier allows
 * no login, and for a random password no guessing either.
 * @param password ASCII.
 * @param salt 16 random bytes unless given.
 */
export async function scramVerifier(password: string, iterations: number, salt = randomBytes(16)): Promise<string> {
  const salted = await deriveKey(password, salt, iterations);
  const hmac = (text: string): Buffer => createHmac('sha256', salted).update(text).digest();
  const storedKey = createHash('sha256').update(hmac('Client Key')).digest('base64');
  const serverKey = hmac('Server Key').toString('base64');
  return `SCRAM-SHA-256$${iterations}:${salt.toString('base64')}$${storedKey}:${serverKey}`;
}
