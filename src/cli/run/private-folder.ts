import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A folder that only this user can look into, and that goes with this process. */
export interface PrivateFolder {
  /** @returns the path of the new file. */
  write(name: string, text: string): string;
  remove(): void;
}

export function makePrivateFolder(): PrivateFolder {
  const folder = mkdtempSync(join(tmpdir(), 'mayfly-run-'));
  const released = removeWhenKilled(folder);
  return {
    write: (name, text) => {
      const file = join(folder, name);
      writeFileSync(file, text, { mode: 0o600 });
      return file;
    },
    remove: () => {
      rmSync(folder, { recursive: true, force: true });
      released();
    },
  };
}

/** A shell at the other end of a pipe removes the folder when this process ends in whatever way, by SIGKILL too. */
function removeWhenKilled(folder: string): () => void {
  const watchdog = spawn('sh', ['-c', 'cat >/dev/null; rm -rf -- "$0"', folder], {
    cwd: '/',
    env: { PATH: process.env['PATH'] ?? '/usr/bin:/bin' },
    // Ctrl-C in a terminal must not reach it.
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  // Where there is no shell, `remove` alone must do.
  watchdog.on('error', () => {});
  watchdog.stdin.on('error', () => {});
  watchdog.unref();
  return () => void watchdog.stdin.end();
}
