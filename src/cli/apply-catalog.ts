import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { userInfo } from 'node:os';
import { promisify } from 'node:util';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { z } from 'zod';
import { replaceDirectly } from '../broker/replace-catalog.ts';
import { readCatalogFiles } from '../catalog/files.ts';
import { awaitingBody } from '../http/awaiting.ts';
import { catalogBody } from '../http/catalog-bodies.ts';
import { readCatalogKeys } from '../identity/catalog-signature.ts';
import type { Enforcement } from '../store/catalog-revisions.ts';
import { readDrift } from '../store/drift.ts';
import { tellAwaiting } from './awaiting.ts';
import { onStore } from './catalog-store.ts';
import { CliError } from './fail.ts';
import { callAsOperator } from './operator.ts';
import { counted, note, say } from './output.ts';

interface ApplyFlags {
  readonly by?: string;
  readonly enforce: Enforcement;
  readonly expectRevoked?: number;
  readonly commit?: string;
  readonly signature?: string;
  readonly allowRollback?: string;
  readonly breakGlass?: string;
  readonly remote?: boolean;
}

/** `mayfly catalog apply`. */
export function addApplyCommand(catalog: Command): void {
  catalog
    .command('apply <dir>')
    .description('Check a catalog and make it the active revision, whole or not at all.')
    .option('--remote', 'ask the broker at MAYFLY_URL for it as an operator, instead of writing into the store')
    .option('--by <who>', 'who applies it, for the evidence (default: the account that runs this)')
    .addOption(
      new Option('--enforce <how>', 'whether living grants that it does not permit end, or it is only told')
        .choices(['revoke', 'report'])
        .default('revoke'),
    )
    .option('--expect-revoked <count>', 'so many living grants end by it, and are meant to', wholeCount)
    .option('--commit <name>', 'where the files come from, for the evidence (default: the commit of the Git checkout)')
    .option('--signature <file>', 'the word of whoever vouches for it: see mayfly catalog sign')
    .option('--allow-rollback <reason>', 'apply it though its serial is not higher than that in force')
    .option('--break-glass <reason>', 'apply it alone although it takes two, or unsigned; it is told to everybody')
    .action(apply);
}

async function apply(dir: string, flags: ApplyFlags): Promise<void> {
  const files = await readCatalogFiles(dir);
  const signature = flags.signature === undefined ? null : readFileSync(flags.signature, 'utf8').trim();
  // What is signed names its commit itself.
  const commit = flags.commit ?? (signature === null ? await commitOf(dir) : null);
  if (flags.remote === true) return await applyRemotely(dir, flags, files, signature, commit);
  await onStore(async ({ db, config, check, active, published }) => {
    const before = await active();
    const rules = { keys: readCatalogKeys(config), maxDriftShare: config.max_drift_share };
    const replaced = await replaceDirectly(
      { db, published, ...rules },
      check(files),
      { by: flags.by ?? account(), breakGlass: flags.breakGlass ?? null },
      {
        ...{ enforce: flags.enforce, expectRevoked: flags.expectRevoked ?? null, commit, signature },
        allowRollback: flags.allowRollback ?? null,
      },
      before?.number ?? null,
    );
    if (replaced.kind !== 'applied') return say('Exactly this catalog is active already.');
    const { undecided } = await readDrift(db);
    tellApplied(replaced.revision.number, undecided);
  });
}

async function applyRemotely(
  dir: string,
  flags: ApplyFlags,
  files: Readonly<Record<string, string>>,
  signature: string | null,
  commit: string | null,
): Promise<void> {
  if (flags.breakGlass !== undefined || flags.by !== undefined)
    throw new CliError('--by and --break-glass are for whoever writes into the store itself: leave them out.');
  const { enforce, expectRevoked, allowRollback } = flags;
  const applied = await callAsOperator('POST', '/v1/catalog/apply', z.union([awaitingBody, catalogBody]), {
    ...{ files, enforce },
    ...(expectRevoked === undefined ? {} : { expect_revoked: expectRevoked }),
    ...(commit === null ? {} : { commit }),
    ...(signature === null ? {} : { signature }),
    ...(allowRollback === undefined ? {} : { allow_rollback: allowRollback }),
  });
  if (!('status' in applied)) return tellApplied(applied.revision, applied.drift.undecided);
  note(`These are the files: ${applied.resource}`);
  tellAwaiting(applied, [
    ...['mayfly', 'catalog', 'apply', dir, '--remote'],
    ...(enforce === 'revoke' ? [] : ['--enforce', enforce]),
    ...(expectRevoked === undefined ? [] : ['--expect-revoked', String(expectRevoked)]),
    ...(commit === null ? [] : ['--commit', commit]),
    ...(flags.signature === undefined ? [] : ['--signature', flags.signature]),
    ...(allowRollback === undefined ? [] : ['--allow-rollback', allowRollback]),
  ]);
}

function tellApplied(number: number, undecided: number): void {
  const yet = counted(undecided, 'living grant is', 'living grants are');
  say(`Revision ${number} is active. ${yet} yet to be decided by it.`);
}

function wholeCount(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError('It must be a whole number.');
  return Number(text);
}

/** In a container there is often no account of that uid. */
function account(): string {
  try {
    return userInfo().username;
  } catch {
    return `uid ${process.getuid?.() ?? 'unknown'}`;
  }
}

/** Of the Git checkout that the folder is in, with `+changes` where files in it are not committed. Null: none. */
async function commitOf(dir: string): Promise<string | null> {
  const git = async (...args: string[]) =>
    (await promisify(execFile)('git', ['-C', dir, ...args], { timeout: 5_000 })).stdout.trim();
  try {
    const head = await git('rev-parse', '--verify', 'HEAD');
    if (!/^[0-9a-f]{40,64}$/.test(head)) return null;
    return (await git('status', '--porcelain', '--', '.')) === '' ? head : `${head}+changes`;
  } catch {
    return null;
  }
}
