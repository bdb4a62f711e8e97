import { z } from 'zod';

// AuthZEN 1.0, https://openid.net/specs/authorization-api-1_0.html. What is not known here is ignored, as it says.

/** Evaluations of one call, at most. */
export const MOST_EVALUATIONS = 50;

const properties = z.record(z.string(), z.unknown()).optional();
const text = z.string().max(1000);

const entity = z.object({ type: text, id: text, properties });
const subject = entity.meta({
  description:
    '`task`: one of your own, by our id. `workload`: you yourself, `<source>:<subject>`. What the broker knows of it counts; `properties` of these do not.',
});
const action = z
  .object({ name: text, properties })
  .meta({ description: 'An action of the catalog’s own schema: `Action::"<name>"`.' });
const resource = entity.meta({ description: 'Of a type of the catalog’s own schema.' });
const context = z
  .record(z.string(), z.unknown())
  .meta({ description: 'What the caller says: `context.caller` in policies, as far as the action declares it.' });

export const evaluationBody = z
  .object({ subject, action, resource, context: context.optional() })
  .meta({ id: 'Evaluation' });
export type EvaluationBody = z.output<typeof evaluationBody>;

const semantics = ['execute_all', 'deny_on_first_deny', 'permit_on_first_permit'] as const;
const defaulted = (what: string) =>
  z.unknown().meta({ description: `For each evaluation that has no \`${what}\` of its own.` });

/** What one evaluation lacks or has wrong is told in its own place, so only the outline is looked at here. */
export const evaluationsBody = z
  .object({
    subject: defaulted('subject').optional(),
    action: defaulted('action').optional(),
    resource: defaulted('resource').optional(),
    context: defaulted('context').optional(),
    options: z
      .object({
        evaluations_semantic: z
          .enum(semantics)
          .optional()
          .meta({ description: 'Whether to stop at the first denial, or the first permit. Default: `execute_all`.' }),
      })
      .optional(),
    evaluations: z
      .array(z.unknown())
      .optional()
      .meta({
        description: `At most ${MOST_EVALUATIONS}, each like the body of /access/v1/evaluation. None: the request is one evaluation itself.`,
      }),
  })
  .meta({ id: 'Evaluations' });

export const evaluatedBody = z
  .strictObject({
    decision: z.boolean(),
    context: z.strictObject({
      evaluation_id: z
        .string()
        .optional()
        .meta({ description: 'The decision, in the timeline of the task. Absent: there was nobody to decide about.' }),
      catalog_revision: z.int().optional(),
      valid_for_seconds: z
        .int()
        .optional()
        .meta({ description: 'A permit is for one call, which begins within so many seconds.' }),
      use_limit: z.literal(1).optional().meta({
        description: 'Ask again when the call begins, with this `evaluation_id` in `context`: that is permitted once.',
      }),
      code: z.string().optional().meta({
        description: 'Why not: a code of /problems, `not_evaluable`, `permit_not_usable` or `evaluations_spent`.',
      }),
      reasons: z.array(z.string()).optional(),
      error: z.strictObject({ status: z.int(), message: z.string() }).optional(),
    }),
  })
  .meta({ id: 'Evaluated', description: 'A denial is an answer like a permit.' });
export type EvaluatedBody = z.output<typeof evaluatedBody>;

/** In the order of the request, up to where it stopped; or one decision where the request was one evaluation. */
export const evaluatedAllBody = z
  .union([z.strictObject({ evaluations: z.array(evaluatedBody) }), evaluatedBody])
  .meta({ id: 'EvaluatedAll' });
