import type { Command } from 'commander';
import {
  AgentKey,
  type ApprovalOptions,
  type Credential,
  MayflyClient,
  ProblemError,
  Renewal,
  type RevocationBody,
} from '../client/index.ts';
import { brokerUrl } from './dev-state.ts';
import { explain } from './fail.ts';
import { note } from './output.ts';
import { leaveAs, type Outcome, startChild } from './run/child.ts';
import { handOver } from './run/kinds.ts';
import { addProofOptions, gatherProofs, type ProofOptions } from './run/proofs.ts';
import { Interrupted, Signals } from './run/signals.ts';
import { wholeSeconds } from './task.ts';

interface RunOptions extends ProofOptions {
  readonly grantTtl?: string;
  readonly env?: boolean;
  readonly waitApproval?: string;
}

const WAIT_SECONDS = 30;
/** Between contained and clean there is only the removal of the role. */
const CLEAN_SECONDS = 5;
const END_TRIES = 3;
const END_PAUSE_MILLIS = 1_000;

export function addRunCommand(program: Command): void {
  addProofOptions(
    program.command('run').description('Run a command with a credential that ends when the command does.'),
  )
    .usage('--purpose <purpose> --grant <entitlement> [options] -- <command> [args...]')
    .option('--grant-ttl <seconds>', 'how long the credential should live; it is renewed while the command runs')
    .option(
      '--wait-approval <seconds>',
      'how long to wait where it must be approved first (default: as long as it may be)',
    )
    .option('--env', 'hand it over in PGPASSWORD and DATABASE_URL, or in AWS_ACCESS_KEY_ID and so on, too')
    .argument('<command...>', 'what to run')
    .passThroughOptions()
    .action(async (command: string[], options: RunOptions) => {
      const signals = new Signals();
      const outcome = await runWithCredential(command, options, signals)
        .catch((error: unknown): Outcome => {
          if (!(error instanceof Interrupted)) throw error;
          return { signal: error.signal };
        })
        .finally(() => signals.close());
      leaveAs(outcome);
    });
}

async function runWithCredential(command: readonly string[], options: RunOptions, signals: Signals): Promise<Outcome> {
  const ttl = options.grantTtl === undefined ? undefined : wholeSeconds(options.grantTtl, '--grant-ttl');
  const { request, token, key } = await gatherProofs(options, () => AgentKey.make());
  const client = new MayflyClient({ url: brokerUrl(), token, ...(key === undefined ? {} : { key }) });
  signals.check();
  const { task } = await client.openTask(request);
  let started = false;
  let lingers = true;
  try {
    signals.check();
    let askedAt = performance.now();
    const onDecided = () => {
      askedAt = performance.now();
    };
    const asked = { entitlement: options.grant, ...(ttl === undefined ? {} : { ttl_seconds: ttl }) };
    const issued = await client.issue(task.id, asked, {
      ...awaitApproval(signals, options.waitApproval),
      onDecided,
    });
    lingers = leavesSomething(issued.credential);
    const handover = await handOver(issued, options.env === true, askedAt);
    const renewal = new Renewal(client, issued.grant, {
      onRenewed: (renewed) => handover.renewed?.(renewed),
      onDelayed: (error) => note(`mayfly: the credential could not be renewed; trying again. ${explain(error)}`),
      onLost: (error, deadline) => {
        note(`mayfly: the credential could not be renewed and ends at ${deadline}. ${explain(error)}`);
        if (isOver(error)) handover.ended?.();
      },
    });
    try {
      signals.check();
      const child = await startChild(command, handover.env);
      started = true;
      signals.passTo(child);
      return await child.ended;
    } finally {
      renewal.stop();
      handover.remove();
    }
  } finally {
    signals.childEnded();
    await endTask(client, task.id, started, lingers);
  }
}

/** Says who may approve it, and waits so long at most. */
function awaitApproval(signals: Signals, bound: string | undefined): ApprovalOptions {
  return {
    signal: signals.leaving,
    ...(bound === undefined ? {} : { wait: wholeSeconds(bound, '--wait-approval') }),
    onPending: ({ approval }) =>
      note(
        `mayfly: waiting until ${approval.groups.join(' and ')} approves this, until ${approval.expires_at}. An approver runs: mayfly approvals approve ${approval.id} --reason <why>`,
      ),
  };
}

/** The task is completed whatever became of the command; one that was never started cancels it. Never throws: the command's status counts. */
async function endTask(client: MayflyClient, taskId: string, started: boolean, lingers: boolean): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      const { revocations } = await (started
        ? client.complete(taskId, { wait: WAIT_SECONDS })
        : client.cancel(taskId, { wait: WAIT_SECONDS }));
      await seeOff(client, revocations, lingers);
      return;
    } catch (error) {
      // Its own deadline, or an operator, was faster.
      if (error instanceof ProblemError && error.code === 'task_ended') return;
      const passing = !(error instanceof ProblemError) || error.status >= 500 || error.status === 401;
      if (!passing || tries === END_TRIES) {
        note(`mayfly: the task could not be ended; its credential ends at its deadline. ${explain(error)}`);
        return;
      }
      await new Promise((resolve) => setTimeout(resolve, END_PAUSE_MILLIS));
    }
  }
}

/** It was ended by another one, rather than left to its deadline. */
function isOver(error: unknown): boolean {
  return error instanceof ProblemError && (error.is('grant_ended') || error.is('task_ended'));
}

/**
 * Whether its target has something of it that can be found, and removed. Where it has not, as with sessions of AWS, all that is left is a
 * denial, which must stay until their deadline: nobody waits for that.
 */
function leavesSomething({ guarantee }: Credential): boolean {
  return !(
    typeof guarantee === 'object' &&
    guarantee !== null &&
    'enumerable' in guarantee &&
    guarantee.enumerable === false
  );
}

/** What was contained is without effect; a moment more, and nothing of it is left either. @param lingers There is something to remove. */
async function seeOff(client: MayflyClient, revocations: readonly RevocationBody[], lingers: boolean): Promise<void> {
  const until = performance.now() + CLEAN_SECONDS * 1000;
  for (const { target, state, grant_id: grantId } of revocations) {
    if (state !== 'contained' && state !== 'clean') {
      note(`mayfly: the credential on ${target ?? 'its target'} is still being taken back (${state}).`);
    } else if (state === 'contained' && grantId !== undefined && lingers) {
      while (performance.now() < until) {
        const { revocation } = await client.grant(grantId, { wait: CLEAN_SECONDS });
        if (revocation?.state === 'clean') break;
      }
    }
  }
}
