import type { Command } from 'commander';
import { printableConfig, readConfig, settingRows } from '../config.ts';
import { say, table } from './output.ts';

export function addConfigCommand(program: Command): void {
  program
    .command('config')
    .description('Print the settings in force, secrets hidden.')
    .option('--json', 'as JSON')
    .option('--table', 'every setting with its meaning, as the README’s Markdown table')
    .action((options: { json?: boolean; table?: boolean }) => {
      if (options.table === true) return say(settingsTable());
      const config = printableConfig(readConfig(process.env));
      say(options.json === true ? JSON.stringify(config, null, 2) : table(Object.entries(config)));
    });
}

/** The README's table of settings. A test compares the two. */
export function settingsTable(): string {
  const rows = settingRows().map(({ variable, secret, fallback, says }) => {
    const name = secret ? `\`${variable}\` or \`${variable}_FILE\`` : `\`${variable}\``;
    return `| ${name} | ${fallback === '' ? '' : `\`${fallback}\``} | ${says} |`;
  });
  return ['| variable | default | what it sets |', '|---|---|---|', ...rows].join('\n');
}
