import { spawn } from 'node:child_process';
import { shareStore } from '../support/shared-store.ts';

/**
 * `npm run test:mutation`: changes src/domain and src/revocation in thousands of small ways, one at a time, and says which of
 * them no test notices (docs/mutation.md). Arguments go to Stryker: `-- --mutate src/revocation/breaker.ts`.
 */
const { server, env } = await shareStore();
try {
  const stryker = spawn('stryker', ['run', ...process.argv.slice(2)], {
    stdio: 'inherit',
    env: { ...process.env, ...env },
  });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => stryker.kill(signal));
  process.exitCode = await new Promise<number>((resolve, reject) => {
    stryker.on('error', reject);
    stryker.on('close', (code) => resolve(code ?? 1));
  });
} finally {
  await server.stop();
}
