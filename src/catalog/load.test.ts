import { describe, expect, test } from 'vitest';
import { MayflyError } from '../domain/errors.ts';
import { catalogLimits } from './layout.ts';
import { faultLines, load, sampleEdited, sampleFiles, sampleWith } from './testing/sample.ts';

describe('a catalog that holds', () => {
  test('comes out with its parts by name, camelCase, defaults filled in', () => {
    const catalog = load(sampleFiles);
    expect(catalog.files).toEqual(sampleFiles);
    expect(catalog.targets.get('ledger')).toEqual({
      name: 'ledger',
      provider: 'sample',
      connection: { host: 'db.example', port: 1234, password: 'file:password' },
      environment: 'production',
      owner: 'team-finance',
      sensitivity: 'confidential',
      labels: { team: 'finance' },
    });
    expect(catalog.entitlements.get('ledger/read')).toEqual({
      name: 'ledger/read',
      target: 'ledger',
      sensitivity: 'confidential',
      actions: ['read'],
      dataClasses: [],
      sink: false,
      maxTtlSeconds: 900,
      params: { tenant: { type: 'string', pattern: '[a-z]{1,40}' } },
      provider: { template: 'reader' },
      onOwnedObjects: 'drop',
      sealedDelivery: 'optional',
    });
    expect(catalog.purposes.get('reconcile.invoices')).toEqual({
      name: 'reconcile.invoices',
      description: 'Match payments with invoices.',
      phases: ['plan', 'execute'],
      maxLifeSeconds: 3600,
    });
    expect(catalog.policySet.policies).toEqual([
      expect.objectContaining({
        id: 'reads',
        file: 'policies/ledger.cedar',
        line: 1,
        annotations: { id: 'reads', max_ttl: '5m' },
      }),
    ]);
  });

  test('may have no policies at all: then nothing is permitted', () => {
    const catalog = load(sampleWith({ 'policies/ledger.cedar': null }));
    expect(catalog.policySet.policies).toEqual([]);
  });

  test('may hold no entities', () => {
    expect(faultLines(sampleWith({ 'entities.yaml': '' }))).toEqual([]);
  });
});

test('every fault of every file is told at once, in file order, with line and path', () => {
  const files = sampleWith({
    'entitlements/ledger.yaml': `- name: ledger/read
  target: ledger
  sensitivity: secret
  actions: []
  max_ttl_seconds: 0
  provider: { template: reader }
- name: other/read
  target: other
  sensitivity: public
  actions: [read]
  max_ttl_seconds: 10
  provider: {}
`,
    'policies/ledger.cedar': 'permit (principal, action, resource);\n',
    'purposes.yaml': '- name: Reconcile\n  description: x\n  max_life_seconds: 1\n  colour: red\n',
  });
  expect(faultLines(files)).toEqual([
    'entitlements/ledger.yaml:3 $[0].sensitivity: must be one of public, internal, confidential, restricted',
    'entitlements/ledger.yaml:4 $[0].actions: must name at least one action',
    'entitlements/ledger.yaml:5 $[0].max_ttl_seconds: must be whole seconds from 1 to 86400',
    'entitlements/ledger.yaml:8 $[1].target: there is no target other (targets/other.yaml)',
    'policies/ledger.cedar:1: this policy has no @id',
    'purposes.yaml:1 $[0].name: must be names joined by dots: `reconcile.invoices`',
    'purposes.yaml:4 $[0].colour: unknown field',
    'trust.yaml:6 $.task_issuers[0].purposes[0]: purposes.yaml has no purpose reconcile.invoices',
  ]);
});

test('the error says how many faults there are', () => {
  const thrown = ((): unknown => {
    try {
      return load({});
    } catch (error) {
      return error;
    }
  })();
  expect(thrown).toBeInstanceOf(MayflyError);
  expect(thrown).toMatchObject({ code: 'catalog_invalid', detail: 'The catalog has 2 faults.' });
});

