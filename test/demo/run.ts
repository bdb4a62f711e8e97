import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/**
 * `npm run demo`: one agent's whole story, by the built command line, on the PostgreSQL that comes with it. `-- --systems all` plays it
 * with an AWS and an OpenBao beside, which are servers of the tests: a published package has neither.
 */
const args = process.argv.slice(2);
const at = args.findIndex((arg) => arg === '--systems' || arg.startsWith('--systems='));
const systems = at < 0 ? 'postgres' : (args[at]?.split('=')[1] ?? args[at + 1]);
const root = fileURLToPath(new URL('../..', import.meta.url));

if (systems === 'all') {
  process.env['AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED'] = 'true';
  const { playThreeSystems } = await import('./three-systems.ts');
  await playThreeSystems();
} else if (systems === 'postgres') {
  const rest = at < 0 ? args : args.toSpliced(at, args[at]?.includes('=') === true ? 1 : 2);
  const run = (command: string, of: readonly string[]) =>
    spawnSync(command, of, { cwd: root, stdio: 'inherit' }).status;
  process.exitCode =
    run('npm', ['run', '--silent', 'build']) || run(process.execPath, ['dist/src/cli/main.js', 'demo', ...rest]) || 0;
} else {
  console.error(`--systems is postgres or all, not ${JSON.stringify(systems)}`);
  process.exitCode = 2;
}
