import { describe, expect, it } from 'vitest';
import { times, trusting } from '../testing/sources.ts';
import { AUDIENCE, SECONDS } from '../testing/trust.ts';

const { ask, believe } = trusting((key) => ({
  kind: 'kubernetes',
  name: 'cluster',
  dev: false,
  issuer: 'https://kubernetes.default.svc',
  jwks: { inline: { keys: [key.jwk] } },
  algorithms: ['ES256'],
}));

// As kube-apiserver 1.34 projects it.
const bound = {
  namespace: 'finance',
  node: { name: 'node-1', uid: '11111111-1111-4111-8111-111111111111' },
  pod: { name: 'recon-5f4d-abcde', uid: '22222222-2222-4222-8222-222222222222' },
  serviceaccount: { name: 'recon', uid: '33333333-3333-4333-8333-333333333333' },
  warnafter: SECONDS + 3607,
};
const claims = {
  ...times,
  iss: 'https://kubernetes.default.svc',
  aud: [AUDIENCE],
  sub: 'system:serviceaccount:finance:recon',
  jti: '44444444-4444-4444-8444-444444444444',
  'kubernetes.io': bound,
};
const withBound = (change: object) => ({ 'kubernetes.io': { ...bound, ...change } });

describe('a token of a pod', () => {
  it('is its service account, and the pod is the instance', async () => {
    expect(await believe(claims)).toMatchObject({
      kind: 'workload',
      workload: { source: 'cluster', subject: 'system:serviceaccount:finance:recon' },
      instance: bound.pod.uid,
      instanceDetails: { service_account_uid: bound.serviceaccount.uid, node: 'node-1', node_uid: bound.node.uid },
      expiresAt: new Date((SECONDS + 600) * 1000),
    });
  });

  it.each<readonly [name: string, change: object, header: object, code: string]>([
    ['as it comes', {}, {}, 'accepted'],
    ['of a cluster that names no node', withBound({ node: undefined }), {}, 'accepted'],
    ['of another namespace', withBound({ namespace: 'other' }), {}, 'workload_token_invalid'],
    [
      'of another service account',
      withBound({ serviceaccount: { ...bound.serviceaccount, name: 'other' } }),
      {},
      'workload_token_invalid',
    ],
    [
      'with a colon moved from one name into the other',
      {
        sub: 'system:serviceaccount:a:b:c',
        ...withBound({ namespace: 'a', serviceaccount: { ...bound.serviceaccount, name: 'b:c' } }),
      },
      {},
      'workload_token_invalid',
    ],
    ['whose sub is a user', { sub: 'system:admin' }, {}, 'workload_token_invalid'],
    ['without kubernetes.io', { 'kubernetes.io': undefined }, {}, 'workload_token_invalid'],
    ['of no pod (`kubectl create token`)', withBound({ pod: undefined }), {}, 'workload_token_invalid'],
    ['of a pod without uid', withBound({ pod: { name: 'x' } }), {}, 'workload_token_invalid'],
    [
      'of a service account without uid',
      withBound({ serviceaccount: { name: 'recon' } }),
      {},
      'workload_token_invalid',
    ],
    ['for the API server', { aud: ['https://kubernetes.default.svc'] }, {}, 'workload_token_audience_wrong'],
    [
      'for the API server too',
      { aud: [AUDIENCE, 'https://kubernetes.default.svc'] },
      {},
      'workload_token_audience_wrong',
    ],
    ['without an end (a secret of the old kind)', { exp: undefined }, {}, 'workload_token_invalid'],
    ['that has expired', { exp: SECONDS - 5 }, {}, 'workload_token_expired'],
    ['with the type of an access token', {}, { typ: 'at+jwt' }, 'workload_token_type_wrong'],
    ['of another cluster', { iss: 'https://other.example' }, {}, 'workload_token_issuer_unknown'],
  ])('%s', async (_name, change, header, code) => {
    expect(await ask({ ...claims, ...change }, { ...header })).toBe(code);
  });
});