test('what a broken file would have declared is not called missing', () => {
  const lines = faultLines(
    sampleWith({ 'purposes.yaml': '- name: [', 'targets/ledger.yaml': 'name: ledger\nname: ledger\n' }),
  );
  expect(lines.filter((line) => line.startsWith('trust.yaml') || line.startsWith('entitlements'))).toEqual([]);
  expect(lines).toContain('targets/ledger.yaml:2: this key stands here twice');
});

describe('YAML that could be read in two ways is refused', () => {
  const purpose = 'description: x\n  max_life_seconds: 1\n';
  test.each([
    ['a duplicate key', `- name: a\n  ${purpose}  name: b\n`, 'purposes.yaml:4: this key stands here twice'],
    [
      'an alias',
      `- &a\n  name: a\n  ${purpose}- *a\n`,
      'purposes.yaml:5: aliases are not accepted: write the value where it counts',
    ],
    [
      'a merge key',
      `- &a\n  name: a\n  ${purpose}- <<: *a\n`,
      'purposes.yaml:5: aliases are not accepted: write the value where it counts',
    ],
    ['a tag', `- name: !!binary YQ==\n  ${purpose}`, 'purposes.yaml:1: Unresolved tag'],
    [
      'several documents',
      `- name: a\n  ${purpose}---\n- name: b\n`,
      'purposes.yaml:4: Source contains multiple documents',
    ],
    ['another version', `%YAML 1.1\n---\n- name: a\n  ${purpose}`, 'purposes.yaml:1: directives are not accepted'],
    [
      'a key that is not text',
      `- [name]: a\n  ${purpose}`,
      'purposes.yaml:1: With stringKeys, all keys must be strings',
    ],
    [
      'a name that JavaScript knows',
      `- __proto__: { name: a }\n  ${purpose}`,
      'purposes.yaml:1: is not a name that the catalog accepts',
    ],
  ])('%s', (_what, text, fault) => {
    expect(faultLines(sampleWith({ 'purposes.yaml': text }))).toContain(fault);
  });

  test('absurd nesting', () => {
    const deep = `- name: ${'['.repeat(200)}${']'.repeat(200)}\n`;
    expect(faultLines(sampleWith({ 'purposes.yaml': deep }))).toEqual([
      expect.stringMatching(/^purposes\.yaml:1: is nested too deeply/),
    ]);
    const abyss = `- name: ${'['.repeat(100_000)}\n`;
    expect(faultLines(sampleWith({ 'purposes.yaml': abyss }))).toEqual([expect.stringMatching(/^purposes\.yaml:1: /)]);
  });

  test.each([
    '*hunter2',
    '!hunter2',
    '"\\hunter2"',
    '{ hunter2',
    '|hunter2',
    'a: hunter2',
    '"a" hunter2',
    '@hunter2',
    "'a'b: hunter2",
  ])('a secret that breaks the syntax is not repeated: %s', (secret) => {
    const lines = faultLines(sampleEdited('targets/ledger.yaml', 'file:password', secret));
    expect(lines).not.toEqual([]);
    expect(lines.join()).not.toContain('unter2');
  });

  test('a mapping where a list belongs', () => {
    expect(faultLines(sampleWith({ 'purposes.yaml': 'name: a\n' }))).toContain('purposes.yaml:1 $: must be a list');
  });
});

