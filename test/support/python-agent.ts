import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const script = fileURLToPath(new URL('../clients/agent.py', import.meta.url));

/**
 * A Python that has PyJWT and cryptography: MAYFLY_TEST_PYTHON, the one on PATH, then the system's own. A missing one is said aloud on a
 * laptop and fails when `CI=true`.
 */
export function findPython(): string | null {
  const candidates = [process.env['MAYFLY_TEST_PYTHON'] ?? 'python3', 'python3', '/usr/bin/python3'];
  const found = candidates.find((python) => spawnSync(python, ['-c', 'import jwt, cryptography']).status === 0);
  if (found !== undefined) return found;
  const says = 'no Python with PyJWT and cryptography was found (MAYFLY_TEST_PYTHON, PATH, /usr/bin/python3)';
  if (process.env['CI'] === 'true') throw new Error(says);
  console.warn(`\n*** SKIPPED: ${says}: no client in another language is tested ***\n`);
  return null;
}

export interface Given {
  readonly url: string;
  readonly token: string;
  readonly request: string;
  readonly entitlement: string;
}

/** One life of the agent, and what it said. @param give What it is given, told the thumbprint of its key. */
export async function runPythonAgent(
  python: string,
  algorithm: string,
  give: (jkt: string) => Promise<Given>,
): Promise<readonly Record<string, unknown>[]> {
  const child = spawn(python, [script, algorithm], { stdio: ['pipe', 'pipe', 'inherit'] });
  const ended = once(child, 'close');
  try {
    const said: Record<string, unknown>[] = [];
    for await (const line of createInterface({ input: child.stdout })) {
      const { jkt, ...step }: Record<string, unknown> = JSON.parse(line);
      if (typeof jkt === 'string') child.stdin.end(`${JSON.stringify(await give(jkt))}\n`);
      else said.push(step);
    }
    return said;
  } finally {
    child.kill();
    await ended;
  }
}
