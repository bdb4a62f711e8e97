import { performance } from 'node:perf_hooks';
import { type Evidence, ProviderError, type Ref, type Verdict, within } from '../../src/provider.ts';
import { pause } from './abort.ts';
import { classify } from './errors.ts';
import { assertStandby, hasReached, lagging, type PrimaryPosition, primaryPosition, type Standby } from './standby.ts';
import type { Target } from './target.ts';
import { verify, verifyOn } from './verify.ts';

/** Milliseconds that a standby may take to be as far as the primary is now. */
const patience = 3000;
const interval = 20;

/**
 * Looks at the primary, then at every listed standby, once that has replayed what the primary showed. Contained is what
 * is contained on all of them; a standby that cannot be looked at leaves all refs unproven, by its name.
 */
export async function verifyEverywhere(
  target: Target,
  refs: readonly Ref[],
  signal: AbortSignal,
): Promise<readonly Verdict[]> {
  const verdicts = await verify(target, refs, signal);
  if (target.standbys.length === 0 || !verdicts.some((verdict) => verdict.ok && verdict.contained)) {
    return verdicts;
  }
  // After the look at the primary: what was seen there is replayed when this is.
  const primary = await primaryPosition(target.revoking, signal);
  const afar = await Promise.all(target.standbys.map((standby) => lookAt(standby, refs, primary, signal)));
  return verdicts.map((verdict, index) =>
    verdict.ok && verdict.contained
      ? afar.reduce<Verdict>((sum, seen) => joined(sum, seen.verdicts[index], seen.standby), verdict)
      : verdict,
  );
}

interface Seen {
  readonly standby: Standby;
  readonly verdicts: readonly Verdict[];
}

async function lookAt(
  standby: Standby,
  refs: readonly Ref[],
  primary: PrimaryPosition,
  signal: AbortSignal,
): Promise<Seen> {
  const bounded = within(2 * patience, signal);
  try {
    const began = performance.now();
    for (;;) {
      const state = await standby.state(primary, bounded);
      assertStandby(state, primary);
      if (hasReached(state, primary)) {
        break;
      }
      if (performance.now() - began > patience) {
        throw lagging(state, primary);
      }
      await pause(interval, bounded);
    }
    const verdicts = await standby.pool.useTwice(bounded, (used) => verifyOn(used, refs, bounded));
    return { standby, verdicts };
  } catch (error) {
    const failed = classify(error, 'verifying');
    return { standby, verdicts: refs.map(() => ({ ok: false, error: failed })) };
  }
}

/** The verdict so far, with what one more server shows. */
function joined(sum: Verdict, seen: Verdict | undefined, standby: Standby): Verdict {
  if (!sum.ok) {
    return sum;
  }
  if (seen === undefined) {
    return { ok: false, error: standby.named(new ProviderError('retryable', 'no answer')) };
  }
  if (!seen.ok) {
    return { ok: false, error: standby.named(seen.error) };
  }
  const { can_login, memberships, sessions, logins_asleep, older_work_of_grants, strangers_inside } = seen.evidence;
  const line: Evidence = {
    ...{ standby: standby.label, can_login, memberships, sessions, logins_asleep },
    ...(older_work_of_grants === undefined ? {} : { older_work_of_grants, strangers_inside }),
  };
  const before: readonly unknown[] = Array.isArray(sum.evidence['standbys']) ? sum.evidence['standbys'] : [];
  return {
    ok: true,
    contained: sum.contained && seen.contained,
    clean: sum.clean && seen.clean,
    open: sum.open === true || seen.open === true,
    evidence: { ...sum.evidence, standbys: [...before, line] },
  };
}
