import { randomBytes } from 'node:crypto';
import { link, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { DevError, systemCode } from './dev-error.ts';
import { openPrivateFolder } from './dev-folder.ts';
import { processBirth } from './process-table.ts';

const holderSchema = z.object({ pid: z.int().positive(), birth: z.string(), since: z.iso.datetime() });

export interface DevLockHolder {
  readonly pid: number;
  /** RFC 3339, UTC. */
  readonly since: string;
}

export interface DevLock {
  /** Gives the folder free. Safe to call twice. */
  release(): Promise<void>;
}

/**
 * Makes this process the one dev broker of a folder. A lock left by a crash is taken over; its pid may by now be
 * another program's, so a holder counts only with the same birth.
 *
 * The lock is a row of numbered files, and whoever made the highest number holds it. Taking over means making the next
 * number, which only one can do. The highest is never removed (release empties it), so a slow start that looked
 * before a takeover finds its number taken or not the highest. Removing and remaking one file has no such safety:
 * two starts that both saw it stale would each remove the other's.
 *
 * Holders are judged by their pid: two containers that share a folder do not see each other.
 * @throws DevError `already_running`, with pid, since when, and how to stop it.
 */
export async function acquireDevLock(dir: string, now: () => Date = () => new Date()): Promise<DevLock> {
  const folder = await openPrivateFolder(join(await openPrivateFolder(dir), 'lock'));
  const birth = await processBirth(process.pid);
  if (birth === undefined) throw new Error('This system does not tell when a process started: no lock can be kept.');
  const mine = JSON.stringify({ pid: process.pid, birth, since: now().toISOString() });
  for (;;) {
    const highest = Math.max(0, ...(await generations(folder)));
    const holder = await liveHolder(folder, highest);
    if (holder !== undefined) throw alreadyRunning(dir, holder);
    const generation = highest + 1;
    if (!(await claim(folder, generation, mine))) continue;
    const after = await generations(folder);
    if (after.some((other) => other > generation)) {
      await rm(join(folder, String(generation)), { force: true });
      continue;
    }
    // The one before stays: a listing that runs at this moment must not miss both the old file and the new.
    const old = after.filter((other) => other < highest);
    await Promise.all(old.map((other) => rm(join(folder, String(other)), { force: true })));
    return { release: () => replace(folder, generation, '{}') };
  }
}

/** Who holds the folder now, or undefined. */
export async function readDevLock(dir: string): Promise<DevLockHolder | undefined> {
  const folder = join(dir, 'lock');
  try {
    return await liveHolder(folder, Math.max(0, ...(await generations(folder))));
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

async function generations(folder: string): Promise<number[]> {
  return (await readdir(folder)).filter((name) => /^\d{1,12}$/.test(name)).map(Number);
}

async function liveHolder(folder: string, generation: number): Promise<DevLockHolder | undefined> {
  let text: string;
  try {
    text = await readFile(join(folder, String(generation)), 'utf8');
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined;
    throw error;
  }
  const holder = holderSchema.safeParse(parse(text));
  if (!holder.success) return undefined;
  const { pid, birth, since } = holder.data;
  return (await processBirth(pid)) === birth ? { pid, since } : undefined;
}

/** Makes the file with its whole content in one step (link(2)), so that nobody reads half of it. */
async function claim(folder: string, generation: number, content: string): Promise<boolean> {
  const draft = await writeDraft(folder, content);
  try {
    await link(draft, join(folder, String(generation)));
    return true;
  } catch (error) {
    if (systemCode(error) === 'EEXIST') return false;
    throw error;
  } finally {
    await rm(draft, { force: true });
  }
}

async function replace(folder: string, generation: number, content: string): Promise<void> {
  await rename(await writeDraft(folder, content), join(folder, String(generation)));
}

async function writeDraft(folder: string, content: string): Promise<string> {
  const draft = join(folder, `draft-${randomBytes(6).toString('hex')}`);
  await writeFile(draft, content, { flag: 'wx', mode: 0o600 });
  return draft;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function alreadyRunning(dir: string, holder: DevLockHolder): DevError {
  return new DevError(
    'already_running',
    `A dev broker already runs on ${dir}: pid ${holder.pid}, since ${holder.since}. ` +
      `Use that one, or stop it with Ctrl-C in its terminal or \`kill ${holder.pid}\`.`,
  );
}
