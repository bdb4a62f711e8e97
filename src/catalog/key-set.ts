import { z } from 'zod';

/** Asymmetric JWS algorithms (RFC 7518 §3.1, RFC 8037, RFC 9864). A shared secret proves nothing about who signed. */
export const algorithms = [
  'ES256',
  'ES384',
  'ES512',
  'PS256',
  'PS384',
  'PS512',
  'RS256',
  'RS384',
  'RS512',
  'EdDSA',
  'Ed25519',
] as const;

/** Members that only private and symmetric keys have (RFC 7518 §6). */
const privateMembers = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k'] as const;

const required: Readonly<Record<string, readonly string[]>> = {
  EC: ['crv', 'x', 'y'],
  OKP: ['crv', 'x'],
  RSA: ['n', 'e'],
};

/** 2048 bits in base64url without padding. */
const MIN_RSA_MODULUS = 342;

const publicKey = z
  .looseObject({
    kty: z.enum(['EC', 'OKP', 'RSA'], 'must be EC, OKP or RSA'),
    kid: z.string().min(1).max(256),
    use: z.literal('sig', 'must be `sig`').optional(),
    alg: z.enum(algorithms, 'must be an asymmetric signature algorithm').optional(),
  })
  .superRefine((key, context) => {
    for (const member of privateMembers) {
      if (Object.hasOwn(key, member)) {
        context.addIssue({
          code: 'custom',
          path: [member],
          message: 'belongs to a private key: publish only public keys',
        });
      }
    }
    for (const member of required[key.kty] ?? []) {
      const value = key[member];
      if (typeof value !== 'string' || !/^[A-Za-z0-9_-]+$/.test(value)) {
        context.addIssue({ code: 'custom', path: [member], message: 'is required' });
      } else if (member === 'n' && value.length < MIN_RSA_MODULUS) {
        context.addIssue({ code: 'custom', path: [member], message: 'RSA keys need at least 2048 bits' });
      }
    }
  });

/** A JWK Set (RFC 7517 §5) of public signature keys, each with a `kid` of its own. */
export const keySet = z.strictObject({ keys: z.array(publicKey).min(1).max(32) }).superRefine(({ keys }, context) => {
  keys.forEach((key, index) => {
    if (keys.findIndex((other) => other.kid === key.kid) < index) {
      context.addIssue({ code: 'custom', path: ['keys', index, 'kid'], message: 'another key has the same `kid`' });
    }
  });
});
