import { describe, expect, test } from 'vitest';
import { ttlSeconds } from './annotations.ts';
import { readPolicyFile } from './policy-file.ts';

const scope = '(principal, action, resource);';
const faults = (text: string): readonly string[] =>
  readPolicyFile('policies/a.cedar', text).faults.map(({ line, message }) => `${line}: ${message}`);

test('a file gives its policies with place, text and annotations', () => {
  const text = `// Why.\n\n@id("a")\n@max_ttl("5m")\npermit ${scope}\n@id("b") @reason("Not now.") forbid ${scope}\n`;
  expect(readPolicyFile('policies/a.cedar', text)).toEqual({
    faults: [],
    policies: [
      {
        id: 'a',
        file: 'policies/a.cedar',
        line: 3,
        text: `@id("a")\n@max_ttl("5m")\npermit ${scope}`,
        annotations: { id: 'a', max_ttl: '5m' },
      },
      {
        id: 'b',
        file: 'policies/a.cedar',
        line: 6,
        text: `@id("b") @reason("Not now.") forbid ${scope}`,
        annotations: { id: 'b', reason: 'Not now.' },
      },
    ],
  });
});

test('all faults of a file are told, each at its line', () => {
  const text = `permit ${scope}
@id("Bad Name") permit ${scope}
@id("c")
@colour("red")
permit ${scope}
@id("d")
permit (principal, action, resorce);
`;
  expect(faults(text)).toEqual([
    '1: this policy has no @id',
    '2: @id must be lower-case letters and digits, joined by dashes or dots, at most 100 characters',
    '4: unknown annotation @colour: the broker knows @id, @max_ttl, @per_call, @require_approval, @require_dpop, @require_sealed_delivery, @single_use, @reason, @accepts, @enforce',
    expect.stringMatching(/^7: found an invalid variable in the policy scope: resorce/),
  ]);
});

describe('annotations', () => {
  test.each(['0s', '5', '5 m', 'm', '-5m', '5d', '1.5h', '25h', '86401s', '', '999999999h', 'PT5M', '05m'])(
    '@max_ttl(%j) is refused',
    (ttl) => {
      expect(faults(`@id("a")\n@max_ttl("${ttl}")\npermit ${scope}`)).toEqual([
        '2: @max_ttl must be like "300s", "5m" or "1h", at most a day',
      ]);
    },
  );

  test.each([
    ['300s', 300],
    ['5m', 300],
    ['1h', 3600],
    ['24h', 86_400],
    ['1s', 1],
  ])('@max_ttl(%j) is %d seconds', (ttl, seconds) => {
    expect(ttlSeconds(ttl)).toBe(seconds);
    expect(faults(`@id("a") @max_ttl("${ttl}") permit ${scope}`)).toEqual([]);
  });

  test('one that has no effect where it stands is refused', () => {
    expect(faults(`@id("a") @max_ttl("5m") forbid ${scope}`)).toEqual([
      '1: @max_ttl on a forbid has no effect: put it on the permit',
    ]);
    expect(faults(`@id("a") @reason("x") permit ${scope}`)).toEqual([
      '1: @reason on a permit is never told: put it on a forbid',
    ]);
  });

  test('@accepts names what can not be taken back, on a permit', () => {
    expect(faults(`@id("a") @accepts("irrevocable") permit ${scope}`)).toEqual([]);
    expect(faults(`@id("a") @accepts("irrevocable") forbid ${scope}`)).toEqual([
      '1: @accepts on a forbid has no effect: put it on the permit',
    ]);
    for (const value of ['', 'all', 'Irrevocable', 'expiry-only'])
      expect(faults(`@id("a") @accepts("${value}") permit ${scope}`)).toEqual([
        expect.stringMatching(/^1: @accepts must be "irrevocable"/),
      ]);
  });

  test('@require_approval names a group, on a permit', () => {
    expect(faults(`@id("a") @require_approval("finance-leads") permit ${scope}`)).toEqual([]);
    for (const value of ['', 'Finance', 'a b', 'a,b', '-a', 'x'.repeat(64)])
      expect(faults(`@id("a") @require_approval("${value}") permit ${scope}`)).toEqual([
        '1: @require_approval must name a group, as under `groups` in trust.yaml',
      ]);
    expect(faults(`@id("a") @require_approval("finance") forbid ${scope}`)).toEqual([
      '1: @require_approval on a forbid has no effect: put it on the permit',
    ]);
  });

  test.each(['per_call', 'require_dpop', 'require_sealed_delivery'])('@%s stands alone, on a permit', (name) => {
    expect(faults(`@id("a") @${name} permit ${scope}`)).toEqual([]);
    expect(faults(`@id("a") @${name}("yes") permit ${scope}`)).toEqual([`1: @${name} takes no value`]);
    expect(faults(`@id("a") @${name} forbid ${scope}`)).toEqual([
      `1: @${name} on a forbid has no effect: put it on the permit`,
    ]);
  });

  test.each(['', ' x', 'a\\nb', 'x\\u{202e}y'])('@reason(%j) is refused', (reason) => {
    expect(faults(`@id("a") @reason("${reason}") forbid ${scope}`)).toEqual([
      '1: @reason must be one line of text, at most 300 characters',
    ]);
  });

  test('one without a value is refused, as is one that stands twice', () => {
    expect(faults(`@id permit ${scope}`)).toEqual([expect.stringMatching(/^1: @id must be/)]);
    expect(faults(`@id("a") @max_ttl permit ${scope}`)).toEqual([expect.stringMatching(/^1: @max_ttl must be/)]);
    expect(faults(`@id("a")\n@id("b") permit ${scope}`)).toEqual([expect.stringMatching(/duplicate annotation: @id$/)]);
  });

  test('names that JavaScript knows are unknown like any other', () => {
    for (const name of ['__proto__', 'constructor', 'toString']) {
      expect(faults(`@id("a") @${name}("x") permit ${scope}`)).toEqual([
        `1: unknown annotation @${name}: the broker knows @id, @max_ttl, @per_call, @require_approval, @require_dpop, @require_sealed_delivery, @single_use, @reason, @accepts, @enforce`,
      ]);
    }
  });
});

test('templates are refused', () => {
  expect(faults('@id("a") permit (principal == ?principal, action, resource);')).toEqual([
    expect.stringMatching(/^1: expected a static policy, got a template/),
  ]);
});

test('a policy that is not finished is refused at its line, with letters beyond ASCII before it', () => {
  expect(faults(`// ééé€\n@id("a")\npermit ${scope}\n@id("b") // é\npermit (principal, action, resource)\n`)).toEqual([
    expect.stringMatching(/^5: unexpected end of input/),
  ]);
});
