// The part of `npm run build` that is not TypeScript: copies what the code reads beside itself (SQL and the like) to where
// the compiled code looks for it, `new URL('./x.sql', import.meta.url)`.
// What is the same already is left alone, since a broker may be running from there; what is gone here goes there too.
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const out = process.argv[2];
if (out === undefined) throw new Error('usage: copy-assets.mjs <folder of the build>');

/** What the compiler writes, or has no use at run time. */
const notAssets = /\.(ts|js|map|md)$|\/testing\//;

function assets(base) {
  return ['src', 'providers'].flatMap((folder) => {
    if (!existsSync(join(base, folder))) return [];
    return readdirSync(join(base, folder), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => relative(base, join(entry.parentPath, entry.name)))
      .filter((file) => !notAssets.test(file));
  });
}

const wanted = assets(root);
for (const file of wanted) {
  const bytes = readFileSync(join(root, file));
  const copy = join(out, file);
  if (existsSync(copy) && readFileSync(copy).equals(bytes)) continue;
  mkdirSync(dirname(copy), { recursive: true });
  writeFileSync(copy, bytes);
}
for (const file of assets(out)) {
  if (!wanted.includes(file)) rmSync(join(out, file));
}
