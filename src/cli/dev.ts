import type { Command } from 'commander';
import { devAgentKey } from './agent-key.ts';
import { askDevIssuer, brokerUrl, requireDevState } from './dev-state.ts';
import { say } from './output.ts';
import { wholeSeconds } from './task.ts';

export const DEFAULT_POSTGRES_PORT = 7432;
export const DEFAULT_ISSUER_PORT = 7421;
/** Longest life of a token of the dev issuer. */
const MAX_TOKEN_SECONDS = 3600;

export interface DevOptions {
  readonly catalog?: string;
  readonly postgresPort?: string;
  readonly issuerPort?: string;
  /** Says nothing but what goes wrong. */
  readonly quiet?: boolean;
}

/** Options of whatever starts a dev broker. */
export function addDevOptions(command: Command): Command {
  return command
    .option('--catalog <dir>', 'the catalog to apply at start and on change (default: the example)')
    .option('--postgres-port <port>', 'port of the embedded Postgres', String(DEFAULT_POSTGRES_PORT))
    .option('--issuer-port <port>', 'port of the dev issuer', String(DEFAULT_ISSUER_PORT));
}

export function addDevCommands(program: Command): void {
  const dev = addDevOptions(program.command('dev'))
    .description(
      'Run a broker on this machine with all it needs: an embedded Postgres, a demo target, an issuer for development.',
    )
    .action(async (options: DevOptions) => (await import('./dev-broker.ts')).startDev(options));
  dev
    .command('proof')
    .description('Print a proof of possession for one call, by the key that `task sign` names (RFC 9449).')
    .argument('<method>', 'of the call, e.g. POST')
    .argument('<path>', 'of the call, e.g. /v1/tasks')
    .requiredOption('--token <token>', 'the workload token that goes with it')
    .option('--nonce <nonce>', 'what the broker gave in DPoP-Nonce, where it demands one')
    .action(async (method: string, path: string, { token, nonce }: { token: string; nonce?: string }) => {
      requireDevState();
      say(await (await devAgentKey()).prove(method, `${brokerUrl()}${path}`, token, nonce));
    });
  dev
    .command('token')
    .description('Print a workload token of the dev issuer, or an operator’s with --operator.')
    .option('--workload <subject>', 'which workload', 'agent-recon')
    .option('--operator', 'a token for an operator with every role: the bootstrap of dev mode')
    .option('--ttl <seconds>', 'how long it lives', '900')
    .action(async (options: { workload: string; operator?: boolean; ttl: string }) => {
      const common = { audience: brokerUrl(), ttl_seconds: wholeSeconds(options.ttl, '--ttl', MAX_TOKEN_SECONDS) };
      const roles = ['viewer', 'operator', 'approver', 'auditor', 'admin'];
      say(
        await askDevIssuer(
          options.operator === true
            ? { kind: 'operator', subject: 'dev-operator', roles, ...common }
            : { kind: 'workload', subject: options.workload, ...common },
        ),
      );
    });
}
