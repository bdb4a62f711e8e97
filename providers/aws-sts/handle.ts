import { createHash, randomBytes } from 'node:crypto';
import { ProviderError } from '../../src/provider.ts';

const alphabet = 'abcdefghijklmnopqrstuvwxyz234567';
const characters = 12;

/** The session tag that carries the handle. It is transitive: a session that is assumed from ours keeps it. */
export const grantTag = 'mayfly-grant';

/** What SourceIdentity and the session tag carry: 60 bits of the grant id's SHA-256. @throws ProviderError */
export function handleOf(grantId: string): string {
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(grantId))
    throw new ProviderError('misconfigured', 'a grant id must be a UUID');
  return spell(createHash('sha256').update(grantId.toLowerCase()).digest());
}

/** A probe's. Nobody else knows it, and no grant bears it. */
export function randomHandle(): string {
  return spell(randomBytes(characters));
}

export function isHandle(text: string): boolean {
  return /^[a-z2-7]{12}$/.test(text);
}

function spell(bytes: Buffer): string {
  let bits = 0n;
  for (const byte of bytes.subarray(0, 8)) bits = (bits << 8n) | BigInt(byte);
  return Array.from({ length: characters }, (_, at) => alphabet[Number((bits >> BigInt(59 - 5 * at)) & 31n)]).join('');
}
