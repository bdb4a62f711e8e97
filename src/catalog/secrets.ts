import { closeSync, constants, fstatSync, openSync, readSync, realpathSync } from 'node:fs';
import { join, sep } from 'node:path';
import { Secret } from '../domain/secret.ts';
import { ProviderError } from '../provider.ts';
import { parseReference } from './references.ts';

/** Larger than any password, key or certificate bundle. */
const MAX_BYTES = 64 * 1024;

export interface SecretPlaces {
  /** Holds one folder for each target. */
  readonly secretsDir: string;
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** @throws ProviderError `misconfigured`; its message names the reference, never what stands there. */
export type SecretResolver = (target: string, reference: string) => Secret<string>;

/**
 * Resolves a target's references, anew at each call: a rotated file counts from then on. A target reaches its own
 * variables (`MAYFLY_TARGET_<NAME>_*`) and files below `<secretsDir>/<target>/`, also through links, and no more.
 */
export function createSecretResolver({ secretsDir, env }: SecretPlaces): SecretResolver {
  return (target, text) => {
    const refuse = (why: string): ProviderError => new ProviderError('misconfigured', `${target}: ${text} ${why}`);
    const reference = parseReference(target, text);
    // The text itself may be a secret in clear.
    if (reference.kind === 'refused') throw new ProviderError('misconfigured', `${target}: a secret ${reference.why}`);
    if (reference.kind === 'file') {
      const content = readBelow(join(secretsDir, target), reference.path, refuse);
      if (content === '') throw refuse('is empty');
      return new Secret(content);
    }
    const value = Object.hasOwn(env, reference.name) ? env[reference.name] : undefined;
    if (value === undefined || value === '') throw refuse('is not set');
    return new Secret(value);
  };
}

function readBelow(folder: string, path: string, refuse: (why: string) => ProviderError): string {
  const real = realPathBelow(folder, path, refuse);
  let descriptor: number | undefined;
  try {
    // NOFOLLOW: what was checked is what is read, even if somebody swaps in a link meanwhile. NONBLOCK: a FIFO never hangs us.
    descriptor = openSync(real, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    if (!fstatSync(descriptor).isFile()) throw refuse('is not a file');
    const buffer = Buffer.alloc(MAX_BYTES + 1);
    const bytes = readSync(descriptor, buffer, 0, buffer.length, 0);
    if (bytes > MAX_BYTES) throw refuse(`is larger than ${MAX_BYTES} bytes`);
    return new TextDecoder('utf-8', { fatal: true }).decode(buffer.subarray(0, bytes)).replace(/\r?\n$/, '');
  } catch (error) {
    if (error instanceof ProviderError) throw error;
    throw refuse(error instanceof TypeError ? 'is not UTF-8 text' : 'cannot be read');
  } finally {
    if (descriptor !== undefined) closeSync(descriptor);
  }
}

function realPathBelow(folder: string, path: string, refuse: (why: string) => ProviderError): string {
  const [root, real] = [realPath(folder), realPath(join(folder, path))];
  if (root === undefined || real === undefined) throw refuse('is not there');
  if (!real.startsWith(root + sep)) throw refuse('leads out of the target’s secrets folder');
  return real;
}

function realPath(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}
