import { step } from '../domain/step.ts';
import type { FenceOutcome } from '../provider.ts';
import type { WriterView } from '../store/fence-writers.ts';
import { endGrants } from '../store/grants.ts';
import { findSubjects } from '../store/subjects.ts';
import type { RevocationDeps } from './deps.ts';
import { engineEvent, targetEvent } from './evidence.ts';

/**
 * Ends the living grants that a fence had to cut besides those that it was asked to: their credentials are of no use any more, and whoever has
 * them is to hear of it and ask for others. Never throws: the fence stands, and a provider says it again as long as it is so.
 * @param live By which it was fenced: nobody else's grants can be meant.
 */
export async function endCutOff(
  deps: Pick<RevocationDeps, 'db' | 'log' | 'worker' | 'policyDigest' | 'wake'>,
  target: string,
  live: WriterView['live'],
  outcomes: readonly FenceOutcome[],
): Promise<void> {
  const handles = new Set(outcomes.flatMap(handlesIn));
  const grantIds = live.filter(({ handle }) => handles.has(handle)).map(({ grantId }) => grantId);
  if (grantIds.length === 0) return;
  let ended = 0;
  try {
    await deps.db.transaction({}, async (tx) => {
      const held = await endGrants(tx, { grantIds }, 'cut_off');
      const ids = held.map(({ grant }) => grant.id);
      const subjects = await findSubjects(tx, ids);
      for (const { grant, revocation } of held) {
        const subject = subjects.get(grant.id);
        if (subject === undefined) continue;
        const about = {
          ...subject,
          grantId: grant.id,
          id: revocation.id,
          handle: grant.handle,
          endedBy: 'cut_off',
        } as const;
        tx.record(engineEvent('grant.ended', deps, target, about, { because: 'fence_without_room' }));
        tx.changed(grant.taskId);
      }
      if (ids.length > 0)
        tx.record(targetEvent('target.cut_off', deps, target, { target, grants: ids.map((id) => `grt_${id}`) }));
      ended = ids.length;
      step('end-cut-off.before');
    });
    step('end-cut-off.after');
  } catch (error) {
    deps.log({ target, grants: grantIds.length, error }, 'what a fence has cut besides can not be ended now');
    return;
  }
  if (ended === 0) return;
  deps.log(
    { target, grants: ended, alert: 'cut_off' },
    'a fence had no room: grants that were to go on were cut, and end',
  );
  deps.wake?.(target);
}

/** A provider is another's code: what is no list is none. */
function handlesIn({ besides }: FenceOutcome): readonly unknown[] {
  return Array.isArray(besides) ? besides : [];
}
