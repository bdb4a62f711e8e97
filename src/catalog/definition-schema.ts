import { z } from 'zod';
import { entitlementName, name, purposeName, seconds, text, uniqueList } from './names.ts';
import { type ParamSchema, sensitivities } from './types.ts';

/** The wire forms of targets, entitlements and purposes. */

const sensitivity = z.enum(sensitivities, `must be one of ${sensitivities.join(', ')}`);

/** The longest life of any grant: what the wire accepts as `ttl_seconds`. */
const DAY = 86_400;

export const targetSchema = z.strictObject({
  name,
  provider: name,
  connection: z.record(z.string(), z.unknown()),
  environment: name,
  owner: text(200),
  sensitivity,
  labels: z
    .record(z.string().regex(/^[a-z][a-z0-9._/-]{0,62}$/, 'must be a lower-case label name'), text(200))
    .default({}),
});

const paramValue = z.union([z.string().max(1000), z.number(), z.boolean()], 'must be text, a number, true or false');

const paramSchema = z
  .strictObject({
    type: z.enum(['string', 'integer', 'boolean'], 'must be string, integer or boolean'),
    pattern: z.string().max(500).optional(),
    enum: z.array(paramValue).min(1).max(500).optional(),
    min: z.int().optional(),
    max: z.int().optional(),
  })
  .superRefine((param, context) => {
    for (const [field, message] of paramFaults(param)) context.addIssue({ code: 'custom', path: [field], message });
  });

function* paramFaults(param: ParamSchema): Iterable<readonly [keyof ParamSchema, string]> {
  if (param.pattern !== undefined) {
    if (param.type !== 'string') yield ['pattern', 'only text can have a pattern'];
    if (!compiles(param.pattern)) yield ['pattern', 'is not a regular expression'];
  }
  if (param.type === 'string' && param.pattern === undefined && param.enum === undefined) {
    yield ['type', 'text needs a `pattern` or an `enum`: it ends up in the target'];
  }
  if (param.type === 'boolean' && param.enum !== undefined) yield ['enum', 'only text and integers can have an enum'];
  if (param.type !== 'integer') {
    if (param.min !== undefined) yield ['min', 'only integers have a least value'];
    if (param.max !== undefined) yield ['max', 'only integers have a greatest value'];
  }
  if (param.min !== undefined && param.max !== undefined && param.min > param.max) yield ['min', 'is above `max`'];
  const wrong = param.enum?.some((value) =>
    param.type === 'integer' ? !Number.isSafeInteger(value) : typeof value !== param.type,
  );
  if (wrong === true) yield ['enum', `must hold only values of type ${param.type}`];
}

function compiles(pattern: string): boolean {
  try {
    return new RegExp(pattern, 'u').unicode;
  } catch {
    return false;
  }
}

export const entitlementSchema = z.strictObject({
  name: entitlementName,
  target: name,
  sensitivity,
  actions: uniqueList(name).refine((list) => list.length > 0, 'must name at least one action'),
  data_classes: uniqueList(name).default([]),
  sink: z.boolean().default(false),
  max_ttl_seconds: seconds(DAY),
  params: z
    .record(z.string().regex(/^[a-z][a-z0-9_]{0,62}$/, 'must be a lower-case param name'), paramSchema)
    .default({}),
  provider: z.record(z.string(), z.unknown()),
  sealed_delivery: z.enum(['required', 'optional'], 'must be required or optional').default('optional'),
  on_owned_objects: z.enum(['drop', 'keep'], 'must be drop or keep').default('drop'),
});

export const purposeSchema = z.strictObject({
  name: purposeName,
  description: text(500),
  phases: uniqueList(name).default([]),
  max_life_seconds: seconds(DAY * 7),
});

export type EntitlementWire = z.infer<typeof entitlementSchema>;
