import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { loadCatalog } from '../catalog/load.ts';
import { loadProviders } from '../catalog/provider-registry.ts';
import { createSecretResolver } from '../catalog/secrets.ts';
import { TargetSessions } from '../catalog/target-sessions.ts';
import type { Catalog, TargetDefinition } from '../catalog/types.ts';
import { isLoopback } from '../config.ts';
import { Secret } from '../domain/secret.ts';
import type { CheckStep, PreparedEntitlement, Provider } from '../provider.ts';
import { findActiveRevisionNumber, findRevision } from '../store/catalog-revisions.ts';
import { Ownership } from '../revocation/ownership.ts';
import type { Database } from '../store/database.ts';
import { findInstallation } from '../store/installation.ts';
import { readStoreIdentity } from '../store/tenures.ts';
import { CliError } from './fail.ts';
import { note, say, styled } from './output.ts';
import { openStore } from './store.ts';

const CHECK_SECONDS = 60;

export function addTargetCommands(program: Command): Command {
  const target = program.command('target').description('The connected systems of the active catalog.');
  target
    .command('prepare <target>')
    .description('Print the script that makes a target ready for the active catalog, or apply it with an admin’s URL.')
    .option('--admin-url-file <file>', 'apply it as this administrator; the file holds the URL (- reads it from stdin)')
    .option('--without-password', 'leave the password of the broker’s own login as it is')
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
          const password = options.withoutPassword === true ? null : secret();
          say(await provider.preparation.script(connection, entitlements, installation, password, { store }));
          return;
        }
        const adminUrl = readAdminUrl(options.adminUrlFile);
        await provider.preparation.apply(adminUrl, connection, entitlements, installation, secret(), { store });
        note(`${name} is prepared for ${entitlements.length} entitlements. Now: mayfly target check ${name}`);
      });
    });
  target
    .command('check <target>')
    .description('Run the canary: mint, log in, do what is allowed, be refused what is not, revoke, verify.')
    .option('--json', 'as JSON')
    .action(async (name: string, options: { json?: boolean }) => {
      await onTarget(name, async ({ session, entitlements }) => {
        const steps: (CheckStep & { entitlement: string })[] = [];
        for (const entitlement of entitlements) {
          const signal = AbortSignal.timeout(CHECK_SECONDS * 1000);
          for (const step of await session.check(entitlement, signal))
            steps.push({ entitlement: entitlement.name, ...step });
        }
        if (options.json === true) say(JSON.stringify(steps, null, 2));
        else
          for (const { entitlement, step, ok, warns, says } of steps) {
            const mark = !ok ? styled('red', 'FAIL') : warns ? styled('yellow', 'warn') : styled('green', 'ok  ');
            say(`${mark}  ${entitlement}  ${step}: ${says}`);
          }
        const failed = steps.filter(({ ok }) => !ok).length;
        if (failed > 0) throw new CliError(`${failed} of ${steps.length} steps failed.`);
      });
    });
  return target;
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
    if (provider?.preparation === undefined || !isDemo(definition, demo.port)) continue;
    const connection = definition.connection;
    const password = secret(definition.name, passwordReference(definition));
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
  readonly expireCronjob?: boolean;
}

/** @param file `-` for stdin. */
export function readAdminUrl(file: string): Secret<string> {
  return new Secret(readFileSync(file === '-' ? 0 : file, 'utf8').trim());
}

interface TargetContext {
  readonly db: Database;
  /** What tells this store from a copy of it. */
  readonly store: string;
  readonly policyDigest: string;
  readonly definition: TargetDefinition;
  readonly provider: Provider;
  readonly session: ReturnType<TargetSessions['get']>;
  readonly entitlements: readonly PreparedEntitlement[];
  readonly installation: string;
  /** The password of the broker's own login on the target. */
  readonly secret: () => Secret<string>;
}

/** A target of the active catalog, to be worked on as the broker of this store would. */
export async function onTarget(name: string, work: (context: TargetContext) => Promise<void>): Promise<void> {
  const { db, providers, secretsDir } = await openStore();
  try {
    const installation = await findInstallation(db);
    const number = await findActiveRevisionNumber(db);
    const revision = number === null ? undefined : await findRevision(db, number);
    if (installation === undefined || revision === undefined)
      throw new CliError('No catalog is active yet: mayfly catalog apply DIR.');
    const catalog = loadCatalog(revision.files, { providers, allowDev: installation.dev });
    const definition = catalog.targets.get(name);
    const provider = definition && providers.get(definition.provider);
    if (definition === undefined || provider === undefined) {
      throw new CliError(
        `The active catalog has no target ${name}. It has: ${[...catalog.targets.keys()].join(', ')}.`,
      );
    }
    const secret = createSecretResolver({ secretsDir, env: process.env });
    const sessions = new TargetSessions({
      providers,
      installation: installation.id,
      secret,
      log: (_event, message) => note(message),
    });
    const store = await readStoreIdentity(db);
    const deps = {
      ...{ policyDigest: () => revision.digest, worker: 'cli', found: { stranger: () => {} } },
      log: (_event: Readonly<Record<string, unknown>>, message: string) => note(message),
    };
    const ownership = new Ownership({ deps, db, installation: installation.id, store });
    try {
      await work({
        db,
        store,
        policyDigest: revision.digest,
        definition,
        provider,
        session: ownership.guard(name, sessions.get(definition)),
        entitlements: entitlementsOf(catalog, definition),
        installation: installation.id,
        secret: () => secret(name, passwordReference(definition)),
      });
    } finally {
      await sessions.close();
    }
  } finally {
    await db.close();
  }
}

function entitlementsOf(catalog: Catalog, target: TargetDefinition): PreparedEntitlement[] {
  return [...catalog.entitlements.values()]
    .filter((entitlement) => entitlement.target === target.name)
    .map(({ name, maxTtlSeconds, params, provider }) => ({ name, maxTtlSeconds, params, config: provider }));
}

function passwordReference(definition: TargetDefinition): string {
  const { connection } = definition;
  const reference =
    typeof connection === 'object' && connection !== null && 'password' in connection ? connection.password : undefined;
  if (typeof reference !== 'string') throw new CliError(`Target ${definition.name} names no password.`);
  return reference;
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
