import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';

const remembered = z.strictObject({ request: z.string(), task: z.string() });

/**
 * The task that an earlier call like this one opened, in a file of the user's cache folder. A signed request opens its task within
 * five minutes; an SDK calls again long after. Only ids: whoever reads it needs the workload's token and key all the same.
 */
export class RememberedTask {
  readonly #folder: string;
  readonly #file: string;
  readonly #request: string;

  /** @param call What makes two calls alike. @param request By which the task was opened: with another one it is another task. */
  constructor(call: unknown, request: string) {
    this.#folder = join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'mayfly', 'tasks');
    this.#file = join(this.#folder, `${digest(JSON.stringify(call))}.json`);
    this.#request = digest(request);
  }

  /** Its id, of a task that may have ended. */
  recall(): string | undefined {
    try {
      const { request, task } = remembered.parse(JSON.parse(readFileSync(this.#file, 'utf8')));
      return request === this.#request ? task : undefined;
    } catch {
      // There is none, or nothing that we wrote.
      return undefined;
    }
  }

  /** Whole or not at all: another call may read it at this moment. @throws Error where the folder can not be written. */
  keep(task: string): void {
    mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
    const draft = `${this.#file}.${process.pid}.tmp`;
    writeFileSync(draft, JSON.stringify({ request: this.#request, task }), { mode: 0o600 });
    renameSync(draft, this.#file);
  }
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('base64url');
}
