import { execFile, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { copyFileSync, existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { AwsKeys } from './aws-account.ts';
import { freePort } from './free-port.ts';
import { cachedServer, fillCache, hasAll, without } from './server-cache.ts';
import { answers, makeServerFolder, type ServerProcess, startServer } from './server-process.ts';

const version = '1.5.33';
const requirements = fileURLToPath(new URL('./ministack/requirements.txt', import.meta.url));
const PYTHON = join('bin', 'python3');
const VARIABLE = 'MAYFLY_TEST_MINISTACK';

/** An AWS of one account, in memory, that enforces its policies. What it gets wrong stands in `ministack/README.md`. */
export interface MiniStack extends Pick<ServerProcess, 'log' | 'stop'> {
  /** Of all its services. */
  readonly endpoint: string;
  readonly region: string;
  /** The account's twelve digits. */
  readonly account: string;
  /** May everything. */
  readonly root: AwsKeys;
}

/**
 * The Python environment that has it: what `MAYFLY_TEST_MINISTACK` names, the cache of test servers, or installed into that where
 * there is a Python (some seconds, once). Undefined, and said aloud, where there is none; in CI that is a failure.
 */
export async function findMiniStack(): Promise<string | undefined> {
  const named = process.env[VARIABLE];
  if (named !== undefined) return named;
  if (isCached() || spawnSync('python3', ['-c', 'import venv, ensurepip']).status === 0) return await fetchMiniStack();
  return without(
    `MiniStack not found (${VARIABLE}, npm run test:servers -- ministack, which needs Python and its venv)`,
  );
}

/** Installs it, of which `requirements.txt` has every digest, unless the cache has it. Answers the folder. */
export async function fetchMiniStack(): Promise<string> {
  const home = cachedHome();
  if (isCached()) return home;
  const run = promisify(execFile);
  await fillCache(home, async (half) => {
    await run('python3', ['-m', 'venv', half]);
    // Wheels only: nothing of what is fetched runs while it is installed.
    const pip = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--no-input', '--only-binary=:all:'];
    await run(join(half, PYTHON), [...pip, '--require-hashes', '--requirement', requirements]);
    copyFileSync(requirements, join(half, 'requirements.txt'));
  });
  return home;
}

function cachedHome(): string {
  return cachedServer(`ministack-${version}`);
}

/** Installed from what `requirements.txt` names now. */
function isCached(): boolean {
  const installed = join(cachedHome(), 'requirements.txt');
  if (!hasAll(cachedHome(), [PYTHON]) || !existsSync(installed)) return false;
  return readFileSync(installed).equals(readFileSync(requirements));
}

/** A server of its own, empty. @param home From `findMiniStack`. */
export async function startMiniStack(home: string): Promise<MiniStack> {
  const port = await freePort();
  const endpoint = `http://127.0.0.1:${port}`;
  const region = 'eu-central-1';
  const account = '123456789012';
  const root = { accessKeyId: `AKIA${randomBytes(8).toString('hex').toUpperCase()}`, secretAccessKey: secretKey() };
  const folder = makeServerFolder('ministack');
  // Isolated: by nothing that Python's variables or the user's own packages say.
  const server = startServer(folder, join(home, PYTHON), ['-I', '-m', 'ministack'], {
    AUTH: 'true',
    BIND_HOST: '127.0.0.1',
    GATEWAY_PORT: String(port),
    MINISTACK_ACCOUNT_ID: account,
    MINISTACK_REGION: region,
    AWS_ACCESS_KEY_ID: root.accessKeyId,
    AWS_SECRET_ACCESS_KEY: root.secretAccessKey,
    LOG_LEVEL: 'INFO',
    TMPDIR: folder,
  });
  await server.ready(() => answers(`${endpoint}/_ministack/ready`));
  return { endpoint, region, account, root, log: () => server.log(), stop: () => server.stop() };
}

function secretKey(): string {
  return randomBytes(30).toString('base64');
}