describe('files', () => {
  test('that the catalog does not know are refused by name', () => {
    for (const path of [
      'targets/ledger.yml',
      'policies/tests/x.cedar',
      'README.md',
      '../trust.yaml',
      'targets/a/b.yaml',
    ]) {
      expect(faultLines(sampleWith({ [path]: '' }))).toEqual([
        `${path}:1: is not a file of the catalog: see the list of files in its documentation`,
      ]);
    }
  });

  test('that do not fit their schema are refused by line', () => {
    expect(faultLines(sampleWith({ 'entities.yaml': '\n- type: Tool\n' }))).toEqual([
      'entities.yaml:2 $[0].id: is required',
    ]);
  });

  test('trust and purposes must be there', () => {
    expect(faultLines(sampleWith({ 'trust.yaml': null, 'purposes.yaml': null }))).toEqual([
      'purposes.yaml:1: is missing',
      'trust.yaml:1: is missing',
    ]);
  });

  test('that are too large, or too many, are refused', () => {
    const large = `#${'x'.repeat(catalogLimits.fileBytes)}\n`;
    expect(faultLines(sampleWith({ 'limits.yaml': large }))).toEqual([
      `limits.yaml:1: is larger than ${catalogLimits.fileBytes} bytes`,
    ]);
    const many = Object.fromEntries(Array.from({ length: 2001 }, (_, n) => [`entitlements/e${n}.yaml`, '[]']));
    expect(faultLines(many)).toContain('.:1: a catalog holds at most 2000 files and 8388608 bytes');
  });

  test('with NUL or half a character are refused: no store could hold them', () => {
    expect(faultLines(sampleWith({ 'limits.yaml': '#\u0000' }))).toEqual(['limits.yaml:1: is not plain UTF-8 text']);
    expect(faultLines(sampleWith({ 'limits.yaml': '#\ud800' }))).toEqual(['limits.yaml:1: is not plain UTF-8 text']);
  });
});

describe('entitlements', () => {
  const path = 'entitlements/ledger.yaml';
  test('stand below their target’s name', () => {
    expect(faultLines(sampleEdited(path, 'name: ledger/read', 'name: ledgers/read'))).toEqual([
      `${path}:1 $[0].name: must begin with its target: ledger/`,
    ]);
  });

  test('are named once in the whole catalog', () => {
    expect(faultLines(sampleWith({ 'entitlements/more.yaml': sampleFiles[path] ?? '' }))).toEqual([
      `entitlements/more.yaml:1 $[0].name: ledger/read stands in ${path} already`,
    ]);
  });

  test('have their provider section checked by their target’s provider, at its line', () => {
    expect(faultLines(sampleEdited(path, '{ template: reader }', '\n    template: 3\n    colour: red'))).toEqual([
      `${path}:8 $[0].provider.template: Invalid input: expected string, received number`,
      `${path}:9 $[0].provider.colour: unknown field`,
    ]);
  });

  test.each([
    ['{ type: string }', 'type: text needs a `pattern` or an `enum`: it ends up in the target'],
    ['{ type: string, pattern: "(" }', 'pattern: is not a regular expression'],
    ['{ type: integer, pattern: x }', 'pattern: only text can have a pattern'],
    ['{ type: integer, min: 3, max: 2 }', 'min: is above `max`'],
    ['{ type: string, enum: [a, 3] }', 'enum: must hold only values of type string'],
    ['{ type: boolean, min: 1 }', 'min: only integers have a least value'],
    ['{ type: date }', 'type: must be string, integer or boolean'],
  ])('refuse a param that could hold nothing or anything: %s', (param, message) => {
    const files = sampleEdited(path, '{ type: string, pattern: "[a-z]{1,40}" }', param);
    expect(faultLines(files)).toEqual([`${path}:6 $[0].params.tenant.${message}`]);
  });
});

describe('targets', () => {
  const path = 'targets/ledger.yaml';
  test('are called as their file is', () => {
    expect(faultLines(sampleEdited(path, 'name: ledger', 'name: ledgers'))).toEqual([
      `${path}:1 $.name: must be ledger, as the file is called`,
    ]);
  });

  test('need a provider that is loaded', () => {
    expect(faultLines(sampleEdited(path, 'provider: sample', 'provider: vault'))).toEqual([
      `${path}:2 $.provider: no provider vault is loaded: name it in MAYFLY_PROVIDERS`,
    ]);
  });

  test('have their connection checked by the provider, at its line', () => {
    expect(faultLines(sampleEdited(path, 'host: db.example', 'port: x'))).toEqual([
      `${path}:3 $.connection.host: is required`,
      `${path}:4 $.connection.port: Invalid input: expected number, received string`,
    ]);
  });

  test('are refused whole with all their faults', () => {
    expect(faultLines(sampleEdited(path, 'owner: team-finance\nsensitivity: confidential', 'sensitivity: 3'))).toEqual([
      `${path}:1 $.owner: is required`,
      `${path}:7 $.sensitivity: must be one of public, internal, confidential, restricted`,
    ]);
  });
});
