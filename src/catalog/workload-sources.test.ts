import { describe, expect, test } from 'vitest';
import { faultLines, load, sampleFiles, sampleWith } from './testing/sample.ts';

const cluster = `  - name: cluster
    kind: oidc
    issuer: https://cluster.example
    jwks: { url: https://cluster.example/jwks.json }
    algorithms: [RS256]
`;
/** Begins at line 10 of the file; the issuer of line 7 may name what is said. */
const withSource = (source: string, workloads = '', more: Readonly<Record<string, string>> = {}) => ({
  ...sampleWith({
    'trust.yaml': (sampleFiles['trust.yaml'] ?? '')
      .replace(cluster, source)
      .replace('"cluster:system:serviceaccount:finance:recon"', workloads),
  }),
  ...more,
});
const faults = (source: string, workloads = '', more: Readonly<Record<string, string>> = {}): readonly string[] =>
  faultLines(withSource(source, workloads, more));
const sourceOf = (source: string, more: Readonly<Record<string, string>> = {}) =>
  load(withSource(source, '', more)).trust.workloadSources[0];

const spiffe = `  - name: prod
    kind: spiffe-jwt
    trust_domain: prod.example
    bundle: { url: https://spire.example/bundle.json }
    algorithms: [ES256, RS256]
`;
const spiffeX509 = `  - name: mesh
    kind: spiffe-x509
    trust_domain: prod.example
    bundle: { url: https://spire.example/bundle.json }
`;
const kubernetes = `  - name: pods
    kind: kubernetes
    issuer: https://kubernetes.default.svc
    jwks: { url: https://kubernetes.default.svc/openid/v1/jwks }
    algorithms: [RS256]
    token_review: { url: https://kubernetes.default.svc, ca: file:ca.crt, credential: file:token }
`;
const github = `  - name: github
    kind: github-actions
    repositories:
      - { repository_owner_id: "9919", repository_id: "12345678", environment: production, as: deploy }
`;

test('each kind comes out with what it alone knows', () => {
  expect(
    sourceOf(
      cluster.replace('oidc', 'oidc\n    subject: azp\n    require: { tid: abc, ver: 2 }\n    token_type: at+jwt'),
    ),
  ).toMatchObject({
    kind: 'oidc',
    subjectClaim: 'azp',
    require: { tid: 'abc', ver: 2 },
    tokenType: 'at+jwt',
  });
  expect(sourceOf(spiffe)).toEqual({
    kind: 'spiffe-jwt',
    name: 'prod',
    dev: false,
    issuer: 'spiffe://prod.example',
    trustDomain: 'prod.example',
    jwks: { url: 'https://spire.example/bundle.json' },
    algorithms: ['ES256', 'RS256'],
  });
  expect(sourceOf(spiffeX509)).toEqual({
    kind: 'spiffe-x509',
    name: 'mesh',
    dev: false,
    issuer: 'spiffe://prod.example',
    trustDomain: 'prod.example',
    jwks: { url: 'https://spire.example/bundle.json' },
    algorithms: [],
  });
  expect(sourceOf(kubernetes)).toMatchObject({
    kind: 'kubernetes',
    tokenReview: { url: 'https://kubernetes.default.svc', ca: 'file:ca.crt', credential: 'file:token' },
  });
  expect(sourceOf(github)).toMatchObject({
    kind: 'github-actions',
    issuer: 'https://token.actions.githubusercontent.com',
    jwks: { url: 'https://token.actions.githubusercontent.com/.well-known/jwks' },
    algorithms: ['RS256'],
    repositories: [
      { repositoryOwnerId: '9919', repositoryId: '12345678', environment: 'production', as: 'deploy', ref: undefined },
    ],
  });
});

describe('a kind', () => {
  test.each([
    ['kind: saml', 11],
    ['kind: [oidc]', 11],
    ['dev: false', 10],
  ])('must be one that is known: %s', (kind, line) => {
    expect(faults(cluster.replace('kind: oidc', kind))).toEqual([
      `trust.yaml:${line} $.workload_sources[0].kind: must be one of oidc, spiffe-jwt, spiffe-x509, kubernetes, github-actions`,
    ]);
  });

  test('knows no fields of another', () => {
    expect(faults(cluster.replace('kind: oidc', 'kind: oidc\n    trust_domain: prod.example'))).toEqual([
      'trust.yaml:12 $.workload_sources[0].trust_domain: unknown field',
    ]);
    expect(faults(`${spiffe}    issuer: https://spire.example\n`)).toEqual([
      'trust.yaml:15 $.workload_sources[0].issuer: unknown field',
    ]);
    expect(faults(`${spiffeX509}    algorithms: [ES256]\n`)).toEqual([
      'trust.yaml:14 $.workload_sources[0].algorithms: unknown field',
    ]);
    expect(faults(`${github}    issuer: https://evil.example\n`)).toEqual([
      'trust.yaml:14 $.workload_sources[0].issuer: unknown field',
    ]);
  });
});

