import { type FenceOutcome, type FenceView, ProviderError, type Ref } from '../../src/provider.ts';
import { isHandle } from './handle.ts';
import { hear } from './hear.ts';
import { issuedMillis } from './issued.ts';
import type { Ended, Living } from './plan.ts';
import type { Fenced } from './fenced.ts';
import type { Target } from './target.ts';

/** What is powerless by itself within that is left to be so: a write would not be in force before. Milliseconds. */
const notWorth = 10_000;

/**
 * Denies all of them on their roles: one document a role, written whole. One that is powerless by then needs no write. What lost its
 * facts may have a session on any of the roles.
 */
export async function fence(
  target: Target,
  refs: readonly Ref[],
  view: FenceView | undefined,
  signal: AbortSignal,
): Promise<readonly FenceOutcome[]> {
  if (view === undefined)
    throw new ProviderError('misconfigured', 'The fence of this target is one document about all: it needs a view.');
  const near = refs.some((ref) => target.powerlessAt(ref) - target.clock.now() < notWorth);
  // Where AWS does not say what time it is, each is written.
  if (near) await hear(target, 'iam', signal).catch(() => {});
  const now = target.clock.atLeast();
  const placed = refs.map((ref) => ({ ref, ...placeOf(target, ref, now) }));
  const roles = [...new Set(placed.flatMap(({ roles: some }) => some))];
  const done = new Map(
    await Promise.all(
      roles.map(async (role) => {
        const own = placed.filter((one) => one.roles.includes(role)).map(({ ref }) => ref);
        const outcome = await settle(denyOn(target, role, own, view, signal));
        return [role, outcome] as const;
      }),
    ),
  );
  const besides = [...done.values()].flatMap((one) => (one instanceof ProviderError ? [] : one.besides));
  return placed.map(({ ref, roles: own, error }, index): FenceOutcome => {
    const also = index === 0 && besides.length > 0 ? { besides } : {};
    if (error !== undefined) return { handle: ref.handle, ok: false, error, ...also };
    const outcomes = own.map((role) => done.get(role));
    for (const outcome of outcomes) {
      const failed = outcome instanceof ProviderError ? outcome : outcome && target.strayed(ref, outcome.uniqueId);
      if (failed instanceof ProviderError) return { handle: ref.handle, ok: false, error: failed, ...also };
    }
    const evidence = evidenceOf(target, ref, outcomes);
    if (own.length > 0 || target.config.fence === 'none') return { handle: ref.handle, ok: true, evidence, ...also };
    const notBefore = target.clock.fromTarget(new Date(target.powerlessAt(ref)));
    return { handle: ref.handle, ok: true, evidence, notBefore, ...also };
  });
}

interface FencedRole extends Fenced {
  readonly uniqueId: string;
}

/** What another role of that name has minted is not denied here. @throws ProviderError */
async function denyOn(
  target: Target,
  role: string,
  refs: readonly Ref[],
  view: FenceView,
  signal: AbortSignal,
): Promise<FencedRole> {
  const { uniqueId } = await target.identify(role, signal);
  tellOccupancy(target, role, refs, view);
  const ended = refs.filter((ref) => target.strayed(ref, uniqueId) === null).map((ref) => endedOf(target, ref));
  if (ended.length === 0) return { policy: 'none', generation: 0, form: 'list', besides: [], uniqueId };
  return { ...(await target.fenceOf(role).deny(ended, livingOn(role, view), view, signal)), uniqueId };
}

/** What the store knows of the role, for those who ask whether it has room. */
export function tellOccupancy(target: Target, role: string, ended: readonly Ref[], view: FenceView): void {
  const occupancy = target.occupancyOf(role);
  const live = view.live.filter(({ facts }) => facts?.['role_arn'] === role);
  occupancy.seen(live, view, target.clock.now());
  occupancy.ended(ended);
}

/** Which grants go on at that role. What is being minted may become one of any role. */
export function livingOn(role: string, { live }: FenceView): readonly Living[] {
  return live
    .filter(({ facts }) => facts === null || facts['role_arn'] === role)
    .map(({ handle, facts }) => ({ handle, issuedFrom: issuedMillis(facts) }));
}

function placeOf(
  target: Target,
  ref: Ref,
  now: number | null,
): { readonly roles: readonly string[]; readonly error?: ProviderError } {
  // What is no handle of ours names nobody, and would make the policy one that is not ours.
  if (!isHandle(ref.handle))
    return { roles: [], error: new ProviderError('misconfigured', 'the handle is none of ours') };
  if (target.config.fence === 'none' || (now !== null && target.powerlessAt(ref) - now < notWorth))
    return { roles: [] };
  try {
    return { roles: target.rolesOf(ref) };
  } catch (error) {
    if (error instanceof ProviderError) return { roles: [], error };
    throw error;
  }
}

function endedOf(target: Target, ref: Ref): Ended {
  return { handle: ref.handle, until: target.powerlessAt(ref), issuedBy: issuedMillis(ref.facts) };
}

function evidenceOf(target: Target, ref: Ref, outcomes: readonly (FencedRole | ProviderError | undefined)[]) {
  const [first] = outcomes;
  if (first === undefined || first instanceof ProviderError)
    return { ends_natively_at: new Date(target.powerlessAt(ref)).toISOString(), fence: target.config.fence };
  const { policy, generation, form } = first;
  return { policy, generation, form, roles: outcomes.length };
}

/** One role that fails leaves the others their answers. */
async function settle(work: Promise<FencedRole>): Promise<FencedRole | ProviderError> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof ProviderError) return error;
    return new ProviderError('retryable', 'writing the fence: given up, AWS did not answer in time', {
      wholeTarget: true,
    });
  }
}
