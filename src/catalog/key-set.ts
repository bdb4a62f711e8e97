import { z } from 'zod';
import { uniqueList } from './names.ts';

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

function refusePrivateMembers(key: object, context: z.RefinementCtx): void {
  for (const member of privateMembers) {
    if (Object.hasOwn(key, member)) {
      context.addIssue({
        code: 'custom',
        path: [member],
        message: 'belongs to a private key: publish only public keys',
      });
    }
  }
}

const bundleEntry = z
  .looseObject({ use: z.string().max(64).optional(), kid: z.string().min(1).max(256).optional() })
  .superRefine((entry, context) => {
    refusePrivateMembers(entry, context);
    if (entry.use === 'jwt-svid' && entry.kid === undefined) {
      context.addIssue({ code: 'custom', path: ['kid'], message: 'is required of a `jwt-svid` entry' });
    }
    const certificates = entry['x5c'];
    if (entry.use === 'x509-svid' && !(Array.isArray(certificates) && certificates.length === 1)) {
      context.addIssue({ code: 'custom', path: ['x5c'], message: 'must hold exactly one certificate' });
    }
  });

const publicKey = z
  .looseObject({
    kty: z.enum(['EC', 'OKP', 'RSA'], 'must be EC, OKP or RSA'),
    kid: z.string().min(1).max(256),
    use: z.literal('sig', 'must be `sig`').optional(),
    alg: z.enum(algorithms, 'must be an asymmetric signature algorithm').optional(),
  })
  .superRefine((key, context) => {
    refusePrivateMembers(key, context);
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

/** Where keys are: exactly one of `url`, `file` (below the catalog's folder) and `inline`. */
export function keysFrom<S extends z.ZodType>(document: S) {
  return z
    .strictObject({
      url: z.string().max(2000).optional(),
      file: z.string().max(300).optional(),
      inline: document.optional(),
    })
    .superRefine((source, context) => {
      const given = [source.url, source.file, source.inline].filter((value) => value !== undefined);
      if (given.length !== 1) {
        context.addIssue({ code: 'custom', message: 'needs exactly one of `url`, `file` and `inline`' });
      }
    });
}

export function algorithmList(allowed: readonly [string, ...string[]]): z.ZodType<string[]> {
  return uniqueList(z.enum(allowed, `must be one of ${allowed.join(', ')}`)).refine(
    (list) => list.length > 0,
    'must name at least one algorithm',
  );
}

/** A SPIFFE bundle: a JWKS whose entries have a `use` of SPIFFE's own. No keys at all: nobody of that domain is believed. */
export const spiffeBundle = z.looseObject({ keys: z.array(bundleEntry).max(256) });

/** Where keys are, as read: the document itself where it is inline. */
export interface KeysWire {
  readonly url?: string | undefined;
  readonly file?: string | undefined;
  readonly inline?: KeysDocument | undefined;
}

/** A JWKS or a SPIFFE bundle. */
export interface KeysDocument {
  readonly keys: readonly Readonly<Record<string, unknown>>[];
}
