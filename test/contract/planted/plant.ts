import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { caseName } from '../runner/rows.ts';
import { runVitest } from '../runner/vitest.ts';
import type { PlantedBug } from './list.ts';

export interface Caught {
  readonly bug: string;
  readonly caught: boolean;
  /** The cases that failed; or why nothing is known. */
  readonly says: string;
}

/** What a run of the suites needs of the repository. */
const needed = [
  'src',
  'providers',
  'test',
  'scripts',
  'migrations',
  'catalog',
  'package.json',
  'tsconfig.json',
  'vitest.config.ts',
];

/** The text with the edit in it. @throws Error when `from` does not stand there exactly once: the bug fits no more. */
export function edited(text: string, { file, from, to }: PlantedBug['edits'][number]): string {
  const places = text.split(from).length - 1;
  if (places !== 1) throw new Error(`${file} holds this ${places} times, not once: ${from}`);
  return text.replace(from, () => to);
}

/**
 * Puts each bug into a copy of the tree, one at a time, and runs the cases that must notice it. Before that the same cases
 * must pass in the copy as it is: a suite that always fails would catch everything.
 */
export async function plantAll(
  root: string,
  plantedBugs: readonly PlantedBug[],
  env: Readonly<Record<string, string>>,
  onResult: (result: Caught) => void,
): Promise<readonly Caught[]> {
  const tree = mkdtempSync(join(tmpdir(), 'mayfly-planted-'));
  const results: Caught[] = [];
  const note = (result: Caught): void => {
    results.push(result);
    onResult(result);
  };
  try {
    for (const part of needed.filter((each) => existsSync(join(root, each)))) {
      cpSync(join(root, part), join(tree, part), { recursive: true });
    }
    symlinkSync(join(root, 'node_modules'), join(tree, 'node_modules'));
    const sound = await runVitest(tree, [...new Set(plantedBugs.flatMap(({ suites }) => suites))], env, {
      pattern: plantedBugs.map(({ cases }) => literally(cases)).join('|'),
    });
    note(judge('none: the copy as it is', sound, (failed) => !failed && sound.ok));
    for (const bug of plantedBugs) note(await plant(tree, bug, env));
    return results;
  } finally {
    rmSync(tree, { recursive: true, force: true });
  }
}

async function plant(tree: string, bug: PlantedBug, env: Readonly<Record<string, string>>): Promise<Caught> {
  const before = new Map<string, string>();
  try {
    for (const edit of bug.edits) {
      const path = join(tree, edit.file);
      const text = readFileSync(path, 'utf8');
      if (!before.has(path)) before.set(path, text);
      writeFileSync(path, edited(text, edit));
    }
    const run = await runVitest(tree, bug.suites, env, { pattern: literally(bug.cases) });
    return judge(bug.name, run, (failed) => failed);
  } catch (error) {
    return { bug: bug.name, caught: false, says: error instanceof Error ? error.message : String(error) };
  } finally {
    before.forEach((text, path) => writeFileSync(path, text));
  }
}

/** Only a case that ran and failed has noticed anything: a suite that does not even start has not. */
function judge(bug: string, run: Awaited<ReturnType<typeof runVitest>>, right: (failed: boolean) => boolean): Caught {
  const cases = run.suites.flatMap(({ assertionResults }) => assertionResults);
  const ran = cases.filter(({ status }) => status === 'passed' || status === 'failed');
  const failed = ran.filter(({ status }) => status === 'failed');
  if (ran.length === 0) return { bug, caught: false, says: `no case ran:\n${run.output.slice(-2000)}` };
  const says = failed.length > 0 ? failed.map(caseName).join('; ') : `${ran.length} cases passed`;
  return { bug, caught: right(failed.length > 0), says };
}

function literally(text: string): string {
  return text.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&');
}
