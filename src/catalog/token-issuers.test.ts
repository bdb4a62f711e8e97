import { describe, expect, test } from 'vitest';
import { faultLines, load, sampleFiles, sampleWith } from './testing/sample.ts';

const runs = `  - name: deploys
    kind: token
    source: cluster
    purposes: [reconcile.invoices]
    workloads: ["cluster:system:serviceaccount:finance:recon"]
    max_task_seconds: 900
    purpose: reconcile.invoices
    entitlements: [ledger/read]
    not_after: token
`;
/** Begins at line 9 of the file, after the ordinary issuer. */
const withIssuer = (issuer: string) =>
  sampleWith({
    'trust.yaml': (sampleFiles['trust.yaml'] ?? '').replace('workload_sources:\n', `${issuer}workload_sources:\n`),
  });
const faults = (issuer: string): readonly string[] => faultLines(withIssuer(issuer));
const issuerOf = (issuer: string) => load(withIssuer(issuer)).trust.tokenIssuers[0];

describe('a task issuer of kind token', () => {
  test('has the issuer and the keys of its source, and states no task requests', () => {
    const { trust } = load(withIssuer(runs));
    expect(trust.taskIssuers.map(({ name }) => name)).toEqual(['orchestrator']);
    expect(trust.tokenIssuers).toMatchObject([
      {
        name: 'deploys',
        issuer: 'https://cluster.example',
        jwks: { url: 'https://cluster.example/jwks.json' },
        maxTaskSeconds: 900,
        autonomous: false,
        statement: {
          source: 'cluster',
          purpose: { value: 'reconcile.invoices' },
          subjectClaim: 'sub',
          workload: null,
          entitlements: ['ledger/read'],
          params: {},
          maxTtlSeconds: null,
          notAfterSeconds: null,
          externalIdClaims: [],
        },
      },
    ]);
  });

  test('maps claims', () => {
    const mapped = runs
      .replace('purpose: reconcile.invoices', 'purpose: { claim: job }')
      .replace('not_after: token', 'not_after: { seconds: 600 }')
      .concat('    subject: actor\n    workload: { source: cluster, claim: azp }\n    max_ttl_seconds: 60\n')
      .concat(
        '    params: { tenant: { claim: tenant }, region: eu, limit: 5 }\n    external_id: [run_id, run_attempt]\n',
      );
    expect(issuerOf(mapped)?.statement).toEqual({
      source: 'cluster',
      purpose: { claim: 'job' },
      subjectClaim: 'actor',
      workload: { source: 'cluster', claim: 'azp' },
      entitlements: ['ledger/read'],
      params: { tenant: { claim: 'tenant' }, region: { value: 'eu' }, limit: { value: 5 } },
      maxTtlSeconds: 60,
      notAfterSeconds: 600,
      externalIdClaims: ['run_id', 'run_attempt'],
    });
    expect(issuerOf(`${runs}    workload: "cluster:system:admin:x"\n`)?.statement.workload).toEqual({
      source: 'cluster',
      subject: 'system:admin:x',
    });
  });

  test.each([
    ['kind: token', 'kind: tokens', '10 $.task_issuers[1].kind: must be one of task-request, token'],
    ['source: cluster', 'source: nowhere', '11 $.task_issuers[1].source: there is no workload source nowhere'],
    ['source: cluster', 'source: staff', '11 $.task_issuers[1].source: there is no workload source staff'],
    [
      'purpose: reconcile.invoices',
      'purpose: send.money',
      '15 $.task_issuers[1].purpose: does not stand under `purposes`',
    ],
    [
      'not_after',
      'workload: { source: x, claim: y }\n    not_after',
      '17 $.task_issuers[1].workload.source: there is no workload source x',
    ],
    ['name: deploys', 'name: orchestrator', '9 $.task_issuers[1].name: the name orchestrator stands here twice'],
    [
      '"cluster:system:serviceaccount:finance:recon"',
      '"cluster:*"',
      '13 $.task_issuers[1].workloads[0]: wildcards are not accepted: name each workload, or a SPIFFE path that ends with `/*`',
    ],
    [
      'purpose: reconcile.invoices',
      'purpose: { claims: x }',
      '15 $.task_issuers[1].purpose: must be a purpose, or `{ claim: … }`',
    ],
    ['[ledger/read]', '[]', '16 $.task_issuers[1].entitlements: must name 1 to 64'],
    ['not_after: token', 'not_after: never', '17 $.task_issuers[1].not_after: must be `token`, or `{ seconds: … }`'],
    ['not_after: token', 'max_ttl_seconds: 60', '9 $.task_issuers[1].not_after: must be `token`, or `{ seconds: … }`'],
    [
      'not_after: token',
      'not_after: token\n    issuer: https://evil.example',
      '18 $.task_issuers[1].issuer: unknown field',
    ],
  ])('is refused with %s → %s', (from, to, fault) => {
    expect(faults(runs.replace(from, to))).toEqual([`trust.yaml:${fault}`]);
  });

  test('is the only one of its source', () => {
    expect(faults(runs + runs.replace('name: deploys', 'name: others'))).toEqual([
      'trust.yaml:20 $.task_issuers[2].source: is the issuer of deploys already: each party needs an issuer of its own',
    ]);
  });
});

test('an issuer whose tokens never name a key is exempt by name', () => {
  const files = withIssuer(runs);
  const trust = (files['trust.yaml'] ?? '').replace('kind: oidc', 'kind: kubernetes');
  expect(faultLines({ ...files, 'trust.yaml': trust })).toEqual([
    'trust.yaml:9 $.task_issuers[1].proof_of_possession: must be `none`: tokens of a `kubernetes` source name no key',
  ]);
  const exempt = trust.replace('not_after: token', 'not_after: token\n    proof_of_possession: none');
  expect(faultLines({ ...files, 'trust.yaml': exempt })).toEqual([]);
});

test('workloads that show certificates have no tokens to state tasks with', () => {
  const files = withIssuer(runs);
  const trust = (files['trust.yaml'] ?? '')
    .replace('kind: oidc', 'kind: spiffe-x509\n    trust_domain: cluster.example')
    .replace(/ {4}issuer: https:\/\/cluster.example\n/, '')
    .replace(
      'jwks: { url: https://cluster.example/jwks.json }\n    algorithms: [RS256]',
      'bundle: { url: https://cluster.example/b }',
    );
  expect(faultLines({ ...files, 'trust.yaml': trust })).toContain(
    'trust.yaml:11 $.task_issuers[1].source: workloads of cluster show certificates: there are no tokens to state tasks',
  );
});

test('task-request is a kind that may be said or left out', () => {
  const said = {
    ...sampleFiles,
    'trust.yaml': (sampleFiles['trust.yaml'] ?? '').replace(
      'name: orchestrator',
      'name: orchestrator\n    kind: task-request',
    ),
  };
  expect(load(said).trust).toEqual(load(sampleFiles).trust);
});
