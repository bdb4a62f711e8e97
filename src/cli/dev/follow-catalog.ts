import { watch } from 'node:fs';
import { note } from '../output.ts';

/** An editor writes a file in several steps. */
const SETTLE_MILLIS = 200;

/**
 * Runs `apply` after something below the folder has changed and a moment has passed; one run at a time, and once more for what
 * changed meanwhile.
 * @param apply must not throw.
 */
export function followCatalog(folder: string, apply: () => Promise<void>): { close(): Promise<void> } {
  let timer: NodeJS.Timeout | undefined;
  let last = Promise.resolve();
  const changed = () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      last = last.then(apply);
    }, SETTLE_MILLIS);
  };
  const blind = (error: Error) =>
    note(`${folder} can not be watched (${error.message}): start again to apply what changes there.`);
  try {
    const watcher = watch(folder, { recursive: true }, changed).on('error', blind);
    return {
      close: async () => {
        clearTimeout(timer);
        watcher.close();
        await last;
      },
    };
  } catch (error) {
    blind(error instanceof Error ? error : new Error(String(error)));
    return { close: async () => {} };
  }
}
