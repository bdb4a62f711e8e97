import { z } from 'zod';
import { ProviderError } from '../../src/provider.ts';

const literal = /^[A-Za-z0-9_][A-Za-z0-9._-]*$/;
const placeholder = /\$\{([a-z][a-z0-9_]{0,62})\}/g;
/** No slash, no wildcard (`*`, `+`), no escape (`%`), and not a name that begins with a dot. */
const bindable = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;

/**
 * A path in Vault, without a slash at its ends. `${param}` stands for what the signed request says, anywhere but in the first segment,
 * which chooses the engine.
 */
export const pathSchema = z
  .string()
  .max(512)
  .refine((path) => {
    const segments = path.split('/');
    return segments.every((segment) => literal.test(segment.replaceAll(placeholder, 'x')) && !segment.includes('..'));
  }, 'must be segments of letters, digits, _, - and ., with ${param} for what is bound')
  .refine((path) => placeholdersOf(path.split('/')[0] ?? '').length === 0, 'must begin with the mount itself')
  .refine((path) => !/^(sys|auth|identity|cubbyhole)(\/|$)/.test(path), 'is not for agents');

/** The params that a path binds. */
export function placeholdersOf(path: string): readonly string[] {
  return [...new Set([...path.matchAll(placeholder)].flatMap((match) => match[1] ?? []))];
}

/**
 * The path of one grant. A value can never leave its segment, nor be several.
 * @throws ProviderError `misconfigured` for a param that nothing binds, one that is missing, and a value that is no name.
 */
export function bindPath(path: string, params: Readonly<Record<string, string | number | boolean>>): string {
  const bound = placeholdersOf(path);
  // To ignore a param would be to grant more than was decided.
  assertBound(bound, params);
  return path.replaceAll(placeholder, (_, param: string) => {
    const value = String(params[param]);
    if (!bindable.test(value) || value.includes('..'))
      throw new ProviderError('misconfigured', `the param ${param} can not stand in a path`);
    return value;
  });
}

/** @throws ProviderError `misconfigured` */
export function assertBound(
  bound: readonly string[],
  params: Readonly<Record<string, string | number | boolean>>,
): void {
  const unbound = Object.keys(params).filter((param) => !bound.includes(param));
  const missing = bound.filter((param) => !Object.hasOwn(params, param));
  if (unbound.length > 0)
    throw new ProviderError('misconfigured', `nothing here binds the params ${unbound.join(', ')}`);
  if (missing.length > 0)
    throw new ProviderError('misconfigured', `without ${missing.join(', ')} the path is not known`);
}
