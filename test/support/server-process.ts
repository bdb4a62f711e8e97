import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A server that a test started, with a folder of its own. It ends with this process, however that dies. */
export interface ServerProcess {
  /** What it wrote so far. */
  log(): string;
  /** Resolves when `probe` is true. Throws when the process is over, or still not ready then. */
  ready(probe: () => Promise<boolean>, timeoutMs?: number): Promise<void>;
  /** Ends it, and takes its folder away. Safe to call twice. */
  stop(): Promise<void>;
}

export function makeServerFolder(name: string): string {
  return mkdtempSync(join(tmpdir(), `mayfly-${name}-`));
}

/** @param folder From `makeServerFolder`: gone when the server is. */
export function startServer(
  folder: string,
  command: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): ServerProcess {
  // `cat` sees the end of the pipe when this process dies.
  const script =
    'exec 3<&0; folder=$1; shift; "$0" "$@" & server=$!; (cat <&3 >/dev/null; kill -9 $server 2>/dev/null) & wait $server; rm -rf "$folder"';
  const child = spawn('sh', ['-c', script, command, folder, ...args], {
    cwd: '/',
    env: { PATH: process.env['PATH'], HOME: folder, ...env },
    detached: true,
    stdio: 'pipe',
  });
  let said = '';
  child.stdout.on('data', (part: Buffer) => (said += part.toString()));
  child.stderr.on('data', (part: Buffer) => (said += part.toString()));
  const gone = once(child, 'exit');
  let over = false;
  child.on('exit', () => {
    over = true;
    child.stdin.end();
  });
  const stop = async () => {
    child.stdin.end();
    await gone;
  };
  return {
    log: () => said,
    stop,
    async ready(probe, timeoutMs = 60_000) {
      for (const deadline = Date.now() + timeoutMs; !(await probe().catch(() => false)); ) {
        if (over || Date.now() > deadline) {
          await stop();
          throw new Error(`${command} did not start:\n${said.slice(-2000)}`);
        }
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    },
  };
}

/** Whether that address answers with success. */
export async function answers(url: string): Promise<boolean> {
  const response = await fetch(url);
  await response.arrayBuffer();
  return response.ok;
}
