/** One bound on a grant's life, in seconds from now. */
export interface Bound {
  readonly by: 'asked' | 'request' | 'policy' | 'entitlement' | 'task' | 'provider';
  readonly seconds: number;
}

export interface Life {
  readonly seconds: number;
  /** The bound that decided, when it was not what the agent asked for. */
  readonly cutBy: Bound['by'] | null;
}

/**
 * The life of a grant: the least of all bounds (DESIGN invariant 5: the agent has no dial).
 * Earlier bounds win a tie, so put `asked` first: what was granted as asked was not cut.
 */
export function shortestLife(bounds: readonly Bound[]): Life {
  const least = bounds.reduce((a, b) => (b.seconds < a.seconds ? b : a));
  return { seconds: least.seconds, cutBy: least.by === 'asked' ? null : least.by };
}
