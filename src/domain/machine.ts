/** A state machine as data: for each state, the states it may go to. The database holds the same table. */
export interface Machine<S extends string> {
  readonly name: string;
  /** States that a new row may be born in. */
  readonly births: readonly S[];
  readonly transitions: { readonly [from in S]: readonly S[] };
}

export function mayBecome<S extends string>(machine: Machine<S>, from: S, to: S): boolean {
  return machine.transitions[from].includes(to);
}

/** States that nothing leaves. */
export function isFinal<S extends string>(machine: Machine<S>, state: S): boolean {
  return machine.transitions[state].length === 0;
}
