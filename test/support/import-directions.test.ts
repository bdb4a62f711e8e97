import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { brokenRules, checkImports, readImports, refuseCycles, sameFloor, unseenImports } from './import-directions.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));

// The compiler runs in these, beside other suites: they may wait for a core.
const patience = 60_000;

describe('a copy of the house with something planted in it', { timeout: patience }, () => {
  let copy: string;
  beforeEach(() => {
    copy = mkdtempSync(join(tmpdir(), 'mayfly-imports-'));
    for (const name of ['src', 'providers', 'tsconfig.json', 'package.json']) {
      cpSync(join(root, name), join(copy, name), { recursive: true });
    }
    symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'));
  });
  afterEach(() => rmSync(copy, { recursive: true, force: true }));

  function plant(file: string, text: string): void {
    mkdirSync(dirname(join(copy, file)), { recursive: true });
    writeFileSync(join(copy, file), text);
  }

  test('breaks the rules in just the planted places, however the import is written', () => {
    plant('src/store/planted-a.ts', `import type { Planted } from '../http/planted.ts';\nexport type A = Planted;\n`);
    plant('src/domain/planted-b.ts', `export * from '../catalog/types.ts';\n`);
    plant('src/broker/planted-c.ts', `export const c = () =>\n  import(\n    '../http/planted.ts'\n  );\n`);
    plant('src/broker/planted-d.ts', `export type D = import('../http/planted.ts').Planted;\n`);
    plant('src/http/planted.ts', `// import './nothing.ts'\nexport interface Planted { readonly a: string }\n`);
    plant(
      'providers/postgres/planted-e.ts',
      `export * from '../../src/domain/task.ts';\nexport * from '../../src/provider.ts';\n`,
    );
    plant(
      'test/contract/provider/planted-g.ts',
      `export * from '../../../src/domain/task.ts';\nexport { z } from 'zod';\n`,
    );
    plant('src/broker/planted-f.ts', `export const f = (name: string) => import(name);\n`);
    const imports = readImports(copy);
    expect(imports).toContainEqual({ from: 'src/provider.ts', to: 'src/domain/secret.ts' });
    expect(imports).toContainEqual({ from: 'src/provider.ts', to: 'npm:zod' });
    const found = [...brokenRules(imports), ...unseenImports(copy)].filter((line) => line.includes('planted'));
    expect(found.map((line) => line.replace(/ .*/s, '')).toSorted()).toEqual([
      'providers/postgres/planted-e.ts',
      'src/broker/planted-c.ts',
      'src/broker/planted-d.ts',
      'src/broker/planted-f.ts:1:',
      'src/domain/planted-b.ts',
      'src/store/planted-a.ts',
      'test/contract/provider/planted-g.ts',
      'test/contract/provider/planted-g.ts',
    ]);
  });

  test('that has no imports to show fails, since a check that sees nothing must not pass', () => {
    rmSync(join(copy, 'src'), { recursive: true });
    plant('src/domain/alone.ts', 'export const alone = 1;\n');
    expect(() => checkImports(copy)).toThrow(/no import/);
  });
});

const allowed: readonly [string, string][] = [
  ['src/http/app.ts', 'src/broker/open-task.ts'],
  ['src/http/app.ts', 'src/domain/task.ts'],
  ['src/http/app.ts', 'src/http/tasks.ts'],
  ['src/http/app.ts', 'npm:express'],
  ['src/identity/verify.ts', 'src/catalog/types.ts'],
  ['src/catalog/load.ts', 'src/catalog/types.ts'],
  ['src/catalog/check.ts', 'src/policy/engine.ts'],
  ['src/catalog/provider-registry.ts', 'providers/postgres/index.ts'],
  ['src/store/pool.ts', 'src/config.ts'],
  ['src/config.ts', 'src/domain/secret.ts'],
  ['src/config.ts', 'npm:zod'],
  ['src/wiring.ts', 'providers/postgres/index.ts'],
  ['src/wiring.ts', 'src/http/app.ts'],
  ['src/cli/serve.ts', 'src/wiring.ts'],
  ['src/cli/run.ts', 'src/client/index.ts'],
  ['providers/postgres/index.ts', 'src/provider.ts'],
  ['providers/postgres/index.ts', 'providers/postgres/mint.ts'],
  ['providers/postgres/mint.test.ts', 'src/domain/task.ts'],
  ['test/integration/x.test.ts', 'src/store/pool.ts'],
];

test.each(allowed)('%s may import %s', (from, to) => {
  expect(brokenRules([{ from, to }])).toEqual([]);
});

const refused: readonly [string, string][] = [
  ['src/domain/task.ts', 'src/provider.ts'],
  ['src/domain/task.ts', 'src/config.ts'],
  ['src/store/pool.ts', 'src/broker/open-task.ts'],
  ['src/policy/engine.ts', 'src/catalog/load.ts'],
  ['src/catalog/types.ts', 'src/catalog/load.ts'],
  ['src/store/pool.ts', 'src/identity/testing/keys.ts'],
  ['src/audit/leaf.ts', 'src/store/pool.ts'],
  ['src/broker/open-task.ts', 'src/http/app.ts'],
  ['src/broker/open-task.ts', 'providers/postgres/index.ts'],
  ['src/http/app.ts', 'src/wiring.ts'],
  ['src/http/app.ts', 'src/client/index.ts'],
  ['src/client/index.ts', 'src/domain/ids.ts'],
  ['src/config.ts', 'src/catalog/types.ts'],
  ['src/provider.ts', 'npm:pg'],
  ['src/store/pool.ts', 'test/support/servers.ts'],
  ['src/store/pool.ts', 'src/store/pool.test.ts'],
  ['src/surprise/x.ts', 'src/domain/task.ts'],
  ['src/surprise.ts', 'src/domain/task.ts'],
  ['providers/postgres/index.ts', 'src/domain/task.ts'],
  ['providers/postgres/index.ts', 'providers/vault/index.ts'],
];

test.each(refused)('%s may not import %s', (from, to) => {
  expect(brokenRules([{ from, to }])).toHaveLength(1);
});

test('the list of imports on one floor has no cycle, and one with a cycle is refused', () => {
  expect(() => refuseCycles(sameFloor)).not.toThrow();
  const cycle: [string, string][] = [
    ['policy', 'catalog'],
    ['catalog', 'store'],
    ['store', 'policy'],
  ];
  expect(() => refuseCycles(cycle)).toThrow(/cycle/);
});
