import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { checkCatalog } from '../src/catalog/check.ts';
import { sampleFiles, sampleProviders, sampleWith } from '../src/catalog/testing/sample.ts';

const text = readFileSync(new URL('../docs/authzen.md', import.meta.url), 'utf8');
const blocks = [...text.matchAll(/```(yaml|cedar)\n([\s\S]*?)```/g)].map(([, , block = '']) => block);

test('the examples in docs/authzen.md hold together', () => {
  const [gateways = '', schema = '', entities = '', ...more] = blocks;
  expect(more).toEqual([]);
  expect([gateways, entities].map((block) => block.length > 100)).toEqual([true, true]);
  const files = sampleWith({
    'trust.yaml': `${sampleFiles['trust.yaml'] ?? ''}${gateways}`,
    'policies/schema.cedarschema': schema,
    'entities.yaml': entities,
  });
  expect(checkCatalog(files, { providers: sampleProviders, allowDev: false }).faults).toEqual([]);
});
