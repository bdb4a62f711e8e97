import type { EntitlementDefinition, ParamSchema } from '../catalog/types.ts';
import { MayflyError, type FieldError } from '../domain/errors.ts';
import type { ParamValue } from '../domain/task.ts';

/**
 * The params that an entitlement declares, taken from the signed request and nowhere else. Those that it does not declare are
 * another entitlement's and are left out.
 * @throws MayflyError `params_invalid`, naming each one that is missing or does not fit.
 */
export function checkParams(
  entitlement: EntitlementDefinition,
  given: Readonly<Record<string, ParamValue>>,
): Record<string, ParamValue> {
  const errors: FieldError[] = [];
  const params: Record<string, ParamValue> = {};
  for (const [name, schema] of Object.entries(entitlement.params)) {
    const value = Object.hasOwn(given, name) ? given[name] : undefined;
    const fault = value === undefined ? 'is missing' : misfit(schema, value);
    if (fault !== undefined) errors.push({ path: `$.authorization_details[0].params.${name}`, message: fault });
    else if (value !== undefined) params[name] = value;
  }
  if (errors.length > 0) throw new MayflyError('params_invalid', undefined, { errors });
  return params;
}

function misfit(schema: ParamSchema, value: ParamValue): string | undefined {
  const kind = schema.type === 'integer' ? 'number' : schema.type;
  if (typeof value !== kind || (schema.type === 'integer' && !Number.isSafeInteger(value)))
    return `must be of type ${schema.type}`;
  if (
    typeof value === 'string' &&
    schema.pattern !== undefined &&
    !new RegExp(`^(?:${schema.pattern})$`, 'u').test(value)
  )
    return 'does not fit its pattern';
  if (schema.enum !== undefined && !schema.enum.includes(value)) return 'is not one of the values allowed';
  if (typeof value === 'number' && schema.min !== undefined && value < schema.min)
    return `must be at least ${schema.min}`;
  if (typeof value === 'number' && schema.max !== undefined && value > schema.max)
    return `must be at most ${schema.max}`;
  return undefined;
}
