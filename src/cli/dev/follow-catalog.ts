import { type FSWatcher, readdirSync, watch } from 'node:fs';
import { join } from 'node:path';
import { note } from '../output.ts';

/** An editor writes a file in several steps. */
const SETTLE_MILLIS = 200;

/**
 * Runs `apply` after something below the folder has changed and a moment has passed; one run at a time, and once more for what
 * changed meanwhile.
 *
 * Each folder is watched by itself, anew before each run. A recursive watch of Node 20 on Linux watches file by file, and goes on
 * watching the old one after an editor has renamed a new one over it: from then on it is blind.
 * @param apply must not throw.
 */
export function followCatalog(folder: string, apply: () => Promise<void>): { close(): Promise<void> } {
  let watchers: FSWatcher[] = [];
  let timer: NodeJS.Timeout | undefined;
  let last = Promise.resolve();
  const changed = () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      last = last.then(() => {
        look();
        return apply();
      });
    }, SETTLE_MILLIS);
  };
  const end = () => {
    for (const watcher of watchers.splice(0)) watcher.close();
  };
  const look = () => {
    end();
    try {
      // A folder that goes away says so as an error, too.
      watchers = foldersOf(folder).map((path) => watch(path, changed).on('error', changed));
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      note(`${folder} can not be watched: start again to apply what changes there. ${why}`);
    }
  };
  look();
  return {
    close: async () => {
      clearTimeout(timer);
      await last;
      end();
    },
  };
}

/** The folder itself and those in it, but for Git's and the like. */
function foldersOf(folder: string): string[] {
  const inside = readdirSync(folder, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && !entry.name.startsWith('.'))
    .flatMap((entry) => foldersOf(join(folder, entry.name)));
  return [folder, ...inside];
}
