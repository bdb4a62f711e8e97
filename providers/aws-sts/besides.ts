import type { Account } from './account.ts';
import { cutBesides, type Living, type PlannedFence } from './plan.ts';
import type { Standing } from './standing.ts';

/**
 * Of those that are to go on, whom the fence of their role denies all the same: ours as it was written last, and what others of this
 * installation, or we before, have written. Said aloud: their grants are to end, so that whoever has them asks for others.
 */
export function tellBesides(
  account: Account,
  role: string,
  live: readonly Living[],
  { fences, others: characters }: Standing,
  own: { readonly epoch: bigint; readonly plan: PlannedFence } | undefined,
): readonly string[] {
  const { mark, context } = account;
  account.occupancyOf(role).read(characters, own?.plan.kept.cut ?? null);
  const others = [...fences].filter(([epoch, { says }]) => epoch !== own?.epoch && says.installation === mark);
  const documents = others.map(([, { says }]) => says);
  const besides = cutBesides(live, own === undefined ? documents : [...documents, own.plan.says]);
  if (besides.length > 0)
    context.log(
      { target: context.target, role, lost: besides.length, alert: 'fence_role_wide' },
      'the fence of a role denies sessions that were to go on: their grants end, and are to be asked for again',
    );
  return besides;
}
