import { z } from 'zod';
import { operatorRoles } from '../catalog/types.ts';
import { problemCodes } from '../domain/problems.ts';
import { tokenChecks } from '../identity/types.ts';
import { time } from './answers.ts';

// What callers are told of themselves, and operators of others' tokens.

const scope = z.strictObject({
  owner: z.string().optional(),
  environment: z.string().optional(),
  labels: z.record(z.string(), z.string()).optional(),
});

const callerBody = z
  .discriminatedUnion('kind', [
    z.strictObject({
      kind: z.literal('workload'),
      workload: z.string().meta({ description: '`<source>:<subject>`.' }),
      instance: z.string().nullable().meta({ description: 'The running copy, where its tokens tell copies apart.' }),
      key_thumbprint: z.string().nullable().meta({ description: 'Of the key that was proven with this call.' }),
      token_expires_at: time,
    }),
    z.strictObject({
      kind: z.literal('operator'),
      operator: z.string().meta({ description: '`<source>:<subject>`.' }),
      roles: z.array(
        z.strictObject({
          role: z.enum(operatorRoles),
          scope: scope.nullable().meta({ description: 'Null: everywhere.' }),
        }),
      ),
      token_expires_at: time,
    }),
  ])
  .meta({ id: 'WhoAmI', description: 'As whom the broker believes a token.' });

export const whoAmIBody = callerBody;

export const explainTokenBody = z
  .strictObject({
    token: z.string().min(1).max(32_768).meta({
      description: 'The token, without `Bearer`. It is looked at and forgotten: it stands in no log and no row.',
    }),
  })
  .meta({ id: 'ExplainToken' });

export const explainedTokenBody = z
  .strictObject({
    believed: z.boolean(),
    says: z.string().meta({ description: 'What came of it, in a sentence.' }),
    caller: callerBody.nullable().meta({ description: 'As whom it is believed, before any proof of possession.' }),
    refusal: z
      .strictObject({
        code: z.enum(problemCodes),
        title: z.string(),
        detail: z.string().optional(),
        next: z.string(),
        errors: z.array(z.strictObject({ path: z.string(), message: z.string() })),
      })
      .nullable()
      .meta({ description: 'What the caller is answered.' }),
    source: z.string().nullable().meta({ description: 'Of the catalog, that judges it.' }),
    bound_to_key: z.string().nullable().meta({ description: 'It counts only with a proof by this key.' }),
    bound_to_certificate: z
      .string()
      .nullable()
      .meta({ description: 'It counts only over a connection with this client certificate.' }),
    task_issuers: z.array(z.string()).meta({ description: 'That may name this workload.' }),
    checks: z.array(
      z.strictObject({
        check: z.enum(tokenChecks),
        outcome: z.enum(['held', 'failed', 'unknown']).meta({ description: '`unknown`: another one failed before.' }),
        found: z.unknown().optional().meta({ description: 'What stands in the token.' }),
        expected: z.unknown().optional().meta({ description: 'What the catalog or this broker wants.' }),
      }),
    ),
  })
  .meta({ id: 'TokenExplanation' });

export type WhoAmIBody = z.output<typeof whoAmIBody>;
export type ExplainedTokenBody = z.output<typeof explainedTokenBody>;
