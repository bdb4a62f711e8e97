import { execFile, spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, readFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { cachedServer, fillCache, hasAll, without } from './server-cache.ts';

/** A server that is built from its sources: the folder of that name here is a Go module that has them as a dependency. */
export interface GoServer {
  readonly name: string;
  /** What its `go.mod` names. */
  readonly version: string;
  /** Each the name of a folder of the module, too. */
  readonly binaries: readonly string[];
  /** Values for `-X`. */
  readonly variables?: readonly string[];
}

/**
 * The folder with the binaries: what `MAYFLY_TEST_<NAME>` names, one of PATH, the cache of test servers, or built into that where
 * there is a Go (minutes, once). Undefined, and said aloud, where there is none; in CI that is a failure.
 */
export async function findGoServer(server: GoServer): Promise<string | undefined> {
  const variable = `MAYFLY_TEST_${server.name.toUpperCase()}`;
  const named = process.env[variable];
  if (named !== undefined) return named;
  const folders = (process.env['PATH'] ?? '').split(delimiter);
  const found = folders.find((folder) => hasAll(folder, server.binaries));
  if (found !== undefined) return found;
  if (isCached(server) || spawnSync('go', ['version']).status === 0) return await buildGoServer(server);
  const fetched = `npm run test:servers -- ${server.name}, which needs Go`;
  return without(`${server.binaries.join(' and ')} not found (${variable}, PATH, ${fetched})`);
}

/** Builds it from its sources, of which `go.sum` has every digest, unless the cache has it. Answers the folder. */
export async function buildGoServer(server: GoServer): Promise<string> {
  const home = homeOf(server);
  if (isCached(server)) return home;
  console.warn(`building ${server.name} ${server.version}: some minutes, once`);
  const variables = (server.variables ?? []).map((variable) => ` -X ${variable}`).join('');
  const flags = ['-mod=readonly', '-buildvcs=false', '-p=2', '-trimpath', `-ldflags=-s -w${variables}`];
  await fillCache(home, async (half) => {
    await promisify(execFile)('go', ['build', ...flags, '-o', half, './...'], { cwd: sourcesOf(server) });
    copyFileSync(join(sourcesOf(server), 'go.sum'), join(half, 'go.sum'));
  });
  return home;
}

function homeOf({ name, version }: GoServer): string {
  return cachedServer(`${name}-${version}`);
}

function sourcesOf({ name }: GoServer): string {
  return fileURLToPath(new URL(`./${name}`, import.meta.url));
}

/** Built from what `go.sum` names now. */
function isCached(server: GoServer): boolean {
  const sum = join(homeOf(server), 'go.sum');
  const current = () => readFileSync(join(sourcesOf(server), 'go.sum'));
  return hasAll(homeOf(server), server.binaries) && existsSync(sum) && readFileSync(sum).equals(current());
}
