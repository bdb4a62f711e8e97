/** The ways in which the PostgreSQL provider works on a target. */
export const contractModes = ['definer', 'createrole', 'pool'] as const;
export type ContractMode = (typeof contractModes)[number];

/** @throws Error for what is not a mode. */
export function parseModes(list: string): readonly ContractMode[] {
  return list.split(',').map((word) => {
    const known = contractModes.find((mode) => mode === word.trim());
    if (known === undefined) throw new Error(`not one of the modes ${contractModes.join(', ')}: ${word}`);
    return known;
  });
}

/**
 * Those of a suite's modes that are wanted: all, or what `MAYFLY_TEST_MODE` says. `npm run test:contract` sets it, so that
 * a suite of several modes (`postgres-modes….test.ts`) runs in one at a time: `describe.each(wantedModes(['createrole', 'pool']))`.
 */
export function wantedModes<M extends ContractMode>(of: readonly M[]): readonly M[] {
  const listed = process.env['MAYFLY_TEST_MODE'];
  return listed === undefined ? of : of.filter((mode) => parseModes(listed).some((wanted) => wanted === mode));
}
