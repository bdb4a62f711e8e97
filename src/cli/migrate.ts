import type { Command } from 'commander';
import type { Secret } from '../domain/secret.ts';
import { migrate } from '../store/migrate.ts';
import { say } from './output.ts';
import { migrationsFolder } from './package-root.ts';
import { readConfigNeeding } from './settings.ts';

export function addMigrateCommand(program: Command): void {
  program
    .command('migrate')
    .description('Bring the store up to this release, as its owner (MAYFLY_OWNER_DATABASE_URL).')
    .action(async () => {
      const config = readConfigNeeding(process.env, {
        owner_database_url: 'migrations run as the owner of the schema',
        database_url: 'its login gets its rights here',
        sequencer_database_url: 'its login gets its rights here',
      });
      const report = await migrate({
        ownerUrl: config.owner_database_url,
        folder: migrationsFolder(),
        runtime: loginOf(config.database_url),
        sequencer: loginOf(config.sequencer_database_url),
        dev: false,
      });
      say(report.applied.length === 0 ? 'The store is up to date.' : `Applied: ${report.applied.join(', ')}.`);
    });
}

function loginOf(url: Secret<string>): string {
  return decodeURIComponent(new URL(url.reveal()).username);
}
