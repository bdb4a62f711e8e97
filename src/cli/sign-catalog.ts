import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { validated } from '../broker/what-if.ts';
import { checkCatalog } from '../catalog/check.ts';
import { readCatalogFiles } from '../catalog/files.ts';
import { loadProviders } from '../catalog/provider-registry.ts';
import { readConfig } from '../config.ts';
import { signCatalog } from '../identity/catalog-signature.ts';
import { CliError } from './fail.ts';
import { say } from './output.ts';

/** `mayfly catalog sign`. */
export function addSignCommand(catalog: Command): void {
  catalog
    .command('sign <dir>')
    .description(
      'Vouch for a catalog: prints what `mayfly catalog apply --signature` takes. Needs neither store nor targets.',
    )
    .requiredOption('--key <file>', 'your private key, P-256 or Ed25519: a JWK, or PEM')
    .option('--commit <name>', 'where the files come from')
    .action(async (dir: string, { key, commit }: { key: string; commit?: string }) => {
      const providers = await loadProviders(readConfig(process.env).providers);
      const next = validated(checkCatalog(await readCatalogFiles(dir), { providers, allowDev: true }));
      const signed = await signCatalog(readFileSync(key, 'utf8'), next, commit ?? null, new Date()).catch(
        (error: unknown) => {
          throw new CliError(error instanceof Error ? error.message : 'It could not be signed.');
        },
      );
      say(signed);
    });
}
