import { randomUUID } from 'node:crypto';
import { userInfo } from 'node:os';
import type { Command } from 'commander';
import { askForRun } from '../broker/reconcile-target.ts';
import { targetEvent } from '../revocation/evidence.ts';
import { insertTenure } from '../store/tenures.ts';
import { Secret } from '../domain/secret.ts';
import { CliError } from './fail.ts';
import { note, say } from './output.ts';
import { onTarget, readAdminUrl } from './on-target.ts';
import { wholeSeconds } from './task.ts';

const HOLD_MILLIS = 5_000;

export function addOwnerCommands(target: Command): void {
  target
    .command('reconcile <target>')
    .description('Have a running broker compare the target with the store now, and wait for what it finds.')
    .option('--wait <seconds>', 'how long to wait for it', '60')
    .action(async (name: string, options: { wait: string }) => {
      await onTarget(name, async ({ db, policyDigest }) => {
        const seconds = wholeSeconds(options.wait, '--wait');
        const deps = { policyDigest: () => policyDigest, worker: 'cli' };
        const event = targetEvent('target.reconcile_asked', deps, name, { target: name, by: userName() });
        const { state, reconciliation } = await askForRun(db, name, event, seconds, new AbortController().signal);
        if (state !== 'over' || reconciliation.result === null)
          throw new CliError('No broker has done it yet. It stays asked for.');
        const { outcome, says, ...counts } = reconciliation.result;
        for (const [what, count] of Object.entries(counts)) say(`${what.padEnd(10)} ${count}`);
        if (outcome !== 'done') throw new CliError(says);
      });
    });
  target
    .command('adopt <target>')
    .description(
      'Make the broker of this store the holder of a target that another holds. That one can do nothing there then.',
    )
    .option('--admin-url-file <file>', 'apply it as this administrator; the file holds the URL (- reads it from stdin)')
    .option('--without-password', 'with no administrator: leave the password of the broker’s own login as it is')
    .action(async (name: string, options: { adminUrlFile?: string; withoutPassword?: boolean }) => {
      await onTarget(
        name,
        async ({ db, store, definition, provider, session, entitlements, installation, secret, policyDigest }) => {
          if (provider.preparation?.apply === undefined)
            throw new CliError(`A target of type ${definition.provider} keeps no record of its holder.`);
          const preparedBy = { store, tenure: randomUUID() };
          // Known here before the target shows it.
          await insertTenure(db, preparedBy.tenure, name);
          const { connection } = definition;
          if (options.adminUrlFile === undefined) {
            const password = options.withoutPassword === true ? null : secret();
            say(await provider.preparation.script(connection, entitlements, installation, password, preparedBy));
            return;
          }
          const adminUrl = readAdminUrl(options.adminUrlFile);
          await provider.preparation.apply(
            adminUrl,
            connection,
            entitlements,
            installation,
            secret() ?? new Secret(''),
            preparedBy,
          );
          const holder = await session.hold?.(AbortSignal.timeout(HOLD_MILLIS));
          if (holder?.tenure !== preparedBy.tenure)
            throw new CliError(
              `It was applied, but ${name} does not show it: does the admin URL lead to another server?`,
            );
          const deps = { policyDigest: () => policyDigest, worker: 'cli' };
          await db.transaction({}, async (tx) =>
            tx.record(targetEvent('target.adopted', deps, name, { tenure: preparedBy.tenure, by: userName() })),
          );
          note(`${name} is held by this store now. Any other broker is read-only there.`);
        },
      );
    });
}

/** A container's user may have no name. */
function userName(): string {
  try {
    return userInfo().username;
  } catch {
    return `uid ${process.getuid?.() ?? 'unknown'}`;
  }
}
