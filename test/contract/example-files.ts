import { readFileSync } from 'node:fs';

/** The files of the example in docs/writing-a-provider.md, each under its name: what a reader of that page would copy. */
export function exampleFiles(): ReadonlyMap<string, string> {
  const text = readFileSync(new URL('../../docs/writing-a-provider.md', import.meta.url), 'utf8');
  const blocks = text.matchAll(/^### `([\w.]+\.ts)`\n+```ts\n([\s\S]*?)^```$/gm);
  return new Map([...blocks].map(([, name = '', block = '']) => [name, block]));
}
