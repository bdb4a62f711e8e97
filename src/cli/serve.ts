import type { Command } from 'commander';
import { createLogger } from '../http/log.ts';
import { startBroker } from '../wiring.ts';
import { startDev } from './dev-broker.ts';
import { migrationsFolder } from './package-root.ts';
import { readConfigNeeding } from './settings.ts';
import { untilSignal } from './signals.ts';

export function addServeCommand(program: Command): void {
  program
    .command('serve')
    .description('Run the broker. Settings come from MAYFLY_* variables; `mayfly config` shows them.')
    .option('--catalog <dir>', 'dev mode: apply this catalog at start and on change, on an embedded store')
    .action(async (options: { catalog?: string }) => {
      if (options.catalog !== undefined) return await startDev({ catalog: options.catalog });
      const config = readConfigNeeding(process.env, { database_url: '`mayfly dev` needs none' });
      const log = createLogger(config.log_level);
      const stopped = untilSignal();
      const broker = await startBroker({
        config,
        dev: false,
        migrationsFolder: migrationsFolder(),
        env: process.env,
        log,
      });
      log.info({ url: broker.url, installation: broker.installation }, 'the broker is ready');
      log.info({ signal: await stopped }, 'the broker is shutting down');
      await broker.stop();
    });
}
