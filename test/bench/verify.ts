import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { SignJWT } from 'jose';
import { AgentKey } from '../../src/client/index.ts';
import { startBenchHouse } from './lib/bench-house.ts';
import { call, closeConnections } from './lib/http.ts';
import { joined, type Measured, measure, report, type Row } from './lib/report.ts';

/**
 * Opened tasks per second: three signatures verified (task request, workload token, proof), replay refused for all replicas, the task and its
 * evidence committed with fsync. Beside a bare Express route that verifies one ES256 token, in a process of its own too. They take turns. What
 * is sent is signed before the clock runs.
 */
const ROUNDS = 5;
const COUNT = { 1: 100, 16: 400 } as const;

const house = await startBenchHouse();
try {
  const key = await AgentKey.make();
  const token = await house.token();
  const floor = await startFloor();
  const rows: Row[] = [];
  await openTasks(key, 400, 8);
  await floor.ask(2000, 8);
  for (const concurrency of [1, 16] as const) {
    const rounds: Record<'proven' | 'bearer' | 'floor', Measured[]> = { proven: [], bearer: [], floor: [] };
    for (let round = 0; round < ROUNDS; round++) {
      rounds.floor.push(await floor.ask(COUNT[concurrency] * 4, concurrency));
      rounds.proven.push(await openTasks(key, COUNT[concurrency], concurrency));
      rounds.bearer.push(await openTasks(null, COUNT[concurrency], concurrency));
    }
    const bare = joined(rounds.floor);
    const of = `express, one ES256 c${concurrency}`;
    const row = (name: string, measured: readonly Measured[]): Row => {
      const ours = joined(measured);
      return { case: `${name} c${concurrency}`, unit: 'tasks/s', ...ours, ratio: ours.value / bare.value, of };
    };
    rows.push(row('open task', rounds.proven), row('open task, no key', rounds.bearer));
    rows.push({ case: of, unit: 'calls/s', ...bare });
  }
  floor.stop();
  report('verify', rows);

  /** @param by Null: of an issuer that names no keys. */
  async function openTasks(by: AgentKey | null, count: number, concurrency: number): Promise<Measured> {
    const url = `${house.url}/v1/tasks`;
    const calls = await Promise.all(
      Array.from({ length: count }, async () => ({
        request: await house.sign(by === null ? {} : { keyThumbprint: by.thumbprint }),
        headers: by === null ? {} : { dpop: await by.prove('POST', url, token) },
      })),
    );
    return await measure(count, concurrency, async (index) => {
      const { request, headers = {} } = calls[index] ?? {};
      const { status, body } = await call('POST', url, token, { request }, headers);
      if (status !== 201) throw new Error(`${status} ${JSON.stringify(body)}`);
    });
  }

  async function startFloor() {
    const { publicKey, privateKey } = await crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, [
      'sign',
      'verify',
    ]);
    const jwk = await crypto.subtle.exportKey('jwk', publicKey);
    const signed = await new SignJWT({ sub: 'agent-recon', aud: house.url })
      .setProtectedHeader({ alg: 'ES256' })
      .setExpirationTime('1h')
      .sign(privateKey);
    const tsx = pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href;
    const main = fileURLToPath(new URL('./lib/verify-floor.ts', import.meta.url));
    const child = spawn(process.execPath, ['--import', tsx, main], {
      env: { PATH: process.env['PATH'] ?? '', HOME: process.env['HOME'] ?? '/', NODE_ENV: 'production' },
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    child.stdin.write(`${JSON.stringify({ jwk, audience: house.url })}\n`);
    const [port] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
    const body = { request: await house.sign() };
    return {
      ask: async (count: number, concurrency: number) =>
        await measure(count, concurrency, async () => {
          const { status } = await call('POST', `http://127.0.0.1:${port}/`, signed, body);
          if (status !== 201) throw new Error(String(status));
        }),
      stop: () => void child.kill('SIGKILL'),
    };
  }
} finally {
  closeConnections();
  await house.stop();
}
