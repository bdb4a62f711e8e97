import { z } from 'zod';
import { MayflyError } from '../domain/errors.ts';
import type { JsonObject } from './compact-jws.ts';
import { thumbprint } from './token-claims.ts';

/** RFC 9449 §6.1: the SHA-256 thumbprint of a key, canonical. Another member would ask for a proof that is not looked for here. */
const keyBinding = z.strictObject({ jkt: thumbprint });

/**
 * The thumbprint of the key that a request or token names by `cnf`, null where it names none.
 * @throws MayflyError `key_binding_unsupported` for a binding that is anything else: it must not be taken without its proof.
 */
export function readKeyBinding(claims: JsonObject): string | null {
  if (!Object.hasOwn(claims, 'cnf')) return null;
  const bound = keyBinding.safeParse(claims['cnf']);
  if (!bound.success) throw new MayflyError('key_binding_unsupported');
  return bound.data.jkt;
}
