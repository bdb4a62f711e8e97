import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import type { z } from 'zod';
import { MayflyClient } from '../client/index.ts';
import { type ExplainedTokenBody, explainedTokenBody, whoAmIBody } from '../http/whoami-bodies.ts';
import { givenAgentKey } from './agent-key.ts';
import { brokerUrl } from './dev-state.ts';
import { CliError } from './fail.ts';
import { callAsOperator, operatorToken } from './operator.ts';
import { say, styled, table } from './output.ts';

interface Flags {
  readonly explain?: string;
  readonly json?: boolean;
}

export function addWhoAmICommand(program: Command): void {
  program
    .command('whoami')
    .description(
      'As whom the broker believes the token in MAYFLY_TOKEN_FILE, with the key in MAYFLY_KEY_FILE; or which check it fails.',
    )
    .option('--explain <file>', 'as an operator: explain the token in this file instead (- is standard input)')
    .option('--json', 'as JSON')
    .action(async ({ explain, json }: Flags) => (explain === undefined ? tellSelf(json) : tellOther(explain, json)));
}

async function tellSelf(json: boolean | undefined): Promise<void> {
  const key = await givenAgentKey();
  const client = new MayflyClient({
    url: brokerUrl(),
    token: operatorToken,
    ...(key === undefined ? {} : { key }),
  });
  const self = whoAmIBody.parse(await client.whoAmI());
  if (json === true) return say(JSON.stringify(self, null, 2));
  say(sentenceOf(self));
}

async function tellOther(file: string, json: boolean | undefined): Promise<void> {
  const explained = await callAsOperator('POST', '/v1/whoami', explainedTokenBody, { token: readToken(file) });
  if (!explained.believed) process.exitCode = 1;
  if (json === true) return say(JSON.stringify(explained, null, 2));
  const { says, caller, refusal, source, checks, task_issuers: issuers } = explained;
  say(styled(explained.believed ? 'green' : 'red', says));
  if (caller !== null) say(sentenceOf(caller));
  if (source !== null) say(`It is judged by ${source} of the catalog.`);
  if (issuers.length > 0) say(`Task issuers that may name it: ${issuers.join(', ')}.`);
  say();
  say(table([['CHECK', 'OUTCOME', 'IN THE TOKEN', 'WANTED'], ...checks.map(rowOf)]));
  if (refusal === null) return;
  say();
  if (refusal.detail !== undefined) say(printable(refusal.detail));
  for (const { path, message } of refusal.errors) say(printable(`  ${path}: ${message}`));
  say(`${refusal.code}: ${refusal.next}`);
}

function sentenceOf(caller: z.output<typeof whoAmIBody>): string {
  const until = `Its token expires at ${caller.token_expires_at}.`;
  if (caller.kind === 'operator') {
    const roles = caller.roles.map(({ role, scope }) =>
      scope === null ? role : `${role} in ${JSON.stringify(scope)}`,
    );
    return `It is the operator ${caller.operator}: ${roles.join(', ')}. ${until}`;
  }
  const { workload, instance, key_thumbprint: key } = caller;
  const copy = instance === null ? '' : `, instance ${instance}`;
  return `It is the workload ${workload}${copy}, ${key === null ? 'without a proven key' : `with the key ${key}`}. ${until}`;
}

function rowOf({ check, outcome, found, expected }: ExplainedTokenBody['checks'][number]): string[] {
  const shown = (value: unknown) => (value === undefined ? '' : printable(JSON.stringify(value)));
  return [check, outcome === 'failed' ? 'FAILED' : outcome, shown(found), shown(expected)];
}

/** A stranger's token speaks here: none of it moves the cursor. */
function printable(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Cf}]/gu, '');
}

function readToken(file: string): string {
  try {
    return readFileSync(file === '-' ? 0 : file, 'utf8').trim();
  } catch (error) {
    const why = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    throw new CliError(`--explain: ${file} can not be read (${why}).`);
  }
}
