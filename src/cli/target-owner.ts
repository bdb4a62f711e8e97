import { randomUUID } from 'node:crypto';
import { userInfo } from 'node:os';
import { setTimeout as pause } from 'node:timers/promises';
import type { Command } from 'commander';
import { targetEvent } from '../revocation/evidence.ts';
import { findRunSince, requestRuns } from '../store/reconciliations.ts';
import { insertTenure } from '../store/tenures.ts';
import { CliError } from './fail.ts';
import { note, say } from './output.ts';
import { onTarget, readAdminUrl } from './on-target.ts';
import { wholeSeconds } from './task.ts';

const POLL_MILLIS = 250;
const HOLD_MILLIS = 5_000;

export function addOwnerCommands(target: Command): void {
  target
    .command('reconcile <target>')
    .description('Have a running broker compare the target with the store now, and wait for what it finds.')
    .option('--wait <seconds>', 'how long to wait for it', '60')
    .action(async (name: string, options: { wait: string }) => {
      await onTarget(name, async ({ db }) => {
        const seconds = wholeSeconds(options.wait, '--wait');
        const asked = await requestRuns(db, [name]);
        const until = performance.now() + seconds * 1000;
        let result = await findRunSince(db, name, asked);
        while (result === undefined && performance.now() < until) {
          await pause(POLL_MILLIS);
          result = await findRunSince(db, name, asked);
        }
        if (result === undefined) throw new CliError('No broker has done it yet. It stays asked for.');
        const { outcome, says, ...counts } = result;
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
          if (provider.preparation === undefined)
            throw new CliError(`A target of type ${definition.provider} keeps no record of its holder.`);
          const claim = { store, tenure: randomUUID() };
          // Known here before the target shows it.
          await insertTenure(db, claim.tenure, name);
          const { connection } = definition;
          if (options.adminUrlFile === undefined) {
            const password = options.withoutPassword === true ? null : secret();
            say(await provider.preparation.script(connection, entitlements, installation, password, claim));
            return;
          }
          const adminUrl = readAdminUrl(options.adminUrlFile);
          await provider.preparation.apply(adminUrl, connection, entitlements, installation, secret(), claim);
          const holder = await session.hold?.(AbortSignal.timeout(HOLD_MILLIS));
          if (holder?.tenure !== claim.tenure)
            throw new CliError(
              `It was applied, but ${name} does not show it: does the admin URL lead to another server?`,
            );
          const deps = { policyDigest: () => policyDigest, worker: 'cli' };
          await db.transaction({}, async (tx) =>
            tx.record(targetEvent('target.adopted', deps, name, { tenure: claim.tenure, by: userInfo().username })),
          );
          note(`${name} is held by this store now. Any other broker is read-only there.`);
        },
      );
    });
}
