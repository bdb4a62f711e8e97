import { describe, expect, test } from 'vitest';
import { faultLines, load, sampleEdited, sampleFiles, sampleWith } from './testing/sample.ts';

const edited = (from: string, to: string): readonly string[] => faultLines(sampleEdited('trust.yaml', from, to));
const publicKey = { kty: 'EC', crv: 'P-256', x: 'abc', y: 'def', kid: 'one' };
const withKeys = (path: string, content: string): Record<string, string> => ({
  ...sampleEdited('trust.yaml', '{ url: https://cluster.example/jwks.json }', `{ file: ${path} }`),
  [path]: content,
});

test('trust comes out by kind, in camelCase', () => {
  const { trust } = load(sampleFiles);
  expect(trust.taskIssuers).toEqual([
    {
      name: 'orchestrator',
      dev: false,
      issuer: 'https://orchestrator.example',
      jwks: { url: 'https://orchestrator.example/jwks.json' },
      algorithms: ['ES256'],
      purposes: ['reconcile.invoices'],
      workloads: ['cluster:system:serviceaccount:finance:recon'],
      maxTaskSeconds: 3600,
      autonomous: false,
      proofOfPossession: 'required',
    },
  ]);
  expect(trust.workloadSources).toEqual([expect.objectContaining({ name: 'cluster', kind: 'oidc' })]);
  expect(trust.operators).toEqual([
    expect.objectContaining({ claim: 'groups', roles: { 'Platform Team': ['viewer', 'admin'] } }),
  ]);
});

test('an empty trust file trusts nobody', () => {
  expect(load(sampleWith({ 'trust.yaml': '{}' })).trust).toEqual({
    taskIssuers: [],
    tokenIssuers: [],
    workloadSources: [],
    operators: [],
  });
});

describe('roles of operators', () => {
  const roles = (text: string) => sampleEdited('trust.yaml', '[viewer, admin]', text);

  test('hold everywhere, or in a scope', () => {
    const { trust } = load(
      roles('[viewer, { roles: [operator], scope: { owner: team-finance, labels: { tier: gold } } }]'),
    );
    expect(trust.operators[0]?.roles['Platform Team']).toEqual([
      'viewer',
      { roles: ['operator'], scope: { owner: 'team-finance', labels: { tier: 'gold' } } },
    ]);
  });

  test.each([
    ['[root]', '[0]', 'must be one of viewer, operator, approver, auditor, admin'],
    ['[viewer, viewer]', '[1]', 'stands here twice'],
    ['[null]', '[0]', 'must be one of viewer, operator, approver, auditor, admin'],
    [
      '[{ roles: [root], scope: { owner: a } }]',
      '[0].roles[0]',
      'must be one of viewer, operator, approver, auditor, admin',
    ],
    ['[{ roles: [], scope: { owner: a } }]', '[0].roles', 'must name at least one role'],
    ['[{ roles: [viewer] }]', '[0].scope', 'expected object'],
    [
      '[{ roles: [viewer], scope: {} }]',
      '[0].scope',
      'must name an owner, an environment or labels; roles that hold everywhere stand in the list as they are',
    ],
    [
      '[{ roles: [viewer], scope: { labels: {} } }]',
      '[0].scope',
      'must name an owner, an environment or labels; roles that hold everywhere stand in the list as they are',
    ],
    ['[{ roles: [viewer], scope: { team: a } }]', '[0].scope.team', 'unknown field'],
  ])('%s is refused', (text, place, message) => {
    const [line] = faultLines(roles(text));
    expect(line).toContain(`$.operators[0].roles["Platform Team"]${place}: `);
    expect(line).toContain(message);
  });
});

describe('the login of operators', () => {
  const login = (text: string) => edited('claim: groups', `claim: groups\n    login: ${text}`);
  const ends = 'authorization_endpoint: "https://idp.example/auth", token_endpoint: "https://idp.example/token"';

  test('is a client at addresses that are said', () => {
    expect(login(`{ client_id: mayfly, client_secret: "file:client", ${ends} }`)).toEqual([]);
    expect(login(`{ client_id: mayfly, ${ends}, scopes: [openid, groups] }`)).toEqual([]);
  });

  test.each([
    [`{ ${ends} }`, '.client_id', 'is required'],
    [`{ client_id: mayfly, client_secret: hunter2, ${ends} }`, '.client_secret', 'must be a reference'],
    [`{ client_id: mayfly, client_secret: "file:../other", ${ends} }`, '.client_secret', ''],
    [`{ client_id: mayfly, ${ends.replace('https', 'http')} }`, '.authorization_endpoint', 'must be an https URL'],
    [
      `{ client_id: mayfly, ${ends.replace('idp.example/token', 'me:pw@idp.example/token')} }`,
      '.token_endpoint',
      'must not hold',
    ],
    [`{ client_id: mayfly, ${ends}, scopes: ["a b"] }`, '.scopes[0]', 'must be a scope'],
  ])('%s is refused', (text, place, message) => {
    const [line = ''] = login(text);
    expect(line).toContain(`$.operators[0].login${place}: `);
    expect(line).toContain(message);
  });
});

