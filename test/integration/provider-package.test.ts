import { execFile } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { exampleFiles } from '../contract/example-files.ts';
import { redisAvailable } from '../support/redis-server.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const bin = (name: string): string => join(root, 'node_modules', '.bin', name);
const run = promisify(execFile);

/** What somebody else's repository has installed beside `mayfly`. */
const installed = ['zod', 'ioredis', '@types/node', 'undici-types', '@ioredis/commands', 'standard-as-callback'];

/** As a third party has it: our package from a tarball, and the files of the documentation, word for word. */
describe.runIf(redisAvailable())('a provider in a repository of its own', () => {
  let folder: string;
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'mayfly-third-party-'));
    const source = join(folder, 'source');
    mkdirSync(source);
    cpSync(join(root, 'package.json'), join(source, 'package.json'));
    // Whether its types hold is another check's; the reader's own are checked below.
    const built = ['-p', join(root, 'tsconfig.build.json'), '--noCheck', '--outDir', join(source, 'dist')];
    await run(bin('tsc'), built, { cwd: root });
    await run('npm', ['pack', '--ignore-scripts', '--offline', '--pack-destination', folder], { cwd: source });
    const modules = join(folder, 'own', 'node_modules');
    mkdirSync(join(modules, '@types'), { recursive: true });
    mkdirSync(join(modules, '@ioredis'));
    await run('tar', ['-xzf', 'mayfly-0.1.0.tgz'], { cwd: folder });
    cpSync(join(folder, 'package'), join(modules, 'mayfly'), { recursive: true });
    for (const name of installed) symlinkSync(join(root, 'node_modules', name), join(modules, name));
    for (const [name, text] of exampleFiles()) writeFileSync(join(folder, 'own', name), text);
    writeFileSync(join(folder, 'own', 'package.json'), '{ "name": "mayfly-provider-redis-acl", "type": "module" }');
    const options = { module: 'nodenext', target: 'es2023', strict: true, types: ['node'], outDir: 'dist' };
    const compilerOptions = { ...options, rewriteRelativeImportExtensions: true };
    writeFileSync(join(folder, 'own', 'tsconfig.json'), JSON.stringify({ compilerOptions }));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test('compiles against the published types, and runs the suite with node --test', async () => {
    const own = join(folder, 'own');
    await run(bin('tsc'), ['-p', '.'], { cwd: own });
    // The whole suite runs on the same text beside our own; here it must be seen to run.
    const only = ['--test-name-pattern', '^(mint|race|schema):', '--test-reporter', 'tap'];
    const { NODE_OPTIONS: _options, NODE_TEST_CONTEXT: _context, ...env } = process.env;
    const { stdout } = await run(process.execPath, ['--test', ...only, 'dist/contract.test.js'], { cwd: own, env });
    expect(stdout).toContain('ok 1 - schema: unknown keys');
    expect(stdout).toMatch(/# SKIP not applicable: the guarantee does not say `one_connection`/);
    expect(stdout).toMatch(/^# fail 0$/m);
    expect(Number(/^# pass (\d+)$/m.exec(stdout)?.[1])).toBeGreaterThan(9);
  });
});
