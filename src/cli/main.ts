#!/usr/bin/env node
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import { CliError, explain } from './fail.ts';
import { packageRoot } from './package-root.ts';

type Add = (program: Command) => void;

/** Loaded only when asked for: the whole broker takes half a second and 70 MB, and `mayfly run` starts beside every agent. */
const commands: Readonly<Record<string, () => Promise<Add>>> = {
  dev: async () => (await import('./dev.ts')).addDevCommands,
  serve: async () => (await import('./serve.ts')).addServeCommand,
  migrate: async () => (await import('./migrate.ts')).addMigrateCommand,
  catalog: async () => (await import('./catalog.ts')).addCatalogCommands,
  target: async () => (await import('./target.ts')).addTargetCommands,
  approvals: async () => (await import('./approvals.ts')).addApprovalCommands,
  reach: async () => (await import('./reach.ts')).addReachCommand,
  kill: async () => (await import('./kill.ts')).addKillCommands,
  signals: async () => (await import('./list-signals.ts')).addSignalsCommand,
  explain: async () => (await import('./explain.ts')).addExplainCommand,
  replay: async () => (await import('./explain.ts')).addReplayCommand,
  revocations: async () => (await import('./revocations.ts')).addRevocationCommands,
  webhooks: async () => (await import('./webhooks.ts')).addWebhookCommands,
  whoami: async () => (await import('./whoami.ts')).addWhoAmICommand,
  task: async () => (await import('./task.ts')).addTaskCommands,
  run: async () => (await import('./run.ts')).addRunCommand,
  'credential-process': async () => (await import('./credential-process.ts')).addCredentialProcessCommand,
  demo: async () => (await import('./demo.ts')).addDemoCommand,
  config: async () => (await import('./config.ts')).addConfigCommand,
};

const { version } = JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8')) as { version: string };

const program = new Command('mayfly')
  .description(
    'Ephemeral credentials for autonomous agents: one verified task, one credential, taken back and proven gone.',
  )
  .version(version)
  .enablePositionalOptions()
  .showHelpAfterError('(mayfly --help tells more)');

try {
  const [asked = ''] = process.argv.slice(2);
  const known = Object.entries(commands);
  // Anything else, `--help` too, needs to know them all.
  const wanted = Object.hasOwn(commands, asked) ? known.filter(([name]) => name === asked) : known;
  for (const [, load] of wanted) {
    const add = await load();
    add(program);
  }
  await program.parseAsync();
  leave(process.exitCode);
} catch (error) {
  process.stderr.write(`${explain(error)}\n`);
  leave(error instanceof CliError ? error.exitCode : 1);
}

/**
 * Ends the process once all is written. Left to itself it would go on as long as a connection stands open that something which
 * failed half way has left, and for the five seconds of a timer that BullMQ leaves when it is closed.
 */
function leave(status: number | string | null | undefined): void {
  process.stdout.write('', () => process.stderr.write('', () => process.exit(status)));
}