describe('workloads', () => {
  const subject = '"cluster:system:serviceaccount:finance:recon"';
  const wildcard = 'wildcards are not accepted: name each workload, or a SPIFFE path that ends with `/*`';
  test.each([
    ['"cluster:*"', wildcard],
    ['"*"', 'must be `<source>:<subject>`'],
    ['"cluster:system:*:recon"', wildcard],
    ['"cluster:spiffe://*"', wildcard],
    ['"cluster:spiffe://prod.example/*"', wildcard],
    ['"cluster:spiffe://prod.example/agents*"', wildcard],
    ['"cluster:spiffe://prod.example/*/recon"', wildcard],
    ['"cluster:spiffe://prod.example/agents/**"', wildcard],
    ['"cluster:spiffe://prod.example/../*"', wildcard],
    [
      '"cluster:spiffe://prod.example/agents/*"',
      'only workloads of a SPIFFE source are named by a path: name each workload',
    ],
    ['"cluster:"', 'needs a subject without white space after the source'],
    ['"cluster:a b"', 'needs a subject without white space after the source'],
    ['recon', 'must be `<source>:<subject>`'],
    ['"nowhere:recon"', 'there is no workload source nowhere'],
  ])('refuses %s', (workload, message) => {
    expect(edited(subject, workload)).toEqual([`trust.yaml:7 $.task_issuers[0].workloads[0]: ${message}`]);
  });
});

test('purposes that purposes.yaml does not have are refused', () => {
  expect(edited('[reconcile.invoices]', '[reconcile.invoices, send.money]')).toEqual([
    'trust.yaml:6 $.task_issuers[0].purposes[1]: purposes.yaml has no purpose send.money',
  ]);
});

describe('one issuer is one party', () => {
  test('an `iss` may not be two kinds', () => {
    expect(edited('https://idp.example\n', 'https://orchestrator.example\n')).toEqual([
      'trust.yaml:17 $.operators[0].issuer: is the issuer of orchestrator already: each party needs an issuer of its own',
    ]);
  });

  test('nor may two share a name', () => {
    expect(edited('name: staff', 'name: cluster')).toEqual([
      'trust.yaml:16 $.operators[0].name: the name cluster stands here twice',
    ]);
  });
});

describe('algorithms', () => {
  test.each(['HS256', 'none', 'es256'])('refuses %s', (algorithm) => {
    expect(edited('algorithms: [ES256]', `algorithms: [${algorithm}]`)).toEqual([
      expect.stringMatching(/^trust\.yaml:5 \$\.task_issuers\[0\]\.algorithms\[0\]: must be one of ES256/),
    ]);
  });

  test('at least one is needed', () => {
    expect(edited('algorithms: [ES256]', 'algorithms: []')).toEqual([
      'trust.yaml:5 $.task_issuers[0].algorithms: must name at least one algorithm',
    ]);
  });
});

describe('addresses', () => {
  test.each([
    ['http://orchestrator.example/jwks.json', 'must be an https URL'],
    ['http://127.0.0.1/jwks.json', 'must be an https URL'],
    ['ftp://orchestrator.example/jwks.json', 'must be an https URL'],
    ['file:///etc/jwks.json', 'must be an https URL'],
    ['orchestrator', 'must be an https URL'],
    ['https://user:word@orchestrator.example/jwks.json', 'must not hold a user or a password'],
  ])('refuses keys from %s', (url, message) => {
    expect(edited('url: https://orchestrator.example/jwks.json', `url: "${url}"`)).toEqual([
      `trust.yaml:4 $.task_issuers[0].jwks.url: ${message}`,
    ]);
  });

  test('an issuer has no query', () => {
    expect(edited('issuer: https://idp.example', 'issuer: https://idp.example?x=1')).toEqual([
      'trust.yaml:17 $.operators[0].issuer: must have no query and no fragment',
    ]);
  });
});

