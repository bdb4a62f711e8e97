import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { Secret } from '../domain/secret.ts';
import { CliError } from './fail.ts';

/** Where dev mode keeps everything: `.mayfly` here, or MAYFLY_DIR. */
export function devFolder(): string {
  return process.env['MAYFLY_DIR'] ?? '.mayfly';
}

const stateSchema = z.strictObject({ url: z.string(), issuer_url: z.string(), postgres_port: z.int() });
/** What a running dev broker tells the other commands. */
export type DevState = z.output<typeof stateSchema>;

const stateFile = () => join(devFolder(), 'dev.json');

/** Whole or not at all: another command may read it at this moment. */
export function writeDevState(state: DevState): void {
  const draft = `${stateFile()}.${process.pid}.tmp`;
  writeFileSync(draft, `${JSON.stringify(state, null, 2)}\n`, { mode: 0o600 });
  renameSync(draft, stateFile());
}

/** Undefined when dev mode never ran here. */
export function readDevState(): DevState | undefined {
  if (!existsSync(stateFile())) return undefined;
  const parsed = stateSchema.safeParse(parse(readFileSync(stateFile(), 'utf8')));
  if (!parsed.success)
    throw new CliError(`${stateFile()} is not what dev mode writes. Remove it, and start dev mode again.`);
  return parsed.data;
}

/** The broker that the commands talk to: MAYFLY_URL, else the dev broker of this folder. */
export function brokerUrl(): string {
  return process.env['MAYFLY_URL'] ?? readDevState()?.url ?? 'http://127.0.0.1:7420';
}

/** The runtime's URL of the dev store of this folder, if there is one. */
export function devStoreUrl(): Secret<string> | undefined {
  const state = readDevState();
  const passwordFile = join(devFolder(), 'secrets', 'state-db', 'mayfly_runtime');
  if (state === undefined || !existsSync(passwordFile)) return undefined;
  const password = encodeURIComponent(readFileSync(passwordFile, 'utf8').trim());
  return new Secret(`postgres://mayfly_runtime:${password}@127.0.0.1:${state.postgres_port}/mayfly`);
}

const issuerSecretFile = () => join(devFolder(), 'issuer-secret');

/** @throws CliError when dev mode never ran here. */
export function requireDevState(): DevState {
  const state = readDevState();
  if (state === undefined || !existsSync(issuerSecretFile())) {
    throw new CliError(
      `No dev broker was started in this folder. Start one with \`npm start\`, or name its folder with MAYFLY_DIR.`,
    );
  }
  return state;
}

/** Asks the dev issuer of this folder to sign something. Only who can read its secret file can. */
export async function askDevIssuer(body: Readonly<Record<string, unknown>>): Promise<string> {
  const state = requireDevState();
  const secretFile = issuerSecretFile();
  const response = await fetch(`${state.issuer_url}/token`, {
    method: 'POST',
    headers: { authorization: `Bearer ${readFileSync(secretFile, 'utf8').trim()}`, 'content-type': 'application/json' },
    body: JSON.stringify(body),
  }).catch((cause: unknown) => {
    throw new CliError(
      `The dev issuer at ${state.issuer_url} does not answer. Is the broker running (\`npm start\`)? ${cause instanceof Error ? cause.message : ''}`.trim(),
    );
  });
  const answer = parse(await response.text());
  const parsed = z.object({ token: z.string() }).safeParse(answer);
  if (parsed.success) return parsed.data.token;
  const refusal = z
    .object({ title: z.string(), errors: z.array(z.object({ path: z.string(), message: z.string() })).default([]) })
    .safeParse(answer);
  if (!refusal.success)
    throw new CliError(`What answers at ${state.issuer_url} is not the dev issuer (HTTP ${response.status}).`);
  const { title, errors } = refusal.data;
  throw new CliError(
    [`The dev issuer refused: ${title}`, ...errors.map(({ path, message }) => `  ${path}: ${message}`)].join('\n'),
  );
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
