import { readdirSync, readFileSync } from 'node:fs';

/** A running process. `started` (clock ticks since boot) tells it from a later one with the same pid. */
export interface RunningProcess {
  readonly pid: number;
  readonly parent: number;
  readonly started: string;
  readonly command: string;
}

/** Every process of this machine, by pid. Empty where there is no `/proc`. */
export function runningProcesses(): Map<number, RunningProcess> {
  const found = new Map<number, RunningProcess>();
  for (const name of proc()) {
    try {
      const stat = readFileSync(`/proc/${name}/stat`, 'utf8');
      // The command stands in parentheses and may hold spaces and parentheses itself.
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      if (fields[0] === 'Z') continue;
      const command = readFileSync(`/proc/${name}/cmdline`, 'utf8').replaceAll('\0', ' ').trim().slice(0, 200);
      const pid = Number(name);
      found.set(pid, { pid, parent: Number(fields[1]), started: fields[19] ?? '', command });
    } catch {
      // It ended while we looked.
    }
  }
  return found;
}

function proc(): string[] {
  try {
    return readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  } catch {
    return [];
  }
}

/**
 * Watches what a command starts, children of children too, and says at the end which of them outlived it. Looking
 * twice a second finds every server that a test had time to use; what has changed its parent since is still known.
 */
export class Descendants {
  readonly #seen = new Map<number, RunningProcess>();
  readonly #root: RunningProcess | undefined;
  readonly #timer: NodeJS.Timeout;

  /** @param root pid of the command, just started; it is not counted itself. */
  constructor(root: number) {
    this.#root = runningProcesses().get(root);
    this.#timer = setInterval(() => this.look(), 500);
    this.#timer.unref();
  }

  /** Looks now, without waiting for the next half second. */
  look(): Map<number, RunningProcess> {
    const now = runningProcesses();
    const known = (pid: number): boolean => {
      const started = now.get(pid)?.started;
      if (started === undefined) return false;
      return this.#seen.get(pid)?.started === started || (pid === this.#root?.pid && started === this.#root.started);
    };
    let grew = true;
    while (grew) {
      grew = false;
      for (const one of now.values()) {
        if (known(one.pid) || !known(one.parent)) continue;
        this.#seen.set(one.pid, one);
        grew = true;
      }
    }
    return now;
  }

  /** Stops watching. What is still alive, after it had `graceMs` to end by itself, is ended and returned. */
  async end(graceMs: number): Promise<RunningProcess[]> {
    clearInterval(this.#timer);
    const until = Date.now() + graceMs;
    for (;;) {
      const now = this.look();
      const alive = [...this.#seen.values()].filter(({ pid, started }) => now.get(pid)?.started === started);
      if (alive.length === 0) return [];
      if (Date.now() >= until) {
        for (const { pid } of alive) kill(pid);
        return alive;
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It ended just now.
  }
}
