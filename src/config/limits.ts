import { z } from 'zod';

export const wholeNumber = (min: number, max: number) =>
  z
    .string()
    .regex(/^\d{1,9}$/, `must be a whole number from ${min} to ${max}`)
    .transform(Number)
    .refine((n) => n >= min && n <= max, `must be a whole number from ${min} to ${max}`);

const most = wholeNumber(1, 999_999_999);

export const approvalSettings = {
  approval_pending_seconds: wholeNumber(1, 86_400)
    .default(3_600)
    .describe('How long an approval may be decided, while its task lives.'),
  approval_unused_seconds: wholeNumber(1, 86_400)
    .default(300)
    .describe('How long what was approved may be collected, while its task lives.'),
  approvals_per_task: wholeNumber(1, 1_000)
    .default(10)
    .describe('Approvals that one task may wait for at once, those approved and not collected among them.'),
};

export const driftSettings = {
  catalog_keys: z
    .string()
    .min(1)
    .optional()
    .describe(
      'File with a JWKS (P-256, Ed25519): only catalogs that one of these keys has signed are applied, and loaded by a replica.',
    ),
  max_drift_share: wholeNumber(0, 100)
    .default(10)
    .describe('Percent of the living grants, of all and of each target, that `mayfly catalog apply` may end unasked.'),
  max_changed_share: wholeNumber(0, 100)
    .default(10)
    .describe(
      'Percent of a target’s living grants, five at least, that a comparison may end because their credentials were changed there. 0: none; it is only told.',
    ),
};

/** Against one party that asks without end. Ordinary use never meets them; what takes access back is never refused by them. */
export const limitSettings = {
  calls_per_address: most
    .default(60_000)
    .describe('Calls from one address (of IPv6, one /64) in a minute, at most, for each replica.'),
  calls_per_caller: most
    .default(12_000)
    .describe('Calls by one workload or operator in a minute, at most, for each replica.'),
  evaluations_per_caller: wholeNumber(50, 999_999_999)
    .default(6_000)
    .describe('Evaluations that one workload may ask for in a minute, at most, for each replica.'),
  signals_per_source: wholeNumber(100, 999_999_999)
    .default(6_000)
    .describe('Signals that one source may send in a minute, at most, for each replica.'),
  evaluations_per_task: most.default(10_000).describe('Evaluations about one task in its life, at most.'),
  polls_per_caller: most
    .default(1_000)
    .describe('Long polls that one workload or operator may have open, for each replica.'),
  mints_per_task: most.default(1_000).describe('Credentials made for one task in its life, at most.'),
  tasks_per_issuer: most.default(100_000).describe('Tasks of one task issuer that are alive, at most.'),
};

/** The bounds of approvals, as those who ask for them take them. */
export function approvalTerms(config: {
  readonly approval_pending_seconds: number;
  readonly approval_unused_seconds: number;
  readonly approvals_per_task: number;
}): { pendingSeconds: number; unusedSeconds: number; perTask: number } {
  return {
    pendingSeconds: config.approval_pending_seconds,
    unusedSeconds: config.approval_unused_seconds,
    perTask: config.approvals_per_task,
  };
}
