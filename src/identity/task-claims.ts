import { z } from 'zod';
import type { ParamValue } from '../domain/task.ts';
import { isJsonObject } from './compact-jws.ts';
import { numericDate, printable, thumbprint } from './token-claims.ts';

const wholeSeconds = numericDate.int();
/** SPIFFE IDs have at most 2048 bytes; nothing that names a party is longer. */
const party = printable(2048);

/** SHA-256 of the intent: 32 bytes as canonical base64url or as lower-case hex. */
const intentHash = z
  .string()
  .regex(
    /^sha-256:(?:[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]|[0-9a-f]{64})$/,
    'must be sha-256: and 32 bytes in base64url or hex',
  );

/** Times first: whether a request is alive does not hang on the rest of its claims. */
export const requestTimesSchema = z.object({
  iat: wholeSeconds,
  exp: wholeSeconds,
  nbf: wholeSeconds.optional(),
});

/** DESIGN §4. Unknown claims beside these are ignored; inside `task` nothing unknown is. */
export const taskClaimsSchema = z.object({
  jti: printable(200),
  txn: printable(200).optional(),
  sub: party,
  /** RFC 8693 §4.1: a nested `act` is history and drives nothing. */
  act: z.object({ sub: party, iss: party.optional() }),
  /** Where credentials may be sealed to another key than `cnf`'s. */
  delivery_jkt: thumbprint.optional(),
  task: z.strictObject({
    id: printable(200),
    purpose: printable(200),
    phase: printable(200).optional(),
    not_after: wholeSeconds,
    max_depth: z.int().min(0).max(16).default(0),
    intent_hash: intentHash.optional(),
  }),
});

const paramName = z.string().regex(/^[a-z][a-z0-9_-]{0,62}$/i, 'must be a plain name');
const paramValue = z.union([z.string().max(1024), z.int(), z.boolean()]);
const params = z
  .custom<Record<string, ParamValue>>(
    // zod leaves `__proto__` out of a record without a word.
    (value) => isJsonObject(value) && !Object.hasOwn(value, '__proto__') && Object.keys(value).length <= 32,
    'must be an object of at most 32 plain names',
  )
  .pipe(z.record(paramName, paramValue));

/** RFC 9396 §2 and §5: an unknown type or field is refused, not ignored. */
const entrySchema = z.strictObject({
  type: z.literal('mayfly'),
  entitlements: z
    .array(z.string().regex(/^[a-z0-9-]{1,63}\/[a-z0-9-]{1,63}$/, 'must be <target>/<name>'))
    .min(1)
    .max(64),
  params: params.optional(),
  max_ttl_seconds: z.int().min(1).max(86_400).optional(),
});

/** Exactly one: which params and which longest life would hold for two is anybody's guess. */
export const authorizationDetailsSchema = z.tuple([entrySchema]);

export type TaskClaims = z.infer<typeof taskClaimsSchema>;
export type RequestTimes = z.infer<typeof requestTimesSchema>;
