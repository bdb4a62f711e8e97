import { z } from 'zod';
import { algorithmList, algorithms, type KeysWire, keySet, keysFrom } from './key-set.ts';
import { parseSpiffeId } from '../domain/spiffe-id.ts';
import { name, purposeName, seconds, text, uniqueList } from './names.ts';
import { roleBindings } from './operator-bindings.ts';
import { operatorLoginSchema } from './operator-login.ts';
import type { TaskIssuer } from './types.ts';

/** The wire form of `trust.yaml`. What one field says about another is checked in `trust.ts`. */

const issuerBase = {
  name,
  dev: z.boolean().default(false),
  issuer: z.string().max(2000),
  jwks: keysFrom(keySet),
  algorithms: algorithmList(algorithms),
};

/** Whether it is `<source>:` and a SPIFFE ID with a path and `/*` after it: all below that path. */
function isSpiffePrefix(workload: string): boolean {
  const subject = workload.slice(workload.indexOf(':') + 1);
  return subject.endsWith('/*') && (parseSpiffeId(subject.slice(0, -2))?.path ?? '') !== '';
}

export const workload = z
  .string()
  .max(600)
  .superRefine((id, context) => {
    const message = !/^[a-z][a-z0-9-]*:/.test(id)
      ? 'must be `<source>:<subject>`'
      : id.includes('*') && !isSpiffePrefix(id)
        ? 'wildcards are not accepted: name each workload, or a SPIFFE path that ends with `/*`'
        : !/^[^:]+:[^\s\p{C}]+$/u.test(id)
          ? 'needs a subject without white space after the source'
          : undefined;
    if (message !== undefined) context.addIssue({ code: 'custom', message });
  });

/** What bounds the tasks of an issuer, whatever states them. */
export const statedBy = {
  purposes: uniqueList(purposeName),
  workloads: uniqueList(workload),
  max_task_seconds: seconds(86_400 * 7),
  autonomous: z.boolean().default(false),
  proof_of_possession: z.enum(['required', 'none'], 'must be `required` or `none`').default('required'),
  subjects: z.array(z.strictObject({ operators: name, prefix: text(200).optional() })).default([]),
};

export const taskIssuerSchema = z.strictObject({
  kind: z.literal('task-request').optional(),
  ...issuerBase,
  ...statedBy,
});

export const operatorSourceSchema = z.strictObject({
  ...issuerBase,
  claim: z.string().regex(/^[A-Za-z0-9_:/.-]{1,200}$/, 'must be the name of a claim'),
  roles: z.record(text(200), roleBindings),
  groups: z.record(text(200), uniqueList(name)).optional(),
  login: operatorLoginSchema.optional(),
});

/** Only the outline: the lists are read item by item. */
export const trustOutline = z.strictObject({
  task_issuers: z.array(z.unknown()).default([]),
  workload_sources: z.array(z.unknown()).default([]),
  operators: z.array(z.unknown()).default([]),
  // Read in tool-gateways.ts.
  tool_gateways: z.array(z.unknown()).default([]),
  // Read in signal-sources.ts.
  signal_sources: z.array(z.unknown()).default([]),
});

/** Nothing where nothing is said. */
export function subjectMappings({ subjects }: Pick<TaskIssuerWire, 'subjects'>): Pick<TaskIssuer, 'subjects'> {
  return subjects.length === 0
    ? {}
    : { subjects: subjects.map(({ operators, prefix = '' }) => ({ operators, prefix })) };
}

export type OperatorSourceWire = z.infer<typeof operatorSourceSchema>;
export type TaskIssuerWire = z.infer<typeof taskIssuerSchema>;
/** What every party of `trust.yaml` says of itself. */
export type IssuerWire = Pick<TaskIssuerWire, 'name' | 'dev' | 'issuer' | 'algorithms'> & {
  readonly jwks: KeysWire;
  /** Absent: by tokens, which `iss` tells from those of others. */
  readonly speaksBy?: 'certificates';
};
