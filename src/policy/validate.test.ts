import { describe, expect, test } from 'vitest';
import type { Vocabulary } from './names.ts';
import { designExample, policySet } from './testing/sample.ts';
import { policySetFaults, schemaFaults } from './validate.ts';

const lines = (faults: readonly { line: number; message: string }[]): readonly string[] =>
  faults.map(({ line, message }) => `${line}: ${message}`);

test('the design’s own example holds', () => {
  expect(policySetFaults(policySet(designExample))).toEqual([]);
});

describe('the catalog’s own schema', () => {
  test('may be absent, and may add types and actions for tools', () => {
    expect(schemaFaults('')).toEqual([]);
    const tools = `namespace Tools { entity Tool { sensitive: Bool }; action call appliesTo { principal: [Mayfly::Task], resource: [Tool] }; }
entity Document; action read appliesTo { principal: [Mayfly::Task, Mayfly::Workload], resource: [Document], context: { reason?: String } };`;
    expect(schemaFaults(tools)).toEqual([]);
    const policy =
      '@id("a") permit (principal, action == Tools::Action::"call", resource) when { !resource.sensitive };';
    expect(policySetFaults(policySet(policy, tools))).toEqual([]);
  });

  test.each(['namespace Mayfly { entity X; }', 'namespace  Mayfly::Sub{ entity X; }', 'namespace // x\n Mayfly\n{}'])(
    'may not define %j',
    (text) => {
      expect(lines(schemaFaults(`// namespace Mayfly {\n${text}`))).toEqual([
        expect.stringMatching(/^2: the namespace Mayfly(::Sub)? is the broker's own and can not be defined here$/),
      ]);
    },
  );

  test('may not give our words another meaning', () => {
    for (const text of ['entity String;', 'entity Task;', 'entity Entitlement;']) {
      expect(schemaFaults(`namespace A { entity B; }\n${text}`)).toHaveLength(1);
    }
  });

  test.each(['__entity', '__extn', '__expr'])(
    'may not call a member %s: as a value it would be read as another',
    (name) => {
      expect(lines(schemaFaults(`namespace A {\n  entity B { c: { "${name}"?: String } };\n}`))).toEqual([
        `2: nothing can be called ${name}: in values that is a word of Cedar's own`,
      ]);
    },
  );

  test('is refused at the line where it breaks', () => {
    expect(lines(schemaFaults('// é€\nnamespace A {\n  entity B { c: };\n}'))).toEqual([
      expect.stringMatching(/^3: .*unexpected token/),
    ]);
    expect(lines(schemaFaults('namespace A {\n'))).toEqual([expect.stringMatching(/^2: /)]);
    expect(schemaFaults('namespace A { entity B { c: Nowhere }; }')[0]?.message).toContain('Nowhere');
  });
});

test('one @id twice is refused, since Cedar would not say a word', () => {
  const text = '@id("a") permit (principal, action, resource);\n@id("a") forbid (principal, action, resource);';
  expect(lines(policySetFaults(policySet(text)))).toEqual(['2: @id("a") stands at policies/sample.cedar:1 already']);
});

test('types are checked at their line within the policy', () => {
  const text = '// é\n@id("a")\npermit (principal, action, resource)\nwhen {\n  principal.purpos == "x"\n};';
  expect(lines(policySetFaults(policySet(text)))).toEqual([expect.stringMatching(/^5: a: attribute `purpos`/)]);
});

describe('names that the catalog does not have', () => {
  const vocabulary: Vocabulary = {
    entitlements: new Set(['db/read']),
    targets: new Set(['db']),
    workloadSources: new Set(['dev']),
    purposes: new Set(['a.b']),
    phases: new Set(['', 'plan']),
    issuers: new Set(['ci']),
    sensitivities: new Set(['public', 'restricted']),
    dataClasses: new Set(['pii']),
    guarantees: new Set(['immediate']),
    signalSources: new Set(['risk-engine']),
  };
  const names = (scope: string, clause = 'true'): readonly string[] =>
    lines(policySetFaults(policySet(`@id("p")\nforbid (${scope})\nwhen {\n ${clause} };`), vocabulary));
  const all = 'principal is Mayfly::Task, action, resource';

  test.each([
    ['principal, action, resource == Mayfly::Entitlement::"db/raed"', '2: p: there is no entitlement db/raed'],
    ['principal, action, resource in Mayfly::Target::"dp"', '2: p: there is no target dp'],
    [
      'principal in Mayfly::Workload::"prod:x", action, resource',
      expect.stringMatching(/^2: p: there is no workload source for prod:x/),
    ],
    [
      'principal in Mayfly::Workload::"x", action, resource',
      expect.stringMatching(/^2: p: there is no workload source/),
    ],
  ])('are refused in the scope: %s', (scope, fault) => {
    expect(names(scope)).toEqual([fault]);
  });

  test.each([
    ['principal.purpose == "a.c"', 'no purpose is called "a.c"'],
    ['"a.c" == principal.purpose', 'no purpose is called "a.c"'],
    ['principal.purpose != "a.c"', 'no purpose is called "a.c"'],
    ['["a.b", "a.c"].contains(principal.purpose)', 'no purpose is called "a.c"'],
    ['!(principal has phase && (principal.phase == "execute"))', 'no phase is called "execute"'],
    ['principal.issuer == "cd"', 'no task issuer is called "cd"'],
    ['resource is Mayfly::Entitlement && resource.sensitivity == "secret"', 'no sensitivity is called "secret"'],
    ['resource is Mayfly::Entitlement && resource.target.sensitivity == "secret"', 'no sensitivity is called "secret"'],
    ['context.guarantee == "instant"', 'no guarantee is called "instant"'],
    ['resource in [Mayfly::Entitlement::"db/read", Mayfly::Entitlement::"db/raed"]', 'there is no entitlement db/raed'],
  ])('are refused in a condition: %s', (clause, message) => {
    expect(names(all, clause)).toEqual([`4: p: ${message}`]);
  });

  test.each([
    'principal.purpose == "a.b" && principal.phase == "" && principal.issuer == "ci"',
    'principal.subject == "anybody" && context.guarantee == "immediate"',
    'resource.target.environment == "elsewhere" && resource.sensitivity == "public"',
    'principal.purpose like "a.*"',
  ])('others are left alone: %s', (clause) => {
    expect(names(all, clause)).toEqual([]);
  });
});
