import { z } from 'zod';
import { MayflyError } from '../domain/errors.ts';
import type { JsonObject } from './compact-jws.ts';
import { thumbprint } from './token-claims.ts';

/** Another member would ask for a proof that is not looked for here, and so would two at once. */
const keyBinding = z.strictObject({ jkt: thumbprint });
const certificateBinding = z.strictObject({ 'x5t#S256': thumbprint });

/** What a token is bound to. At most one of them is there. */
export interface TokenBinding {
  /** RFC 9449 §6.1: thumbprint of a key. */
  readonly key: string | null;
  /** RFC 8705 §3.1: thumbprint of a certificate. */
  readonly certificate: string | null;
}

/**
 * The thumbprint of the key that a request names by `cnf`, null where it names none.
 * @throws MayflyError `key_binding_unsupported` for a binding that is anything else: it must not be taken without its proof.
 */
export function readKeyBinding(claims: JsonObject): string | null {
  return Object.hasOwn(claims, 'cnf') ? readJkt(claims['cnf']) : null;
}

/** What a token names by `cnf`. @throws MayflyError `key_binding_unsupported` */
export function readTokenBinding(claims: JsonObject): TokenBinding {
  if (!Object.hasOwn(claims, 'cnf')) return { key: null, certificate: null };
  const certificate = certificateBinding.safeParse(claims['cnf']);
  return certificate.success
    ? { key: null, certificate: certificate.data['x5t#S256'] }
    : { key: readJkt(claims['cnf']), certificate: null };
}

function readJkt(cnf: unknown): string {
  const bound = keyBinding.safeParse(cnf);
  if (!bound.success) throw new MayflyError('key_binding_unsupported');
  return bound.data.jkt;
}
