import { spawn, spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { freePort } from './free-port.ts';

/** What `openbao/go.mod` names. */
const version = '2.4.0';

export interface OpenbaoServer {
  readonly url: string;
  /** The root token. */
  readonly token: string;
  log(): string;
  /** Ends it; what it held was in its memory. Safe to call twice. */
  stop(): Promise<void>;
}

/**
 * The server's binary: `MAYFLY_TEST_OPENBAO`, PATH, the cache of test servers, or built into it where there is a Go (minutes, once).
 * Undefined, and said aloud, where there is none; in CI that is a failure.
 */
export function openbaoBinary(): string | undefined {
  const found = find();
  if (found !== undefined) return found;
  if (spawnSync('go', ['version']).status === 0) return buildOpenbao();
  const says = 'OpenBao was not found (MAYFLY_TEST_OPENBAO, PATH, npm run test:servers -- openbao, which needs Go)';
  if (process.env['CI'] === 'true') throw new Error(says);
  console.warn(`\n*** SKIPPED: ${says} ***\n`);
  return undefined;
}

function find(): string | undefined {
  const named = process.env['MAYFLY_TEST_OPENBAO'];
  if (named !== undefined) return named;
  const folders = (process.env['PATH'] ?? '').split(delimiter);
  return [...folders.map((folder) => join(folder, 'bao')), cached()].find((file) => existsSync(file));
}

function cached(): string {
  const cache = process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache');
  return join(cache, 'mayfly-test-servers', `openbao-${version}`, 'bao');
}

/** Builds it from its sources, of which `go.sum` has every digest, unless the cache has it. */
export function buildOpenbao(): string {
  const binary = cached();
  if (existsSync(binary)) return binary;
  const home = dirname(binary);
  mkdirSync(dirname(home), { recursive: true });
  const half = mkdtempSync(`${home}-`);
  try {
    console.warn(`building OpenBao ${version}: some minutes, once`);
    const name = `-X github.com/openbao/openbao/version.fullVersion=${version}`;
    const { status, stderr } = spawnSync(
      'go',
      ['build', '-mod=readonly', '-buildvcs=false', '-p=2', '-trimpath', `-ldflags=-s -w ${name}`, '-o', half, '.'],
      { cwd: fileURLToPath(new URL('./openbao', import.meta.url)), encoding: 'utf8' },
    );
    if (status !== 0) throw new Error(`OpenBao can not be built: ${stderr}`);
    renameSync(join(half, 'openbao'), join(half, 'bao'));
    rmSync(home, { recursive: true, force: true });
    renameSync(half, home);
    return binary;
  } finally {
    rmSync(half, { recursive: true, force: true });
  }
}

/** A server of its own in dev mode: unsealed, everything in memory. It ends with this process, however that dies. */
export async function startOpenbao(binary: string): Promise<OpenbaoServer> {
  const port = await freePort();
  const token = randomUUID();
  const folder = mkdtempSync(join(tmpdir(), 'mayfly-openbao-'));
  const logFile = join(folder, 'log');
  const args = [
    'server',
    '-dev',
    '-dev-no-store-token',
    `-dev-root-token-id=${token}`,
    `-dev-listen-address=127.0.0.1:${port}`,
  ];
  // `cat` sees the end of the pipe when this process dies.
  const script =
    'exec 3<&0; folder=$1; shift; "$0" "$@" & server=$!; (cat <&3 >/dev/null; kill -9 $server 2>/dev/null) & wait $server; rm -rf "$folder"';
  const log = openSync(logFile, 'a');
  const child = spawn('sh', ['-c', script, binary, folder, ...args], {
    cwd: '/',
    env: { PATH: process.env['PATH'], HOME: folder },
    detached: true,
    stdio: ['pipe', log, log],
  });
  closeSync(log);
  const over = () => child.exitCode !== null || child.signalCode !== null;
  const stop = async () => {
    if (over()) return;
    const gone = once(child, 'exit');
    child.stdin?.end();
    await gone;
  };
  const server = { url: `http://127.0.0.1:${port}`, token, log: () => readFileSync(logFile, 'utf8'), stop };
  try {
    await ready(server, over);
  } catch (error) {
    await stop();
    throw error;
  }
  return server;
}

async function ready(server: OpenbaoServer, over: () => boolean): Promise<void> {
  for (const deadline = Date.now() + 60_000; ; ) {
    if (over() || Date.now() > deadline)
      throw new Error(`OpenBao did not start:\n${over() ? '' : server.log().slice(-2000)}`);
    const healthy = await fetch(`${server.url}/v1/sys/health`).then(
      async (answer) => {
        await answer.arrayBuffer();
        return answer.ok;
      },
      () => false,
    );
    if (healthy) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
