import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { describe, expect, test } from 'vitest';
import { Descendants, runningProcesses } from './leftovers.ts';

const sleeper = `setInterval(() => {}, 1000)`;
/** Starts a detached grandchild, says its pid, and ends when its own input does. */
const parent = `
  const child = require('node:child_process').spawn(process.execPath, ['-e', ${JSON.stringify(sleeper)}], { detached: true, stdio: 'ignore' });
  child.unref();
  console.log(child.pid);
  process.stdin.resume().on('end', () => process.exit());
`;

describe.skipIf(process.platform !== 'linux')('what a command leaves behind', () => {
  test('is found and ended, though its parent is gone and it has a session of its own', async () => {
    const command = spawn(process.execPath, ['-e', parent], { stdio: ['pipe', 'pipe', 'inherit'] });
    const watched = new Descendants(command.pid ?? 0);
    const [line] = await once(createInterface(command.stdout), 'line');
    const pid = Number(line);
    await expect.poll(() => runningProcesses().get(pid)?.command ?? '').toContain('setInterval');
    watched.look();
    command.stdin.end();
    await once(command, 'exit');
    const left = await watched.end(0);
    expect(left.map((one) => one.pid)).toEqual([pid]);
    await expect.poll(() => runningProcesses().has(pid)).toBe(false);
  });

  test('is nothing when all have ended', async () => {
    const command = spawn(process.execPath, ['-e', ''], { stdio: 'ignore' });
    const watched = new Descendants(command.pid ?? 0);
    await once(command, 'exit');
    expect(await watched.end(5000)).toEqual([]);
  });
});
