import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { faultLines, sampleWith } from '../src/catalog/testing/sample.ts';

/** What people copy must hold: each example goes through the check that their own catalog goes through. */
const read = (path: string): string => readFileSync(new URL(`../${path}`, import.meta.url), 'utf8');

const key = { kty: 'EC', crv: 'P-256', x: 'abc', y: 'def', kid: 'one' };
const keys = (path: string) => ({ [path]: JSON.stringify({ keys: [key] }) });

const blocks = read('docs/identity.md')
  .split('```yaml\n')
  .slice(1)
  .map((block) => block.slice(0, block.indexOf('```')));

describe('docs/identity.md', () => {
  const kindOf = (block: string): string => /kind: (\S+)/.exec(block)?.[1] ?? '';

  test('has an example of each kind of source, and of tokens that state tasks', () => {
    expect(blocks.map(kindOf)).toEqual(['oidc', 'spiffe-jwt', 'spiffe-x509', 'kubernetes', 'github-actions', 'token']);
  });

  test.each(blocks.map((block) => [kindOf(block), block]))('its example of %s holds', (_kind, block) => {
    expect(faultLines(sampleWith({ 'trust.yaml': block }))).toEqual([]);
  });
});

test('the examples in docs/operators.md hold', () => {
  const examples = [...read('docs/operators.md').matchAll(/```yaml\n([\s\S]*?)```/g)].map(
    ([, example = '']) => example,
  );
  expect(examples).toHaveLength(2);
  for (const example of examples) expect(faultLines(sampleWith({ 'trust.yaml': example }))).toEqual([]);
});

describe('catalog/trust.yaml', () => {
  const lists = new Map<string, string[]>();
  let list = '';
  for (const line of read('catalog/trust.yaml').split('\n')) {
    list = /^([a-z_]+):$/.exec(line)?.[1] ?? list;
    const [, item] = /^ {2}# ((?:- name: | {2}\S).*)$/.exec(line) ?? [];
    if (item !== undefined) lists.set(list, [...(lists.get(list) ?? []), `  ${item}`]);
  }

  test('what stands there in comments holds too', () => {
    const text = [...lists].flatMap(([name, lines]) => [`${name}:`, ...lines]).join('\n');
    expect([...text.matchAll(/^ {2}- name: (.*)$/gm)].map(([, name]) => name)).toEqual([
      ...['orchestrator', 'prod', 'cluster', 'idp', 'github', 'staff', 'watch'],
    ]);
    expect(faultLines(sampleWith({ 'trust.yaml': text, ...keys('keys/cluster.json') }))).toEqual([]);
  });
});
