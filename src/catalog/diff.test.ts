import { expect, test } from 'vitest';
import { diffCatalogs, renderDiff } from './diff.ts';
import { load, sampleEdited, sampleFiles, sampleWith } from './testing/sample.ts';

const active = load(sampleFiles);

test('against nothing, everything is added', () => {
  const diff = diffCatalogs(null, active);
  expect(diff).toMatchObject({ from: null, to: active.digest });
  expect(renderDiff(diff)).toBe(
    [
      '+ task issuer orchestrator',
      '+ workload source cluster',
      '+ operators staff',
      '+ target ledger',
      '+ entitlement ledger/read',
      '+ purpose reconcile.invoices',
      '+ policy reads',
      '',
    ].join('\n'),
  );
});

test('a changed field is named as in the file, with both values', () => {
  const next = load(sampleEdited('entitlements/ledger.yaml', 'max_ttl_seconds: 900', 'max_ttl_seconds: 60'));
  const diff = diffCatalogs(active, next);
  expect(diff.changes).toEqual([
    {
      kind: 'entitlement',
      name: 'ledger/read',
      change: 'changed',
      fields: [{ path: 'max_ttl_seconds', before: 900, after: 60 }],
    },
  ]);
  expect(renderDiff(diff)).toBe('~ entitlement ledger/read\n    max_ttl_seconds: 900 → 60\n');
});

test('fields below a section are named by their path, and added or removed ones have one side', () => {
  const next = load(sampleEdited('targets/ledger.yaml', '  password: file:password', '  options: { costCenter: 3 }'));
  expect(renderDiff(diffCatalogs(active, next))).toBe(
    [
      '~ target ledger',
      '    connection.password: "file:password" → (none)',
      '    connection.options: (none) → {"costCenter":3}',
      '',
    ].join('\n'),
  );
});

test('a default that is written out is no change', () => {
  const next = load(sampleEdited('entitlements/ledger.yaml', '  actions: [read]', '  actions: [read]\n  sink: false'));
  expect(diffCatalogs(active, next).changes).toEqual([]);
});

test('what is dropped is told, and what is new', () => {
  const next = load(
    sampleWith({
      'policies/ledger.cedar': null,
      'entitlements/ledger.yaml': null,
      'policies/schema.cedarschema': 'namespace Tools { entity Tool; }\n',
      'entities.yaml': '- { type: "Tools::Tool", id: a }\n',
      'trust.yaml': `${sampleFiles['trust.yaml']}tool_gateways:
  - { name: tools, workloads: ["cluster:a"], proof_of_possession: none, scope: { subjects: [task], resources: ["Tools::Tool"] } }
`,
    }),
  );
  expect(renderDiff(diffCatalogs(active, next))).toBe(
    '+ tool gateway tools\n- entitlement ledger/read\n- policy reads\n+ policy schema schema\n+ entity Tools::Tool::a\n',
  );
});

test('a changed policy is shown before and after, line by line', () => {
  const next = load(sampleEdited('policies/ledger.cedar', '"5m"', '"1m"'));
  const rendered = renderDiff(diffCatalogs(active, next));
  expect(rendered).toMatch(/^~ policy reads\n {4}text:\n/);
  expect(rendered).toContain('    - @id("reads") @max_ttl("5m")\n');
  expect(rendered).toContain('    + @id("reads") @max_ttl("1m")\n');
});

test('a policy that moved to another file is no change, though the digest is another', () => {
  const next = load(
    sampleWith({
      'policies/ledger.cedar': null,
      'policies/moved.cedar': `// moved\n${sampleFiles['policies/ledger.cedar']}`,
    }),
  );
  const diff = diffCatalogs(active, next);
  expect(diff.changes).toEqual([]);
  expect(diff.to).not.toBe(diff.from);
  expect(renderDiff(diff)).toBe('Only comments, order or policy tests change.\n');
});

test('against itself nothing changes', () => {
  expect(renderDiff(diffCatalogs(active, load(sampleFiles)))).toBe('Nothing changes.\n');
});
