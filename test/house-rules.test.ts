import { readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));

/** What silences a tool instead of answering it: comments that do, and casts. This file names them, and is not looked at. */
const silencing = /@ts-(ignore|nocheck|expect-error)|(oxlint|eslint)-disable|biome-ignore|v8 ignore/;
const casting = /\bas unknown as\b|\bas any\b|<any>/;
/** Prose may say "as any other". */
const prose = /^\s*(\/?\*|\/\/).*|\/\/ .*$|'[^']*'|"[^"]*"|`[^`]*`/g;

function sources(): string[] {
  return ['src', 'providers', 'test'].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && /\.(ts|mjs)$/.test(entry.name))
      .map((entry) => relative(root, join(entry.parentPath, entry.name)))
      .filter((file) => file !== join('test', 'house-rules.test.ts')),
  );
}

test('no source silences the compiler or the linter', () => {
  const files = sources();
  expect(files).toContain(join('src', 'provider.ts'));
  const found = files.flatMap((file) =>
    readFileSync(join(root, file), 'utf8')
      .split('\n')
      .flatMap((line, index) =>
        silencing.test(line) || casting.test(line.replaceAll(prose, ''))
          ? [`${file}:${index + 1}: ${line.trim()}`]
          : [],
      ),
  );
  expect(found).toEqual([]);
});

describe('package.json and its lock file', () => {
  const read = (name: string): Record<string, unknown> => JSON.parse(readFileSync(join(root, name), 'utf8'));
  const manifest = read('package.json');
  const lock = read('package-lock.json');

  test('carry no address of a registry, so that an install goes where its user points it', () => {
    expect(JSON.stringify(lock)).not.toContain('"resolved"');
    expect(JSON.stringify(lock)).not.toMatch(/https?:\/\/[^"]*\.tgz/);
    expect(Object.keys(record(lock['packages'])).length).toBeGreaterThan(100);
  });

  test('pin every package by a digest', () => {
    const without = Object.entries(record(lock['packages'])).filter(
      ([path, entry]) =>
        path !== '' && !String(record(entry)['integrity']).startsWith('sha512-') && record(entry)['link'] !== true,
    );
    expect(without.map(([path]) => path)).toEqual([]);
  });

  test('name packages whose scripts may run by name only: a version would never match such a lock file', () => {
    const names = Object.keys(record(manifest['allowScripts']));
    expect(names).not.toEqual([]);
    for (const name of names) expect(name).toMatch(/^(@[a-z0-9-]+\/)?[a-z0-9._-]+$/);
  });

  test('say what they say of each package that has install scripts', () => {
    const reviewed = Object.keys(record(manifest['allowScripts']));
    const withScripts = Object.entries(record(lock['packages']))
      .filter(([, entry]) => record(entry)['hasInstallScript'] === true)
      .map(([path]) => path.replace(/^.*node_modules\//, ''));
    expect(withScripts.filter((name) => !reviewed.includes(name))).toEqual([]);
  });

  test('agree on the dependencies', () => {
    const top = record(record(lock['packages'])['']);
    for (const kind of ['dependencies', 'devDependencies', 'optionalDependencies', 'engines']) {
      expect(top[kind]).toEqual(manifest[kind]);
    }
  });

  test('leave the version of the Helm chart to follow', () => {
    const chart = readFileSync(join(root, 'helm', 'mayfly', 'Chart.yaml'), 'utf8');
    expect(chart).toContain(`appVersion: "${String(manifest['version'])}"`);
  });
});

function record(value: unknown): Record<string, unknown> {
  expect(value).toBeTypeOf('object');
  return { ...Object(value) };
}
