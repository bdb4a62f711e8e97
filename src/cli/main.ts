#!/usr/bin/env node
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import { addCatalogCommands } from './catalog.ts';
import { addConfigCommand } from './config.ts';
import { addDemoCommand } from './demo.ts';
import { addDevCommands } from './dev.ts';
import { CliError, explain } from './fail.ts';
import { addMigrateCommand } from './migrate.ts';
import { packageRoot } from './package-root.ts';
import { addRunCommand } from './run.ts';
import { addServeCommand } from './serve.ts';
import { addTargetCommands } from './target.ts';
import { addTaskCommands } from './task.ts';

const { version } = JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8')) as { version: string };

const program = new Command('mayfly')
  .description(
    'Ephemeral credentials for autonomous agents: one verified task, one credential, taken back and proven gone.',
  )
  .version(version)
  .enablePositionalOptions()
  .showHelpAfterError('(mayfly --help tells more)');
for (const add of [
  addDevCommands,
  addServeCommand,
  addMigrateCommand,
  addCatalogCommands,
  addTargetCommands,
  addTaskCommands,
  addRunCommand,
  addDemoCommand,
  addConfigCommand,
]) {
  add(program);
}

try {
  await program.parseAsync();
} catch (error) {
  const status = error instanceof CliError ? error.exitCode : 1;
  // What failed half way may have left a connection open, which would keep this process alive.
  process.stderr.write(`${explain(error)}\n`, () => process.exit(status));
}
