import { MayflyError } from '../domain/errors.ts';
import { step } from '../domain/step.ts';
import { bounded, within } from '../domain/within.ts';
import type { Caller } from '../identity/types.ts';
import { type CheckStep, ProviderError } from '../provider.ts';
import type { BrokerDeps, CallContext, TargetAccess } from './deps.ts';
import { operatorEvent } from './evidence.ts';
import { requireInScope, requireRole } from './operator-scope.ts';

/** One entitlement's canary. */
const CHECK_SECONDS = 60;
/** A canary ends what it made after it was told to stop. */
const END_SECONDS = 25;

export interface CheckedStep extends CheckStep {
  readonly entitlement: string;
}

export interface Checked {
  readonly ok: boolean;
  /** What came of it, in a sentence. */
  readonly says: string;
  readonly steps: readonly CheckedStep[];
}

/**
 * Runs the canary of each entitlement of a target: mint, use, be refused, revoke, verify.
 * @param seconds For all of them together; what is not reached by then is a step that failed.
 * @throws MayflyError `operator_only`, `not_found`
 */
export async function checkTarget(
  deps: BrokerDeps,
  caller: Caller,
  target: string,
  seconds: number,
  context: CallContext,
): Promise<Checked> {
  const { operator, scope } = requireRole(deps, caller, 'operator');
  requireInScope(scope, target);
  const { targets, entitlements } = deps.catalog.current().catalog;
  if (!targets.has(target)) throw new MayflyError('not_found');
  const canaries = [...entitlements.values()]
    .filter((entitlement) => entitlement.target === target)
    .map((entitlement) => ({ name: entitlement.name, open: () => deps.access(entitlement) }));
  const checked = await runCanaries(canaries, within(seconds * 1000, context.gone));
  const faults = checked.steps.filter(({ ok }) => !ok).map((one) => ({ entitlement: one.entitlement, step: one.step }));
  const payload = { target, ok: checked.ok, steps: checked.steps.length, failed: faults };
  await deps.db.transaction({}, async (tx) => {
    tx.record(operatorEvent('target.checked', deps.catalog, context, operator, { resource: target, payload }));
    step('check.before');
  });
  step('check.after');
  return checked;
}

/** One entitlement’s canary, and the way to its target, which may fail. */
export interface Canary {
  readonly name: string;
  readonly open: () => TargetAccess;
}

/** One after another, until `stop` fires. What can not be tried is a step that failed. */
export async function runCanaries(canaries: readonly Canary[], stop: AbortSignal): Promise<Checked> {
  const steps: CheckedStep[] = [];
  for (const canary of canaries) {
    const found = stop.aborted
      ? [failed('it was not reached in time')]
      : await play(canary, stop).catch((error: unknown) => [failed(saysOf(error))]);
    steps.push(...found.map((one) => ({ entitlement: canary.name, ...one })));
  }
  const bad = steps.filter(({ ok }) => !ok).length;
  if (canaries.length === 0)
    return { ok: false, says: 'No entitlement is on this target: there was nothing to check.', steps };
  return { ok: bad === 0, says: `${bad} of ${steps.length} steps failed.`, steps };
}

async function play({ name, open }: Canary, stop: AbortSignal): Promise<readonly CheckStep[]> {
  const { session, config } = open();
  const signal = within(CHECK_SECONDS * 1000, stop);
  return await bounded((CHECK_SECONDS + END_SECONDS) * 1000, [], () => session.check({ name, config }, signal));
}

function failed(says: string): CheckStep {
  return { step: 'check', ok: false, says };
}

/** A provider keeps secrets out of its own errors; whatever else was thrown may say anything. */
function saysOf(error: unknown): string {
  if (error instanceof ProviderError) return error.message;
  return error instanceof Error ? error.name : 'failed';
}
