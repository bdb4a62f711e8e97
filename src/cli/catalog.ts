import type { Command } from 'commander';
import { seeCatalog } from '../broker/read-catalog.ts';
import { whatIf } from '../broker/what-if.ts';
import { checkCatalog } from '../catalog/check.ts';
import { renderDiff } from '../catalog/diff.ts';
import { readCatalogFiles } from '../catalog/files.ts';
import { loadProviders } from '../catalog/provider-registry.ts';
import { readConfig } from '../config.ts';
import { MayflyError } from '../domain/errors.ts';
import { viewOfCatalog } from '../http/catalog-bodies.ts';
import { viewOfChecked, viewOfWhatIf } from '../http/what-if-bodies.ts';
import { addApplyCommand } from './apply-catalog.ts';
import { onStore } from './catalog-store.ts';
import { CliError } from './fail.ts';
import { renderDecisions, renderDrift, renderLeft } from './foreseen.ts';
import { counted, say } from './output.ts';
import { addSignCommand } from './sign-catalog.ts';

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
      await onStore(async ({ db, check, active, load }) => {
        const before = await active();
        const next = check(await readCatalogFiles(dir));
        const foreseen = await whatIf(db, before === null ? null : load(before), next);
        const body = viewOfWhatIf(foreseen);
        if (options.json === true) return say(JSON.stringify(body, null, 2));
        say(`${renderDiff(foreseen.diff)}\n${renderDrift(body.drift)}\n\n${renderDecisions(body.decisions)}`);
        for (const line of renderLeft(body.left_suspended)) say(line);
      });
    });
  addSignCommand(catalog);
  addApplyCommand(catalog);
  catalog
    .command('status')
    .description('Show the active revision, and how far the living grants are decided by it.')
    .option('--json', 'as JSON')
    .action(async (options: { json?: boolean }) => {
      await onStore(async ({ db }) => {
        const seen = await seeCatalog(db);
        if (seen === undefined) throw new CliError('No catalog is active yet: mayfly catalog apply DIR.');
        const body = viewOfCatalog(seen);
        if (options.json === true) return say(JSON.stringify(body, null, 2));
        const { revision, digest, enforce, commit, signed, serial, four_eyes: forTwo } = body;
        const how = enforce === 'report' ? ': what it would end is only told' : '';
        say(`Revision ${revision}, applied by ${body.applied_by} at ${body.applied_at}${how}.`);
        say(digest);
        if (commit !== null) say(`Commit ${commit}${signed ? ', signed' : ''}`);
        else if (signed) say('Signed');
        if (serial !== null) say(`Serial ${serial}`);
        if (forTwo.length > 0) say(`Takes two: ${forTwo.join(', ')}`);
        const { undecided } = body.drift;
        say(
          undecided === 0
            ? 'All living grants are decided by it.'
            : `${counted(undecided, 'living grant is', 'living grants are')} yet to be decided by it.`,
        );
      });
    });
}
