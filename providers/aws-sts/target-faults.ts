import { chainedSeconds } from './account.ts';
import { allRoles, type AwsTarget } from './schema.ts';

/** What is wrong with the targets of one catalog, each by itself and all together: sentences for `catalog check`, by name. */
export function targetFaults(targets: ReadonlyMap<string, AwsTarget>): ReadonlyMap<string, readonly string[]> {
  const owners = new Map<string, string[]>();
  for (const [name, target] of targets)
    for (const { arn } of allRoles(target)) owners.set(arn, [...(owners.get(arn) ?? []), name]);
  return new Map(
    [...targets].map(([name, target]) => {
      // Each would write a fence that knows nothing of what lives by the other, and cut it off.
      const shared = allRoles(target).flatMap(({ arn }) => {
        const others = owners.get(arn)?.filter((one) => one !== name) ?? [];
        return others.length === 0
          ? []
          : [`the role ${arn} is one of ${others.join(', ')}, too: two targets may not share a role`];
      });
      const long = target.max_session_seconds > chainedSeconds;
      return [
        name,
        long
          ? [
              ...shared,
              `max_session_seconds is ${target.max_session_seconds}, and a role that another one assumes is given ${chainedSeconds} s at most: so it is here`,
            ]
          : shared,
      ] as const;
    }),
  );
}
