import { generateKeyPairSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { AgentKey } from '../client/index.ts';
import { Secret } from '../domain/secret.ts';
import { keepSecretFile } from './dev/dev-folder.ts';
import { devFolder } from './dev-state.ts';
import { CliError } from './fail.ts';

const privateJwk = z.looseObject({
  ...{ kty: z.literal('EC'), crv: z.literal('P-256') },
  ...{ x: z.string(), y: z.string(), d: z.string() },
});

/** The key in the file named by MAYFLY_KEY_FILE, whose thumbprint the task issuer was told. Undefined where none is named. */
export async function givenAgentKey(): Promise<AgentKey | undefined> {
  const file = process.env['MAYFLY_KEY_FILE'];
  if (file === undefined) return undefined;
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    const why = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    throw new CliError(`MAYFLY_KEY_FILE: ${file} can not be read (${why}).`);
  }
  return await open(file, text);
}

/** Dev mode: the key of whoever tries it from a shell, made once and kept in the dev folder. */
export async function devAgentKey(): Promise<AgentKey> {
  const file = join(devFolder(), 'agent.jwk');
  return await open(file, (await keepSecretFile(file, makeJwk)).reveal());
}

function makeJwk(): Secret<string> {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return new Secret(JSON.stringify(privateKey.export({ format: 'jwk' })));
}

async function open(file: string, text: string): Promise<AgentKey> {
  try {
    return await AgentKey.from(privateJwk.parse(JSON.parse(text)));
  } catch {
    // Without the cause: a parse error quotes what it read.
    throw new CliError(`${file} holds no P-256 private key as JWK.`);
  }
}