describe('a trust domain', () => {
  test.each(['spiffe://prod.example', 'Prod.example', 'prod.example/agents', 'prod.example:443', '""'])(
    'is not %s',
    (domain) => {
      expect(faults(spiffe.replace('prod.example', domain))).toEqual([
        'trust.yaml:12 $.workload_sources[0].trust_domain: must be a trust domain: `prod.example`, without `spiffe://`',
      ]);
    },
  );

  test('has one source', () => {
    expect(faults(spiffe + spiffe.replace('name: prod', 'name: again'))).toEqual([
      'trust.yaml:17 $.workload_sources[1].trust_domain: is the issuer of prod already: each party needs an issuer of its own',
    ]);
  });

  test('may have one source of tokens and one of certificates', () => {
    expect(faults(spiffe + spiffeX509)).toEqual([]);
    expect(faults(spiffeX509 + spiffeX509.replace('name: mesh', 'name: again'))).toEqual([
      'trust.yaml:16 $.workload_sources[1].trust_domain: is the issuer of mesh already: each party needs an issuer of its own',
    ]);
  });

  test('names its workloads alike by certificates', () => {
    expect(faults(spiffeX509, '"mesh:spiffe://prod.example/agents/*"')).toEqual([]);
    expect(faults(spiffeX509, '"mesh:spiffe://other.example/agents/*"')).toEqual([
      'trust.yaml:7 $.task_issuers[0].workloads[0]: must be a SPIFFE ID of the trust domain prod.example',
    ]);
  });

  test('signs with no EdDSA', () => {
    expect(faults(spiffe.replace('ES256', 'EdDSA'))).toEqual([
      expect.stringMatching(/^trust\.yaml:14 \$\.workload_sources\[0\]\.algorithms\[0\]: must be one of ES256/),
    ]);
  });

  test('is reached by https', () => {
    expect(faults(spiffe.replace('https://spire', 'http://spire'))).toEqual([
      'trust.yaml:13 $.workload_sources[0].bundle.url: must be an https URL',
    ]);
  });

  test.each([
    ['prod:spiffe://prod.example/agents/*', []],
    ['prod:spiffe://prod.example/agents/recon', []],
    ['prod:spiffe://other.example/agents/*', ['must be a SPIFFE ID of the trust domain prod.example']],
    ['prod:spiffe://other.example/agents/recon', ['must be a SPIFFE ID of the trust domain prod.example']],
    ['prod:spiffe://prod.example', ['must be a SPIFFE ID of the trust domain prod.example']],
    ['prod:agents', ['must be a SPIFFE ID of the trust domain prod.example']],
  ])('its workloads are named by id or path: %s', (workload, wrong) => {
    expect(faults(spiffe, `"${workload}"`)).toEqual(
      wrong.map((message) => `trust.yaml:7 $.task_issuers[0].workloads[0]: ${message}`),
    );
  });
});

describe('a bundle in the catalog', () => {
  const inFile = spiffe.replace('url: https://spire.example/bundle.json', 'file: keys/prod.json');
  const key = { kty: 'EC', crv: 'P-256', x: 'abc', y: 'def', kid: 'one', use: 'jwt-svid' };
  const withBundle = (...keys: readonly object[]) => ({
    'keys/prod.json': `\n${JSON.stringify({ keys, spiffe_sequence: 7 })}`,
  });

  test('is handed on inline, with all its kinds of entries', () => {
    const keys = [key, { use: 'x509-svid', kty: 'EC', x5c: ['AAAA'] }, { use: 'wit-svid', kty: 'other' }, { kty: 'x' }];
    expect(sourceOf(inFile, withBundle(...keys))?.jwks).toEqual({ inline: { keys, spiffe_sequence: 7 } });
  });

  test('may be empty: nobody is believed', () => {
    expect(sourceOf(inFile, withBundle())?.jwks).toEqual({ inline: { keys: [], spiffe_sequence: 7 } });
  });

  test.each([
    ['a private key', { ...key, d: 'x' }, '$.keys[0].d: belongs to a private key: publish only public keys'],
    ['no kid', { ...key, kid: undefined }, '$.keys[0].kid: is required of a `jwt-svid` entry'],
    [
      'two certificates in one entry',
      { use: 'x509-svid', x5c: ['A', 'B'] },
      '$.keys[0].x5c: must hold exactly one certificate',
    ],
  ])('is refused with %s', (_what, entry, fault) => {
    expect(faults(inFile, '', withBundle(entry))).toEqual([`keys/prod.json:2 ${fault}`]);
  });
});

describe('a cluster', () => {
  test.each([
    ['url: https', 'url: http', 'url: must be an https URL'],
    ['file:ca.crt', 'file:../ca.crt', 'ca: must be a path below the secrets folder of pods, without `..`'],
    ['file:token', 'eyJhbGciOi', 'credential: must be a reference: `file:path`'],
    ['file:token', 'env:TOKEN', 'credential: must be a reference: `file:path`'],
  ])('is asked about tokens in no other way: %s → %s', (from, to, fault) => {
    const line = kubernetes.split('token_review').map((part, index) => (index === 0 ? part : part.replace(from, to)));
    expect(faults(line.join('token_review'))).toEqual([`trust.yaml:15 $.workload_sources[0].token_review.${fault}`]);
  });
});

describe('a repository', () => {
  const says = 'must be digits in quotes: "1234"';
  test.each([
    ['a name', 'repository_id: octo/app', `repository_id: ${says}`],
    ['a number', 'repository_id: 12345678', `repository_id: ${says}`],
    ['nothing', 'ref: refs/heads/main', 'repository_id: is required'],
  ])('is told by ids, not by %s', (_what, id, fault) => {
    expect(faults(github.replace('repository_id: "12345678"', id))).toEqual([
      `trust.yaml:13 $.workload_sources[0].repositories[0].${fault}`,
    ]);
  });

  test('is needed, and its owner too', () => {
    expect(faults('  - { name: github, kind: github-actions, repositories: [] }\n')).toEqual([
      'trust.yaml:10 $.workload_sources[0].repositories: must name at least one repository',
    ]);
    expect(faults(github.replace('repository_owner_id: "9919", ', ''))).toEqual([
      'trust.yaml:13 $.workload_sources[0].repositories[0].repository_owner_id: is required',
    ]);
  });
});
