import { describe, expect, test } from 'vitest';
import { checkCatalog } from './check.ts';
import { faultLines, load, sampleProviders, sampleWith } from './testing/sample.ts';

const SCHEMA = 'policies/schema.cedarschema';
const schema = `entity group in [group];
entity user in [group] = { department: String, boss?: user, since?: datetime };
entity Colour enum ["red"];
action read appliesTo { principal: user, resource: group };
`;
const withEntities = (text: string, own = schema) => sampleWith({ [SCHEMA]: own, 'entities.yaml': text });

describe('stored entities', () => {
  test('come out as they are written', () => {
    const text =
      '- { type: user, id: ada, attrs: { department: Sales, since: "2024-01-01" }, parents: [{ type: group, id: staff }] }\n';
    expect(load(withEntities(text)).policySet.entities).toEqual([
      {
        ...{ type: 'user', id: 'ada', tags: {}, parents: [{ type: 'group', id: 'staff' }] },
        attrs: { department: 'Sales', since: '2024-01-01' },
      },
    ]);
  });

  test.each([
    ['- { type: ship, id: a }', '$[0].type: the schema has no type ship of the catalog’s own'],
    ['- { type: Mayfly::Task, id: a }', '$[0].type: the schema has no type Mayfly::Task of the catalog’s own'],
    ['- { type: Colour, id: red }', '$[0].type: an enumerated type has no entities but those that it names'],
    ['- { type: user, id: a }', '$[0].attrs.department: is required'],
    ['- { type: user, id: a, attrs: { department: 3 } }', '$[0].attrs.department: must be text'],
    ['- { type: group, id: a, attrs: { size: 3 } }', '$[0].attrs.size: group has no such attribute'],
    ['- { type: group, id: a, tags: { size: "3" } }', '$[0].tags: group has no tags'],
    ['- { type: group, id: a, parents: [{ type: user, id: b }] }', '$[0].parents[0]: group is in no user'],
    [
      '- { type: user, id: a, attrs: { department: x, boss: { type: user, id: b } } }',
      '$[0].attrs: there is no user b',
    ],
    [
      '- { type: user, id: a, attrs: { department: x, since: soon } }',
      '$[0].attrs.since: must be text as Cedar’s datetime reads it',
    ],
    ['- { type: group, id: a, parents: [{ type: group, id: a }] }', '$[0].parents: it is within itself'],
    ['- { type: group, id: a, more: 1 }', '$[0].more: unknown field'],
    ['type: group', '$: must be a list'],
  ])('%s is refused', (text, fault) => {
    expect(faultLines(withEntities(`${text}\n`))).toEqual([`entities.yaml:1 ${fault}`]);
  });

  test('stand here once, and not in a circle, each told at its line', () => {
    const text = `- { type: group, id: a, parents: [{ type: group, id: b }] }
- { type: group, id: b, parents: [{ type: group, id: a }] }
- { type: group, id: b }
`;
    expect(faultLines(withEntities(text))).toEqual([
      'entities.yaml:1 $[0].parents: it is within itself',
      'entities.yaml:2 $[1].parents: it is within itself',
      'entities.yaml:3 $[2].id: group b stands here twice',
    ]);
  });

  test('are not held against a schema that is itself at fault', () => {
    const deep = `entity user = ${'{ a: '.repeat(60)}Long${' }'.repeat(60)};`;
    expect(faultLines(withEntities('- { type: user, id: a }\n', deep))).toEqual([]);
    const options = { providers: sampleProviders, allowDev: false };
    const { faults } = checkCatalog(withEntities('- { type: user, id: a }\n', deep), options);
    expect(faults.map(({ path }) => path)).toEqual([`${SCHEMA}:1`]);
  });
});

test.each([
  ['context: { caller: String }', 'caller'],
  ['context: { now: String }', 'now'],
  ['context: { tree: Mayfly::Own }', 'tree'],
  ['context: { purpose?: String }', 'purpose'],
])('an action whose context nobody would fill is refused by line: %s', (context, member) => {
  const own = `entity group;\naction read appliesTo { principal: group, resource: group,\n${context} };\n`;
  const { faults } = checkCatalog(sampleWith({ [SCHEMA]: own }), { providers: sampleProviders, allowDev: false });
  expect(faults).toEqual([
    {
      path: `${SCHEMA}:3`,
      message: `Action::"read": context.${member} is filled by nobody, or not with that type`,
    },
  ]);
});

describe('tool gateways', () => {
  const trust = sampleWith({})['trust.yaml'] ?? '';
  const KEY = 'A'.repeat(43);
  const gateway = (text: string) =>
    faultLines(sampleWith({ [SCHEMA]: schema, 'trust.yaml': `${trust}tool_gateways:\n  - ${text}\n` }));

  test('come out with their keys and their scope', () => {
    const text = `tool_gateways:
  - { name: tools, workloads: ["cluster:gateway"], keys: [${KEY}], scope: { subjects: [task, user], resources: [group] } }
  - { name: more, workloads: ["cluster:other"], proof_of_possession: none, scope: { subjects: [user], resources: [group], agents: ["cluster:a"] } }
`;
    const catalog = load(sampleWith({ [SCHEMA]: schema, 'trust.yaml': trust + text }));
    expect(catalog.toolGateways).toEqual([
      {
        ...{ name: 'tools', workloads: ['cluster:gateway'], keys: [KEY], agents: null },
        ...{ subjects: ['task', 'user'], resources: ['group'] },
      },
      {
        ...{ name: 'more', workloads: ['cluster:other'], keys: null, agents: ['cluster:a'] },
        ...{ subjects: ['user'], resources: ['group'] },
      },
    ]);
  });

  const scope = 'scope: { subjects: [task], resources: [group] }';
  test.each([
    [`{ name: a, workloads: ["cluster:a"], ${scope} }`, 'keys', 'must name the keys that it proves'],
    [
      `{ name: a, workloads: ["cluster:a"], keys: [${KEY}], proof_of_possession: none, ${scope} }`,
      'keys',
      'are not asked for',
    ],
    [`{ name: a, workloads: ["cluster:a"], keys: [x], ${scope} }`, 'keys[0]', 'must be a SHA-256 thumbprint'],
    [
      `{ name: a, workloads: ["else:a"], keys: [${KEY}], ${scope} }`,
      'workloads[0]',
      'there is no workload source else',
    ],
    [`{ name: a, workloads: ["cluster:*"], keys: [${KEY}], ${scope} }`, 'workloads[0]', 'wildcards are not accepted'],
    [
      `{ name: a, workloads: ["cluster:a"], keys: [${KEY}], scope: { subjects: [ship], resources: [group] } }`,
      'scope.subjects[0]',
      'the schema has no type ship',
    ],
    [
      `{ name: a, workloads: ["cluster:a"], keys: [${KEY}], scope: { subjects: [task], resources: [task] } }`,
      'scope.resources[0]',
      'the schema has no type task',
    ],
    [
      `{ name: a, workloads: ["cluster:a"], keys: [${KEY}], scope: { subjects: [task] } }`,
      'scope.resources',
      'is required',
    ],
  ])('%s is refused by line', (text, place, says) => {
    const line = trust.split('\n').length + 1;
    const [fault, ...more] = gateway(text);
    expect(more).toEqual([]);
    expect(fault).toMatch(`trust.yaml:${line} $.tool_gateways[0].${place}: `);
    expect(fault).toContain(says);
  });
});
