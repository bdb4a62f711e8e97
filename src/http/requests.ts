import { z } from 'zod';

// What callers send. These schemas validate, and the OpenAPI document is made from them.

const LONGEST_WAIT_SECONDS = 60;

/** Not bound to the grammar of the catalog: what the task does not cover is `not_in_task`, whether it exists or not. */
const entitlement = z
  .string()
  .min(1)
  .max(200)
  .meta({ description: 'Name of an entitlement.', example: 'ledger-db/read-invoices' });

const ttlFault = 'must be whole seconds from 1 to 86400';
const ttlSeconds = z.int({ error: ttlFault, abort: true }).min(1, ttlFault).max(86_400, ttlFault).meta({
  description: 'Life asked for, in whole seconds. It is cut to what is allowed, and the answer says so.',
  example: 300,
});

const wait = z
  .string()
  .regex(/^(0|[1-9]\d?)$/, `must be whole seconds from 0 to ${LONGEST_WAIT_SECONDS}`)
  .transform(Number)
  .refine((seconds) => seconds <= LONGEST_WAIT_SECONDS, `must be whole seconds from 0 to ${LONGEST_WAIT_SECONDS}`)
  .optional();

/** @param says What is waited for. */
const waitFor = (says: string) =>
  z.strictObject({
    wait: wait.meta({ type: 'integer', minimum: 0, maximum: LONGEST_WAIT_SECONDS, description: says }),
  });

export const taskPath = z.object({
  id: z.string().meta({ description: 'The task’s id.', example: 'task_0198c0de-7a11-7000-8000-0123456789ab' }),
});
export const grantPath = z.object({
  id: z.string().meta({ description: 'The grant’s id.', example: 'grt_0198c0de-7a11-7000-8000-0123456789ab' }),
});

export const noQuery = z.strictObject({});
export const waitForChange = waitFor('Seconds to wait for a change before answering.');
export const waitForRun = waitFor('Seconds to wait for what it finds before answering.');
export const waitForDelivery = waitFor('Seconds to wait until it was taken before answering.');
export const waitForContainment = waitFor('Seconds to wait until all is contained before answering.');

export const noHeaders = z.object({});
export const idempotencyHeader = z.object({
  'Idempotency-Key': z
    .string()
    .regex(/^[\x21-\x7e]{1,255}$/, 'must be 1 to 255 visible ASCII characters')
    .optional()
    .meta({
      description:
        'Scoped to the task. A repeated key ends the first grant and mints afresh; while that waits for its approval, it is the answer again.',
    }),
});

export const delivery = z
  .strictObject({ jwk: z.record(z.string(), z.unknown()).meta({ description: 'A public key: P-256 or X25519.' }) })
  .optional()
  .meta({
    description:
      'Seals the credential: a compact JWE to this key (`ECDH-ES+A256KW`, `A256GCM`). The signed task request must name the key, by `cnf.jkt` or `delivery_jkt`.',
  });

export const openTaskBody = z
  .strictObject({
    request: z.string().min(1).max(32_768).meta({ description: 'The signed task request, a compact JWS.' }),
    issue: z
      .array(entitlement)
      .max(16)
      .superRefine((names, context) => {
        for (const [index, name] of names.entries()) {
          if (names.indexOf(name) < index) context.addIssue({ code: 'custom', path: [index], message: 'comes twice' });
        }
      })
      .optional()
      .meta({
        uniqueItems: true,
        description: 'Entitlements to issue in the same call, one result each. The task is opened regardless.',
      }),
    delivery,
  })
  .refine((body) => body.delivery === undefined || body.issue !== undefined, {
    path: ['delivery'],
    message: 'goes with `issue` only',
  })
  .meta({ id: 'OpenTask' });

export const delegateBody = z
  .strictObject({
    delegation: z.string().min(1).max(32_768).meta({ description: 'The signed delegation, a compact JWS.' }),
  })
  .meta({ id: 'Delegate' });

export const takeEventBody = z
  .strictObject({
    event: z.string().min(1).max(32_768).meta({ description: 'What the task’s issuer signed, a compact JWS.' }),
  })
  .meta({ id: 'TakeEvent' });

export const issueGrantBody = z
  .strictObject({
    entitlement,
    ttl_seconds: ttlSeconds.optional(),
    justification: z
      .string()
      .min(1)
      .max(2_000)
      .optional()
      .meta({ description: 'Why, for whoever reads the evidence.' }),
    delivery,
    context: z.record(z.string().max(100), z.unknown()).optional().meta({
      description:
        'What the caller says of its situation. It never overrides what the broker knows; this release decides nothing by it.',
    }),
  })
  .meta({ id: 'IssueGrant' });

export const renewGrantBody = z.strictObject({ ttl_seconds: ttlSeconds, delivery }).meta({ id: 'RenewGrant' });

/** For calls that need no body and forgive an empty one. */
export const emptyBody = z.strictObject({}).meta({ id: 'Empty' });
