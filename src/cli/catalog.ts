import { userInfo } from 'node:os';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { applyCatalog } from '../broker/apply-catalog.ts';
import { whatIf } from '../broker/what-if.ts';
import { checkCatalog } from '../catalog/check.ts';
import { renderDiff } from '../catalog/diff.ts';
import { readCatalogFiles } from '../catalog/files.ts';
import { loadCatalog } from '../catalog/load.ts';
import { loadProviders } from '../catalog/provider-registry.ts';
import type { Catalog } from '../catalog/types.ts';
import { type Config, readConfig } from '../config.ts';
import { MayflyError } from '../domain/errors.ts';
import {
  type Enforcement,
  findActiveRevisionNumber,
  findRevision,
  readActiveRevision,
} from '../store/catalog-revisions.ts';
import { Changes } from '../store/changes.ts';
import type { Database } from '../store/database.ts';
import { readDrift } from '../store/drift.ts';
import { findInstallation } from '../store/installation.ts';
import { viewOfChecked, viewOfWhatIf } from '../http/what-if-bodies.ts';
import { renderDecisions, renderDrift } from './foreseen.ts';
import { CliError } from './fail.ts';
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
        say(JSON.stringify(viewOfChecked(checked), null, 2));
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
    .description(
      'Show what a catalog would change: its differences, living grants that would end, and the last day’s decisions.',
    )
    .option('--json', 'as JSON')
    .action(async (dir: string, options: { json?: boolean }) => {
      await onStore(async ({ db, check, active }) => {
        const next = check(await readCatalogFiles(dir));
        const foreseen = await whatIf(db, (await active())?.catalog ?? null, next);
        const body = viewOfWhatIf(foreseen);
        if (options.json === true) return say(JSON.stringify(body, null, 2));
        say(`${renderDiff(foreseen.diff)}\n${renderDrift(body.drift)}\n\n${renderDecisions(body.decisions)}`);
      });
    });
  catalog
    .command('apply <dir>')
    .description('Check a catalog and make it the active revision, whole or not at all.')
    .option('--by <who>', 'who applies it, for the evidence (default: the account that runs this)')
    .addOption(
      new Option('--enforce <how>', 'whether living grants that it does not permit end, or it is only told')
        .choices(['revoke', 'report'])
        .default('revoke'),
    )
    .option('--expect-revoked <count>', 'so many living grants end by it, and are meant to', wholeCount)
    .action(async (dir: string, options: { by?: string; enforce: Enforcement; expectRevoked?: number }) => {
      const by = options.by ?? account();
      await onStore(async ({ db, config, check, active, published }) => {
        const before = await active();
        const next = check(await readCatalogFiles(dir));
        const guard = { maxDriftShare: config.max_drift_share, expectRevoked: options.expectRevoked ?? null };
        const applied = await applyCatalog({ db, published }, next, by, 'cli', {
          expected: before?.number ?? null,
          enforce: options.enforce,
          // Nothing ends by a report, and the one that is active and enforced is no change.
          ...(options.enforce === 'report' || (before?.enforce === 'revoke' && before.catalog.digest === next.digest)
            ? {}
            : { guard }),
        });
        if (applied === null) return say('Exactly this catalog is active already.');
        const { undecided } = await readDrift(db);
        say(
          `Revision ${applied.number} is active. ${counted(undecided, 'living grant is', 'living grants are')} yet to be decided by it.`,
        );
      });
    });
  catalog
    .command('status')
    .description('Show the active revision, and how far the living grants are decided by it.')
    .option('--json', 'as JSON')
    .action(async (options: { json?: boolean }) => {
      await onStore(async ({ db }) => {
        const revision = await readActiveRevision(db);
        if (revision === undefined) throw new CliError('No catalog is active yet: mayfly catalog apply DIR.');
        const { undecided, oldestSeconds } = await readDrift(db);
        const { number, digest, enforce, appliedBy } = revision;
        const at = revision.appliedAt.toISOString();
        if (options.json === true) {
          const drift = { undecided, oldest_seconds: oldestSeconds };
          return say(
            JSON.stringify(
              { revision: number, digest, enforce, applied_by: appliedBy, applied_at: at, drift },
              null,
              2,
            ),
          );
        }
        say(
          `Revision ${number}, applied by ${appliedBy} at ${at}${enforce === 'report' ? ': what it would end is only told' : ''}.`,
        );
        say(digest);
        say(
          undecided === 0
            ? 'All living grants are decided by it.'
            : `${counted(undecided, 'living grant is', 'living grants are')} yet to be decided by it.`,
        );
      });
    });
}

function wholeCount(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError('It must be a whole number.');
  return Number(text);
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
  readonly config: Config;
  readonly check: (files: Readonly<Record<string, string>>) => Catalog;
  readonly active: () => Promise<{
    readonly number: number;
    readonly enforce: Enforcement;
    readonly catalog: Catalog;
  } | null>;
  readonly published: () => Promise<void>;
}

async function onStore(work: (context: StoreContext) => Promise<void>): Promise<void> {
  const { db, url, config, providers } = await openStore();
  try {
    const installation = await findInstallation(db);
    const options = { providers, allowDev: installation?.dev === true };
    await work({
      db,
      config,
      check: (files) => {
        const checked = checkCatalog(files, options);
        if (checked.catalog === null) throw new MayflyError('catalog_invalid', undefined, { errors: checked.faults });
        return checked.catalog;
      },
      active: async () => {
        const number = await findActiveRevisionNumber(db);
        const stored = number === null ? undefined : await findRevision(db, number);
        return stored === undefined
          ? null
          : { number: stored.number, enforce: stored.enforce, catalog: loadCatalog(stored.files, options) };
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
