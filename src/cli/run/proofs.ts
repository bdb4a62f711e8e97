import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import type { AgentKey } from '../../client/index.ts';
import { givenAgentKey } from '../agent-key.ts';
import { askDevIssuer, brokerUrl } from '../dev-state.ts';
import { CliError } from '../fail.ts';
import { addSignOptions, type SignOptions, signTaskRequest } from '../task.ts';

const FETCH_MILLIS = 10_000;
/** A task request has at most 16 KiB; more is something else. */
const MAX_REQUEST_CHARS = 32_768;

export interface ProofOptions extends Omit<SignOptions, 'entitlement' | 'purpose'> {
  readonly purpose?: string;
  readonly taskRequest?: string;
  readonly grant: string;
}

/** What opens a task. */
export interface Proofs {
  readonly request: string;
  /** The workload's own token, read again for every call: the platform may have renewed it. */
  readonly token: () => string | Promise<string>;
  /** That the request names. Undefined where its issuer is exempt from naming keys. */
  readonly key: AgentKey | undefined;
}

/** Options of whatever opens a task for one grant. */
export function addProofOptions(command: Command): Command {
  return addSignOptions(command)
    .option('--purpose <purpose>', 'dev mode: sign the task request itself, for this purpose')
    .option(
      '--task-request <file-or-url>',
      'the signed task request; the workload token comes from MAYFLY_TOKEN_FILE, the key that it names from MAYFLY_KEY_FILE',
    )
    .requiredOption('--grant <entitlement>', 'the entitlement to ask for');
}

/**
 * The signed request and the agent's own token. Only dev mode signs for itself: an agent never holds an issuer's key.
 * @param devKey What it signs for, where MAYFLY_KEY_FILE names none.
 */
export async function gatherProofs(options: ProofOptions, devKey: () => Promise<AgentKey>): Promise<Proofs> {
  const tokenFile = process.env['MAYFLY_TOKEN_FILE'];
  const token = tokenFile === undefined ? devToken(options.workload) : () => readText(tokenFile, 'MAYFLY_TOKEN_FILE');
  const given = await givenAgentKey();
  if (options.taskRequest === undefined) {
    if (options.purpose === undefined) throw new CliError('Give --task-request FILE|URL, or in dev mode --purpose.', 2);
    const key = given ?? (await devKey());
    const wanted = { ...options, purpose: options.purpose, entitlement: [options.grant] };
    return { request: await signTaskRequest(wanted, key.thumbprint), token, key };
  }
  if (options.purpose !== undefined)
    throw new CliError('Give --task-request or --purpose, not both: the request says what its task is for.', 2);
  if (tokenFile === undefined)
    throw new CliError('--task-request needs the workload’s own token: set MAYFLY_TOKEN_FILE.', 2);
  return { request: await readRequest(options.taskRequest), token, key: given };
}

function devToken(workload: string): () => Promise<string> {
  return () => askDevIssuer({ kind: 'workload', subject: workload, audience: brokerUrl() });
}

async function readRequest(from: string): Promise<string> {
  if (!/^https?:\/\//.test(from)) return readText(from, '--task-request').trim();
  const failed = (why: string) => new CliError(`The task request at ${from} could not be read: ${why}.`);
  const response = await fetch(from, { redirect: 'error', signal: AbortSignal.timeout(FETCH_MILLIS) }).catch(
    (error: unknown) => {
      throw failed(error instanceof Error ? error.message : String(error));
    },
  );
  if (!response.ok) throw failed(`HTTP ${response.status}`);
  const text = (await response.text()).trim();
  if (text.length > MAX_REQUEST_CHARS) throw failed('it is too long for one');
  return text;
}

function readText(file: string, what: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    const why = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    throw new CliError(`${what}: ${file} can not be read (${why}).`);
  }
}
