import type { Command } from 'commander';
import { ConfigError, readConfig } from '../config.ts';
import type { Secret } from '../domain/secret.ts';
import { migrate } from '../store/migrate.ts';
import { say } from './output.ts';
import { migrationsFolder } from './package-root.ts';

export function addMigrateCommand(program: Command): void {
  program
    .command('migrate')
    .description('Bring the store up to this release, as its owner (MAYFLY_OWNER_DATABASE_URL).')
    .action(async () => {
      const config = readConfig(process.env);
      const { owner_database_url: ownerUrl, database_url: runtimeUrl, sequencer_database_url: sequencerUrl } = config;
      if (ownerUrl === undefined || runtimeUrl === undefined || sequencerUrl === undefined) {
        throw new ConfigError([
          ...(ownerUrl === undefined ? ['MAYFLY_OWNER_DATABASE_URL: missing'] : []),
          ...(runtimeUrl === undefined ? ['MAYFLY_DATABASE_URL: missing; its login gets its rights here'] : []),
          ...(sequencerUrl === undefined
            ? ['MAYFLY_SEQUENCER_DATABASE_URL: missing; its login gets its rights here']
            : []),
        ]);
      }
      const report = await migrate({
        ownerUrl,
        folder: migrationsFolder(),
        runtime: loginOf(runtimeUrl),
        sequencer: loginOf(sequencerUrl),
        dev: false,
      });
      say(report.applied.length === 0 ? 'The store is up to date.' : `Applied: ${report.applied.join(', ')}.`);
    });
}

function loginOf(url: Secret<string>): string {
  return decodeURIComponent(new URL(url.reveal()).username);
}
