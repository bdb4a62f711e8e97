import { userInfo } from 'node:os';
import type { Command } from 'commander';
import { applyCatalog } from '../broker/apply-catalog.ts';
import { checkCatalog } from '../catalog/check.ts';
import { diffCatalogs, renderDiff } from '../catalog/diff.ts';
import { readCatalogFiles } from '../catalog/files.ts';
import { loadCatalog } from '../catalog/load.ts';
import { loadProviders } from '../catalog/provider-registry.ts';
import type { Catalog } from '../catalog/types.ts';
import { readConfig } from '../config.ts';
import { MayflyError } from '../domain/errors.ts';
import { findActiveRevisionNumber, findRevision } from '../store/catalog-revisions.ts';
import { Changes } from '../store/changes.ts';
import type { Database } from '../store/database.ts';
import { findInstallation } from '../store/installation.ts';
import { say } from './output.ts';
import { openStore } from './store.ts';

export function addCatalogCommands(program: Command): void {
  const catalog = program
    .command('catalog')
    .description('What the platform team decided: check it, compare it, make it the active revision.');
  catalog
    .command('check <dir>')
    .description('Check a catalog whole: schema, names, policies, policy tests. Needs neither store nor targets.')
    .option('--json', 'as JSON')
    .action(async (dir: string, options: { json?: boolean }) => {
      const config = readConfig(process.env);
      const checked = checkCatalog(await readCatalogFiles(dir), {
        providers: await loadProviders(config.providers),
        allowDev: true,
      });
      if (options.json === true) {
        say(
          JSON.stringify(
            {
              ok: checked.catalog !== null,
              digest: checked.catalog?.digest,
              errors: checked.faults,
              policy_tests: checked.policyTests,
            },
            null,
            2,
          ),
        );
        if (checked.catalog === null) process.exitCode = 1;
        return;
      }
      if (checked.catalog === null) throw new MayflyError('catalog_invalid', undefined, { errors: checked.faults });
      const { targets, entitlements, policySet, trust } = checked.catalog;
      const counts = [
        counted(targets.size, 'target'),
        counted(entitlements.size, 'entitlement'),
        counted(policySet.policies.length, 'policy', 'policies'),
        `${counted(checked.policyTests.length, 'policy test')} passed`,
      ];
      say(`Valid: ${counts.join(', ')}.`);
      say(checked.catalog.digest);
      if ([...trust.taskIssuers, ...trust.workloadSources, ...trust.operators].some((source) => source.dev)) {
        say('It trusts dev issuers: only `mayfly dev` accepts it.');
      }
    });
  catalog
    .command('diff <dir>')
    .description('Show what a catalog would change against the active revision.')
    .option('--json', 'as JSON')
    .action(async (dir: string, options: { json?: boolean }) => {
      await onStore(async ({ check, active }) => {
        const diff = diffCatalogs((await active())?.catalog ?? null, check(await readCatalogFiles(dir)));
        say(options.json === true ? JSON.stringify(diff, null, 2) : renderDiff(diff));
      });
    });
  catalog
    .command('apply <dir>')
    .description('Check a catalog and make it the active revision, whole or not at all.')
    .option('--by <who>', 'who applies it, for the evidence (default: the account that runs this)')
    .action(async (dir: string, options: { by?: string }) => {
      const by = options.by ?? account();
      await onStore(async ({ db, check, active, published }) => {
        const before = await active();
        const next = check(await readCatalogFiles(dir));
        const applied = await applyCatalog({ db, published }, next, by, 'cli', before?.number ?? null);
        say(applied === null ? 'Exactly this catalog is active already.' : `Revision ${applied.number} is active.`);
      });
    });
}

function counted(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}

/** In a container there is often no account of that uid. */
function account(): string {
  try {
    return userInfo().username;
  } catch {
    return `uid ${process.getuid?.() ?? 'unknown'}`;
  }
}

interface StoreContext {
  readonly db: Database;
  readonly check: (files: Readonly<Record<string, string>>) => Catalog;
  readonly active: () => Promise<{ readonly number: number; readonly catalog: Catalog } | null>;
  readonly published: () => Promise<void>;
}

async function onStore(work: (context: StoreContext) => Promise<void>): Promise<void> {
  const { db, url, providers } = await openStore();
  try {
    const installation = await findInstallation(db);
    const options = { providers, allowDev: installation?.dev === true };
    await work({
      db,
      check: (files) => {
        const checked = checkCatalog(files, options);
        if (checked.catalog === null) throw new MayflyError('catalog_invalid', undefined, { errors: checked.faults });
        return checked.catalog;
      },
      active: async () => {
        const number = await findActiveRevisionNumber(db);
        const stored = number === null ? undefined : await findRevision(db, number);
        return stored === undefined ? null : { number: stored.number, catalog: loadCatalog(stored.files, options) };
      },
      published: async () => {
        const changes = new Changes({ url, onError: () => {}, onCatalog: () => {} });
        await changes.start();
        await changes.publishCatalog();
        await changes.close();
      },
    });
  } finally {
    await db.close();
  }
}
