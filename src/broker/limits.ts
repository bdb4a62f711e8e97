import type { AtMostRule, Limits, ToxicRule } from '../catalog/types.ts';
import type { IntentLimit } from '../store/intents.ts';

export type LimitRule = Pick<ToxicRule | AtMostRule, 'name' | 'reason'>;

/**
 * The rule that keeps a tree with these live grants from having one more of the entitlement. What is held is compared again when the
 * intent is committed, so that two asks at once do not both pass.
 * @param held Grants not yet contained of each entitlement.
 */
export function reachedInTree(
  { toxic, atMost }: Limits,
  entitlement: string,
  held: Readonly<Record<string, number>>,
): LimitRule | undefined {
  const count = (of: readonly string[] | null) =>
    Object.entries(held).reduce((sum, [name, grants]) => (of === null || of.includes(name) ? sum + grants : sum), 0);
  const beside = ({ one, other }: ToxicRule) =>
    (one.includes(entitlement) && count(other) > 0) || (other.includes(entitlement) && count(one) > 0);
  const full = ({ per, of, grants }: AtMostRule) =>
    per === 'tree' && (of === null || of.includes(entitlement)) && count(of) >= grants;
  return toxic.find(beside) ?? atMost.find(full);
}

/** The rules about more than one tree: only the store can count these. */
export function limitsBeyondTree({ atMost }: Limits, entitlement: string): readonly IntentLimit[] {
  return atMost.flatMap(({ name, grants, per, of }): readonly IntentLimit[] =>
    per === 'tree' || of?.includes(entitlement) === false ? [] : [{ name, per, of, grants }],
  );
}
