import { describe, expect, test } from 'vitest';
import { cedarWorks } from './cedar.ts';
import { blank, cedarLimits, lineOf, lineOfByte, splitPolicies } from './cedar-text.ts';
import { createPolicyEngine } from './engine.ts';
import { readPolicyFile } from './policy-file.ts';
import { policySet, sampleRequest } from './testing/sample.ts';
import { schemaFaults } from './validate.ts';

describe('splitting a file', () => {
  test('comments and semicolons in strings and comments do not end a policy', () => {
    const text = `// one; two
@id("a;") // three;
permit (principal, action, resource) when { "x;\\";//" == "y" };

// @id("ghost") permit (principal, action, resource);
forbid (principal, action, resource);
// the end`;
    expect(splitPolicies(text).map((piece) => [lineOf(text, piece.start), piece.text.split('\n')[0]])).toEqual([
      [2, '@id("a;") // three;'],
      [6, 'forbid (principal, action, resource);'],
    ]);
  });

  test('what lacks its semicolon is still a piece, for Cedar to refuse', () => {
    expect(splitPolicies('permit (a); permit (b)  \n').map(({ text }) => text)).toEqual(['permit (a);', 'permit (b)']);
    expect(splitPolicies('// nothing\n')).toEqual([]);
  });

  test('blanking keeps every line and every length', () => {
    for (const text of ['a "b\nc" d // e\nf', '"unterminated\n x', '"a\\"b" // "c', '"', '""', '// "\n"x"']) {
      const bare = blank(text);
      expect(bare).toHaveLength(text.length);
      expect(bare.split('\n').map((line) => line.length)).toEqual(text.split('\n').map((line) => line.length));
    }
    expect(blank('a "b;" // c')).toBe('a "  "     ');
  });

  test('Cedar counts bytes, we count characters', () => {
    const text = '// ééé\n// €\nx';
    expect(lineOfByte(text, Buffer.from(text).length)).toBe(3);
    expect(lineOfByte(text, 10)).toBe(2);
  });
});

/** Each of these overruns Cedar's stack when it is large enough, and would end every decision of the process. */
const shapes: Readonly<Record<string, (size: number) => string>> = {
  brackets: (n) => `${'('.repeat(n)}true${')'.repeat(n)}`,
  sets: (n) => `${'['.repeat(n)}1${']'.repeat(n)} == []`,
  records: (n) => `${'{a: '.repeat(n)}1${'}'.repeat(n)} == {}`,
  or: (n) => Array(n).fill('principal.purpose == "a"').join(' || '),
  and: (n) => Array(n).fill('principal.purpose == "a"').join(' && '),
  plus: (n) => `${Array(n).fill('context.tree.live_grants').join(' + ')} > 1`,
  if: (n) => `${'if principal.purpose == "a" then true else '.repeat(n)}false`,
  dots: (n) => `principal${'.a'.repeat(n)} == 1`,
  mixed: (n) => `${'(if (principal.purpose == "a" && '.repeat(n)}true${') then true else false)'.repeat(n)}`,
};
const policy = (clauses: string): string =>
  `@id("p")\npermit (principal is Mayfly::Task, action, resource) ${clauses};`;

describe('a policy that would break Cedar is kept away from it', () => {
  test.each(Object.keys(shapes))('%s', (shape) => {
    for (const size of [100, 1000, 20_000]) {
      const { policies, faults } = readPolicyFile('p.cedar', policy(`when { ${shapes[shape]?.(size)} }`));
      expect(policies).toEqual([]);
      expect(faults).toEqual([
        { file: 'p.cedar', line: 1, message: expect.stringMatching(/^this policy (nests|has|is)/) },
      ]);
    }
    expect(cedarWorks()).toBe(true);
  });

  test('many clauses', () => {
    const { faults } = readPolicyFile('p.cedar', policy('when { true } '.repeat(200)));
    expect(faults).toHaveLength(1);
  });

  test('a schema nested too deeply, or too large', () => {
    const deep = `type Deep = ${'{a: '.repeat(1500)}String${'}'.repeat(1500)};`;
    expect(schemaFaults(deep)[0]?.message).toBe('the schema nests brackets more than 30 deep');
    expect(schemaFaults(`type Deep = ${'Set<'.repeat(3000)}String${'>'.repeat(3000)};`)[0]?.message).toMatch(/nests/);
    expect(schemaFaults(`//${'x'.repeat(cedarLimits.schemaBytes)}`)[0]?.message).toMatch(/larger than/);
    expect(cedarWorks()).toBe(true);
  });
});

describe('what is just within the bounds', () => {
  const largest: readonly (readonly [string, number])[] = [
    ['brackets', 28],
    ['or', 50],
    ['and', 50],
    ['plus', 50],
    ['if', 50],
    ['mixed', 9],
  ];
  test.each(largest)('is decided without harm: %s', (shape, size) => {
    const engine = createPolicyEngine(policySet(policy(`when { ${shapes[shape]?.(size)} }`)), 'digest');
    expect(engine.decide(sampleRequest).errors).toEqual([]);
    engine.close();
    expect(cedarWorks()).toBe(true);
  });

  test('sets may be long: they are not deep', () => {
    const names = Array.from({ length: 2000 }, (_, n) => `"purpose-${n}"`).join(', ');
    const engine = createPolicyEngine(policySet(policy(`when { [${names}].contains(principal.purpose) }`)), 'digest');
    expect(engine.decide({ ...sampleRequest, task: { ...sampleRequest.task, purpose: 'purpose-7' } }).permitted).toBe(
      true,
    );
    engine.close();
  });
});
