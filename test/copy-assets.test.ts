import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));
const copy = (out: string): Buffer => execFileSync(process.execPath, [join(root, 'scripts', 'copy-assets.mjs'), out]);

describe('the part of the build that is not TypeScript', () => {
  let out: string;
  beforeEach(() => {
    out = mkdtempSync(join(tmpdir(), 'mayfly-build-'));
  });
  afterEach(() => rmSync(out, { recursive: true, force: true }));

  test('brings every SQL file to where the compiled code looks for it', () => {
    copy(out);
    const sql = (base: string): string[] =>
      ['src', 'providers']
        .flatMap((folder) =>
          readdirSync(join(base, folder), { recursive: true }).map((name) => join(folder, String(name))),
        )
        .filter((name) => name.endsWith('.sql'));
    expect(sql(root).length).toBeGreaterThan(0);
    expect(sql(out).toSorted()).toEqual(sql(root).toSorted());
    for (const name of sql(root)) expect(readFileSync(join(out, name))).toEqual(readFileSync(join(root, name)));
    const names = readdirSync(out, { recursive: true }).map(String);
    expect(names.filter((name) => /\.(ts|js|map|md)$/.test(name))).toEqual([]);
  });

  test('leaves alone what is the same, which a running broker may be reading', () => {
    copy(out);
    const [name = ''] = readdirSync(out, { recursive: true })
      .map(String)
      .filter((path) => path.endsWith('.sql'));
    const file = join(out, name);
    utimesSync(file, 1, 1);
    copy(out);
    expect(statSync(file).mtimeMs).toBe(1000);
    writeFileSync(file, '-- changed');
    copy(out);
    expect(readFileSync(file)).toEqual(readFileSync(join(root, name)));
  });

  test('takes away what is no longer there, and nothing that the compiler wrote', () => {
    mkdirSync(join(out, 'src'));
    writeFileSync(join(out, 'src', 'gone.sql'), '');
    writeFileSync(join(out, 'src', 'kept.js'), '');
    copy(out);
    expect(existsSync(join(out, 'src', 'gone.sql'))).toBe(false);
    expect(existsSync(join(out, 'src', 'kept.js'))).toBe(true);
  });
});
