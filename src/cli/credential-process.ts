import type { Command } from 'commander';
import { type Ask, type Issued, MayflyClient, ProblemError } from '../client/index.ts';
import { devAgentKey } from './agent-key.ts';
import { brokerUrl } from './dev-state.ts';
import { CliError, explain } from './fail.ts';
import { note } from './output.ts';
import { type AwsKeys, expirationOf, readAwsKeys } from './run/aws-keys.ts';
import { addProofOptions, gatherProofs, type ProofOptions } from './run/proofs.ts';
import { RememberedTask } from './run/remembered-task.ts';
import { wholeSeconds } from './task.ts';

interface Options extends ProofOptions {
  readonly grantTtl?: string;
}

const HELP = `
Nobody is left to complete the task: each credential ends at its own deadline, and the task at its own. While the task lives, a
further call issues a new grant in it. SDKs call again some minutes before the credential expires (boto3: 15, JavaScript: 5): with a
--grant-ttl below that they call at every request. A command that should end its credential when it ends itself is for \`mayfly run\`.`;

export function addCredentialProcessCommand(program: Command): void {
  addProofOptions(
    program
      .command('credential-process')
      .description('Print AWS credentials, for `credential_process` in a profile of an AWS SDK or the AWS CLI.'),
  )
    .usage('--task-request <file-or-url> --grant <entitlement> [options]')
    .option('--grant-ttl <seconds>', 'how long the credential should live')
    .addHelpText('after', HELP)
    .action(printCredential);
}

/** One JSON document on stdout, or nothing. A credential that can not be printed is released. */
async function printCredential(options: Options): Promise<void> {
  const ttl = options.grantTtl === undefined ? undefined : wholeSeconds(options.grantTtl, '--grant-ttl');
  // The next call must prove the same key: it is the task's owner.
  const { request, token, key } = await gatherProofs(options, devAgentKey);
  const url = brokerUrl();
  const client = new MayflyClient({ url, token, ...(key === undefined ? {} : { key }) });
  const { taskRequest } = options;
  // In dev mode each call signs another request, for the same.
  const [call, stated] = taskRequest === undefined ? [options, ''] : [taskRequest, request];
  const remembered = new RememberedTask([url, key?.thumbprint, call], stated);
  const issued = await issue(client, request, remembered, {
    entitlement: options.grant,
    ...(ttl === undefined ? {} : { ttl_seconds: ttl }),
  });
  try {
    const keys = readAwsKeys(issued);
    if (keys === undefined)
      throw new CliError('`mayfly credential-process` prints AWS credentials; this one is of another kind.');
    await write(`${JSON.stringify(documentOf(keys))}\n`);
  } catch (error) {
    await client
      .release(issued.grant.id)
      .catch((cause: unknown) =>
        note(`mayfly: the credential could not be released and ends at ${issued.grant.deadline}. ${explain(cause)}`),
      );
    throw error;
  }
}

/** In the task that an earlier call opened, as long as it lives. */
async function issue(client: MayflyClient, request: string, remembered: RememberedTask, ask: Ask): Promise<Issued> {
  const earlier = remembered.recall();
  if (earlier !== undefined) {
    try {
      return await client.issue(earlier, ask);
    } catch (error) {
      if (!(error instanceof ProblemError && (error.is('task_ended') || error.is('not_found')))) throw error;
    }
  }
  const { task } = await client.openTask(request);
  try {
    remembered.keep(task.id);
  } catch (error) {
    note(`mayfly: which task was opened could not be noted for the next call. ${explain(error)}`);
  }
  return await client.issue(task.id, ask);
}

/** Version 1 of what AWS SDKs read from a `credential_process`. */
function documentOf(keys: AwsKeys) {
  return {
    Version: 1,
    AccessKeyId: keys.accessKeyId,
    SecretAccessKey: keys.secretAccessKey,
    SessionToken: keys.sessionToken,
    Expiration: expirationOf(keys),
  };
}

/** @throws CliError when nobody reads it any more. */
async function write(text: string): Promise<void> {
  const { stdout } = process;
  await new Promise<void>((resolve, reject) => {
    // It comes as an event too, which nobody else hears.
    stdout.on('error', reject);
    stdout.write(text, (error) => (error ? reject(error) : resolve()));
  }).catch((error: unknown) => {
    throw new CliError(`The credential could not be printed, and is released. ${explain(error)}`);
  });
}
