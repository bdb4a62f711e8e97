import { z } from 'zod';
import { targetSchema } from './definition-schema.ts';
import { uniqueList } from './names.ts';
import { operatorRoles, type RoleBinding, type TargetDefinition, type TargetScope } from './types.ts';

const role = z.enum(operatorRoles, `must be one of ${operatorRoles.join(', ')}`);

// Without a word in it a scope would hold everywhere, which nobody shall say by leaving something out.
const scope = z
  .strictObject({
    owner: targetSchema.shape.owner.optional(),
    environment: targetSchema.shape.environment.optional(),
    labels: targetSchema.shape.labels.unwrap().optional(),
  })
  .refine(
    ({ owner, environment, labels = {} }) =>
      owner !== undefined || environment !== undefined || Object.keys(labels).length > 0,
    'must name an owner, an environment or labels; roles that hold everywhere stand in the list as they are',
  );

const scopedRoles = z.strictObject({ roles: z.array(role).min(1, 'must name at least one role'), scope });

/** One item of the list that a claim value maps to: a role that holds everywhere, or roles with their scope. */
const binding = z.unknown().transform((item, context): RoleBinding => {
  // Not a union: that would say of a wrong item only that it is none of the two.
  const parsed = (typeof item === 'object' && item !== null ? scopedRoles : role).safeParse(item);
  if (parsed.success) return parsed.data;
  for (const issue of parsed.error.issues) {
    if (issue.code === 'unrecognized_keys')
      for (const key of issue.keys)
        context.addIssue({ code: 'custom', path: [...issue.path, key], message: 'unknown field' });
    else context.addIssue({ code: 'custom', path: issue.path, message: issue.message });
  }
  return z.NEVER;
});

export const roleBindings = uniqueList<RoleBinding>(binding);

/** Whether a target is in a scope: it fits in every word of it. */
export function isInScope(
  { owner, environment, labels = {} }: TargetScope,
  target: Pick<TargetDefinition, 'owner' | 'environment' | 'labels'>,
): boolean {
  return (
    (owner === undefined || owner === target.owner) &&
    (environment === undefined || environment === target.environment) &&
    Object.entries(labels).every(([label, value]) => target.labels[label] === value)
  );
}
