import { z } from 'zod';
import { algorithms, keySet } from './key-set.ts';
import { name, purposeName, seconds, text, uniqueList } from './names.ts';

/** The wire form of `trust.yaml`. What one field says about another is checked in `trust.ts`. */

const jwks = z
  .strictObject({
    url: z.string().max(2000).optional(),
    file: z.string().max(300).optional(),
    inline: keySet.optional(),
  })
  .superRefine((source, context) => {
    const given = [source.url, source.file, source.inline].filter((value) => value !== undefined);
    if (given.length !== 1) {
      context.addIssue({ code: 'custom', message: 'needs exactly one of `url`, `file` and `inline`' });
    }
  });

const issuerBase = {
  name,
  dev: z.boolean().default(false),
  issuer: z.string().max(2000),
  jwks,
  algorithms: uniqueList(z.enum(algorithms, `must be one of ${algorithms.join(', ')}`)).refine(
    (list) => list.length > 0,
    'must name at least one algorithm',
  ),
};

const workload = z
  .string()
  .max(600)
  .superRefine((id, context) => {
    const message = !/^[a-z][a-z0-9-]*:/.test(id)
      ? 'must be `<source>:<subject>`'
      : id.includes('*')
        ? 'wildcards are not accepted: name each workload'
        : !/^[^:]+:[^\s\p{C}]+$/u.test(id)
          ? 'needs a subject without white space after the source'
          : undefined;
    if (message !== undefined) context.addIssue({ code: 'custom', message });
  });

export const taskIssuerSchema = z.strictObject({
  ...issuerBase,
  purposes: uniqueList(purposeName),
  workloads: uniqueList(workload),
  max_task_seconds: seconds(86_400 * 7),
  autonomous: z.boolean().default(false),
  proof_of_possession: z.enum(['required', 'none'], 'must be `required` or `none`').default('required'),
});

export const workloadSourceSchema = z.strictObject({
  ...issuerBase,
  kind: z.literal('oidc', 'must be `oidc`: other kinds come in a later release'),
});

const roles = ['viewer', 'operator', 'approver', 'auditor', 'admin'] as const;

export const operatorSourceSchema = z.strictObject({
  ...issuerBase,
  claim: z.string().regex(/^[A-Za-z0-9_:/.-]{1,200}$/, 'must be the name of a claim'),
  roles: z.record(text(200), uniqueList(z.enum(roles, `must be one of ${roles.join(', ')}`))),
});

/** Only the outline: the lists are read item by item. */
export const trustOutline = z.strictObject({
  task_issuers: z.array(z.unknown()).default([]),
  workload_sources: z.array(z.unknown()).default([]),
  operators: z.array(z.unknown()).default([]),
});

export type TaskIssuerWire = z.infer<typeof taskIssuerSchema>;
export type WorkloadSourceWire = z.infer<typeof workloadSourceSchema>;
export type OperatorSourceWire = z.infer<typeof operatorSourceSchema>;
export type IssuerWire = TaskIssuerWire | WorkloadSourceWire | OperatorSourceWire;
