import type { Command } from 'commander';
import { runCanaries } from '../broker/check-target.ts';
import { loadCatalog } from '../catalog/load.ts';
import { loadProviders } from '../catalog/provider-registry.ts';
import { createSecretResolver } from '../catalog/secrets.ts';
import type { TargetDefinition } from '../catalog/types.ts';
import { isLoopback } from '../config.ts';
import { Secret } from '../domain/secret.ts';
import { CliError } from './fail.ts';
import { entitlementsOf, onTarget, passwordReference, readAdminUrl } from './on-target.ts';
import { note, say, styled } from './output.ts';
import { addPauseCommands } from './pause.ts';
import { addOwnerCommands } from './target-owner.ts';

export function addTargetCommands(program: Command): void {
  const target = program.command('target').description('The connected systems of the active catalog.');
  target
    .command('prepare <target>')
    .description('Print the script that makes a target ready for the active catalog, or apply it with an admin’s URL.')
    .option('--admin-url-file <file>', 'apply it as this administrator; the file holds the URL (- reads it from stdin)')
    .option('--without-password', 'leave the password of the broker’s own login as it is')
    .option('--format <format>', 'print it in another format, where there is one (aws-sts: json, terraform)')
    .option('--expire-cronjob', 'print a Kubernetes CronJob that ends sessions past their deadline without the broker')
    .action(async (name: string, options: PrepareFlags) => {
      await onTarget(name, async ({ definition, provider, entitlements, installation, store, secret }) => {
        if (provider.preparation === undefined)
          throw new CliError(`A target of type ${definition.provider} needs no preparation.`);
        const connection = definition.connection;
        if (options.expireCronjob === true) {
          if (provider.preparation.expireJob === undefined)
            throw new CliError(`A target of type ${definition.provider} has no such job.`);
          say(provider.preparation.expireJob(name, connection));
          return;
        }
        if (options.adminUrlFile === undefined) {
          const { format } = options;
          const formats = provider.preparation.formats ?? [];
          if (format !== undefined && !formats.includes(format))
            throw new CliError(`A target of type ${definition.provider} is not printed as ${format}.`);
          // Where there are formats there is no login to set a password for.
          const password = options.withoutPassword === true || formats.length > 0 ? null : secret();
          say(await provider.preparation.script(connection, entitlements, installation, password, { store }, format));
          return;
        }
        if (provider.preparation.apply === undefined)
          throw new CliError(
            `A target of type ${definition.provider} has no administrator’s URL: apply what this prints without it.`,
          );
        const adminUrl = readAdminUrl(options.adminUrlFile);
        await provider.preparation.apply(adminUrl, connection, entitlements, installation, secret() ?? new Secret(''), {
          store,
        });
        note(`${name} is prepared for ${entitlements.length} entitlements. Now: mayfly target check ${name}`);
      });
    });
  target
    .command('check <target>')
    .description('Run the canary: mint, log in, do what is allowed, be refused what is not, revoke, verify.')
    .option('--json', 'as JSON')
    .action(async (name: string, options: { json?: boolean }) => {
      await onTarget(name, async ({ session, entitlements }) => {
        const canaries = entitlements.map(({ name: entitlement, config }) => ({
          name: entitlement,
          open: () => ({ session, config }),
        }));
        const { ok, says: outcome, steps } = await runCanaries(canaries, new AbortController().signal);
        if (options.json === true) say(JSON.stringify(steps, null, 2));
        else
          for (const { entitlement, step, ok: good, warns, says } of steps) {
            const mark = !good ? styled('red', 'FAIL') : warns ? styled('yellow', 'warn') : styled('green', 'ok  ');
            say(`${mark}  ${entitlement}  ${step}: ${says}`);
          }
        if (!ok) throw new CliError(outcome);
      });
    });
  addPauseCommands(target);
  addOwnerCommands(target);
}

/**
 * Dev mode: makes the embedded demo database ready for the catalog that is about to be applied.
 * @returns how many targets of the catalog it is.
 */
export async function prepareDemoTarget(
  files: Readonly<Record<string, string>>,
  installation: string,
  demo: { readonly port: number; readonly adminUrl: (database: string) => string; readonly secretsDir: string },
): Promise<number> {
  const providers = await loadProviders(['postgres']);
  const catalog = loadCatalog(files, { providers, allowDev: true });
  const secret = createSecretResolver({ secretsDir: demo.secretsDir, env: process.env });
  let prepared = 0;
  for (const definition of catalog.targets.values()) {
    const provider = providers.get(definition.provider);
    if (provider?.preparation?.apply === undefined || !isDemo(definition, demo.port)) continue;
    const connection = definition.connection;
    const reference = passwordReference(definition);
    if (reference === undefined) continue;
    const password = secret(definition.name, reference);
    await provider.preparation.apply(
      new Secret(demo.adminUrl('ledger')),
      connection,
      entitlementsOf(catalog, definition),
      installation,
      password,
    );
    prepared++;
  }
  return prepared;
}

interface PrepareFlags {
  readonly adminUrlFile?: string;
  readonly withoutPassword?: boolean;
  readonly format?: string;
  readonly expireCronjob?: boolean;
}

function isDemo(definition: TargetDefinition, port: number): boolean {
  const { connection } = definition;
  return (
    typeof connection === 'object' &&
    connection !== null &&
    'host' in connection &&
    isLoopback(String(connection.host)) &&
    'port' in connection &&
    connection.port === port &&
    'database' in connection &&
    connection.database === 'ledger'
  );
}
