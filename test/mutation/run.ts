import { spawn } from 'node:child_process';
import { shareStore } from '../support/shared-store.ts';

/**
 * `npm run test:mutation [-- domain|revocation ARGUMENTS]`: changes src/domain and src/revocation in thousands of small ways, one
 * at a time, and says which of them no test notices (docs/mutation.md). Further arguments go to Stryker.
 */
const folders = ['domain', 'revocation'];
const given = process.argv.slice(2);
const named = folders.filter((folder) => folder === given[0]);
const { server, env } = await shareStore();
try {
  for (const folder of named.length > 0 ? named : folders) {
    const code = await mutate(folder, given.slice(named.length));
    if (code !== 0) process.exitCode = code;
  }
} finally {
  await server.stop();
}

async function mutate(folder: string, args: readonly string[]): Promise<number> {
  const stryker = spawn('stryker', ['run', ...args], {
    stdio: 'inherit',
    env: { ...process.env, ...env, MAYFLY_MUTATED: folder },
  });
  const end = () => stryker.kill();
  process.once('SIGINT', end).once('SIGTERM', end);
  try {
    return await new Promise<number>((resolve, reject) => {
      stryker.on('error', reject);
      stryker.on('close', (code) => resolve(code ?? 1));
    });
  } finally {
    process.off('SIGINT', end).off('SIGTERM', end);
  }
}
