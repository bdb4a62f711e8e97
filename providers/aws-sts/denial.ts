import { denies } from './document.ts';
import type { Ended, FenceState } from './plan.ts';
import type { Standing } from './standing.ts';

/** Who is denied by what stands. */
export interface Denial {
  /** Since which generation of this broker's a handle is denied; null: it is not, by this broker. */
  readonly since: (handle: string, issuedBy: number | null) => number | null;
  /** Whether some document denies it, which another broker may have written, and nobody here has seen in force. */
  readonly anywhere: (handle: string, issuedBy: number | null) => boolean;
}

/** Whether some document of that installation denies it, for as long as is asked. */
export function isDenied(
  { fences }: Standing,
  installation: string,
  { handle, issuedBy, until }: Pick<Ended, 'handle' | 'issuedBy'> & { readonly until?: number },
): boolean {
  return [...fences.values()].some(
    ({ says }) => says.installation === installation && says.until >= (until ?? 0) && denies(says, handle, issuedBy),
  );
}

/** Whether others deny all that a state does: a broker that began later takes over what one before it wrote, and takes that away. */
export function isTakenOver(
  standing: Standing,
  installation: string,
  state: FenceState,
  grants: readonly Ended[],
): boolean {
  const { cut, unnamedUntil } = state;
  const cutOff =
    unnamedUntil === null ||
    [...standing.fences.values()].some(
      ({ says }) =>
        says.installation === installation && says.cut !== null && says.cut >= (cut ?? 0) && says.until >= unnamedUntil,
    );
  // To the second, as documents tell it.
  return cutOff && grants.every((one) => isDenied(standing, installation, { ...one, until: one.until - 1000 }));
}
