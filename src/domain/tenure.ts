/**
 * In whose name a target is prepared. One that another store holds is refused, unless a new tenure is to begin. A store is named so
 * that a copy of its contents has another name: a copy bears the same installation id.
 */
export interface PreparedBy {
  readonly store: string;
  /** Adopts the target. */
  readonly tenure?: string;
}

/**
 * One step of a tenure, written into the target by its holder: where nobody holds the target, or this tenure with an earlier beat.
 * Elsewhere nothing is written.
 */
export interface Beat {
  readonly store: string;
  /** A UUID: one time as the holder, from an adoption to the next. */
  readonly tenure: string;
  readonly beat: number;
}

/** The target's own record of who works on it. */
export interface Holder {
  readonly installation: string;
  /** Counts adoptions. */
  readonly epoch: number;
  /** Null until the first beat. */
  readonly store: string | null;
  readonly tenure: string | null;
  readonly beat: number;
}