describe('dev trust', () => {
  const dev = (url: string): Record<string, string> => {
    const text = (sampleFiles['trust.yaml'] ?? '')
      .replace('issuer: https://orchestrator.example', `dev: true\n    issuer: "${url}"`)
      .replace('https://orchestrator.example/jwks.json', `"${url}/jwks.json"`);
    return sampleWith({ 'trust.yaml': text });
  };

  test('is accepted by a broker in dev mode, over http on loopback', () => {
    expect(faultLines(dev('http://127.0.0.1:7421'), true)).toEqual([]);
    expect(faultLines(dev('http://localhost:7421'), true)).toEqual([]);
    expect(faultLines(dev('http://[::1]:7421'), true)).toEqual([]);
  });

  test('is refused everywhere else', () => {
    expect(faultLines(dev('http://127.0.0.1:7421'))).toEqual([
      'trust.yaml:3 $.task_issuers[0].dev: dev trust is accepted only by a broker in dev mode',
    ]);
  });

  test('does not make plain http to another machine acceptable', () => {
    expect(faultLines(dev('http://127.0.0.1.example'), true)).toHaveLength(2);
  });
});

describe('key sets', () => {
  test('come from exactly one place', () => {
    const says = 'needs exactly one of `url`, `file` and `inline`';
    expect(edited('{ url: https://idp.example/jwks.json }', '{}')).toEqual([
      `trust.yaml:18 $.operators[0].jwks: ${says}`,
    ]);
    expect(edited('{ url: https://idp.example/jwks.json }', '{ url: https://a.example, file: a.json }')).toEqual([
      `trust.yaml:18 $.operators[0].jwks: ${says}`,
    ]);
  });

  test('in a file are read with the catalog and handed on inline', () => {
    const catalog = load(withKeys('keys/cluster.json', JSON.stringify({ keys: [publicKey] })));
    expect(catalog.trust.workloadSources[0]?.jwks).toEqual({ inline: { keys: [publicKey] } });
    expect(Object.keys(catalog.files)).toContain('keys/cluster.json');
  });

  test('that are not there are refused, as is a path out of the catalog', () => {
    for (const path of ['keys/other.json', '../cluster.json', '/etc/cluster.json', 'trust.yaml']) {
      expect(edited('{ url: https://cluster.example/jwks.json }', `{ file: ${path} }`)).toEqual([
        'trust.yaml:13 $.workload_sources[0].jwks.file: must name a .json file below the catalog folder that is there',
      ]);
    }
  });

  test('that nobody uses are refused', () => {
    expect(faultLines(sampleWith({ 'keys/old.json': '{}' }))).toEqual([
      'keys/old.json:1: no issuer in trust.yaml names this file',
    ]);
  });

  test.each([
    ['private members', { ...publicKey, d: 'x' }, '$.keys[0].d: belongs to a private key: publish only public keys'],
    ['a shared secret', { kty: 'oct', kid: 'one', k: 'x' }, '$.keys[0].kty: must be EC, OKP or RSA'],
    ['a key for encryption', { ...publicKey, use: 'enc' }, '$.keys[0].use: must be `sig`'],
    ['no kid', { ...publicKey, kid: undefined }, '$.keys[0].kid: is required'],
    [
      'a short RSA key',
      { kty: 'RSA', kid: 'one', n: 'a'.repeat(171), e: 'AQAB' },
      '$.keys[0].n: RSA keys need at least 2048 bits',
    ],
    ['a point without y', { ...publicKey, y: undefined }, '$.keys[0].y: is required'],
  ])('with %s are refused, at their line', (_what, key, fault) => {
    const lines = faultLines(withKeys('keys/cluster.json', `\n${JSON.stringify({ keys: [key] })}`));
    expect(lines).toEqual([`keys/cluster.json:2 ${fault}`]);
  });

  test('with two keys of one kid are refused', () => {
    expect(faultLines(withKeys('k.json', JSON.stringify({ keys: [publicKey, publicKey] })))).toEqual([
      'k.json:1 $.keys[1].kid: another key has the same `kid`',
    ]);
  });

  test('that are not JSON, or say a member twice, are refused without quoting them', () => {
    expect(faultLines(withKeys('k.json', 'keys: []'))).toEqual(['k.json:1 $: is not valid JSON']);
    expect(faultLines(withKeys('k.json', '{"keys":[],\n"keys":[]}'))).toEqual(['k.json:2: this key stands here twice']);
  });
});
