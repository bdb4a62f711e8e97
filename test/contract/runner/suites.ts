import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { type ContractMode, contractModes } from '../../support/contract-modes.ts';

/** Runs other suites on other versions: the matrix does that itself. Or runs other lives than those of a case. */
const notCases = ['postgres-versions.test.ts', 'postgres-soak.test.ts'];

/**
 * The suites of a mode, by their names: `postgres-<mode>….test.ts` belongs to that mode, `postgres-modes….test.ts` and
 * `postgres-managed….test.ts` to all but definer (they read `MAYFLY_TEST_MODE`), every other `postgres-….test.ts` to definer.
 * @returns Paths from `root`. Empty when the mode is not built.
 */
export function suitesOf(mode: ContractMode, root: string): readonly string[] {
  const folder = join('test', 'contract');
  return readdirSync(join(root, folder))
    .filter((file) => /^postgres-.*\.test\.ts$/.test(file) && !notCases.includes(file))
    .filter((file) => modesOf(file).includes(mode))
    .map((file) => join(folder, file))
    .sort();
}

function modesOf(file: string): readonly ContractMode[] {
  const named = contractModes.filter((mode) => file.startsWith(`postgres-${mode}`));
  if (named.length > 0) return named;
  return file.startsWith('postgres-modes') || file.startsWith('postgres-managed')
    ? contractModes.filter((mode) => mode !== 'definer')
    : ['definer'];
}
