import { describe, expect, it } from 'vitest';
import type { SpiffeJwtSource } from '../../catalog/types.ts';
import type { TestKey } from '../testing/keys.ts';
import { times, trusting } from '../testing/sources.ts';
import { AUDIENCE, SECONDS, SOURCE } from '../testing/trust.ts';

const ID = 'spiffe://prod.example/agents/recon';

const source = (key: TestKey, entry: object = {}): SpiffeJwtSource => {
  const { alg: _, ...jwk } = key.jwk;
  return {
    kind: 'spiffe-jwt',
    name: 'prod',
    dev: false,
    issuer: 'spiffe://prod.example',
    trustDomain: 'prod.example',
    jwks: { inline: { keys: [{ ...jwk, use: 'jwt-svid', ...entry }] } },
    algorithms: ['ES256'],
  };
};
const claims = { aud: [AUDIENCE], sub: ID, exp: SECONDS + 300 };
const { ask, believe } = trusting(source);

describe('a JWT-SVID', () => {
  it('is the workload of its trust domain, without iss', async () => {
    expect(await believe(claims)).toMatchObject({
      kind: 'workload',
      workload: { source: 'prod', subject: ID },
      expiresAt: new Date((SECONDS + 300) * 1000),
    });
  });

  it.each<readonly [name: string, claims: object, header: object, code: string]>([
    ['with typ JWT', {}, { typ: 'JWT' }, 'accepted'],
    ['with typ JOSE', {}, { typ: 'JOSE' }, 'accepted'],
    ['with an iss that nobody knows', { iss: 'https://oidc.prod.example' }, {}, 'accepted'],
    ['with aud as a text', { aud: AUDIENCE }, {}, 'accepted'],

    ['with typ at+jwt', {}, { typ: 'at+jwt' }, 'workload_token_type_wrong'],
    ['with typ wit+jwt', {}, { typ: 'wit+jwt' }, 'workload_token_type_wrong'],
    ['with typ jwt in small letters', {}, { typ: 'jwt' }, 'workload_token_type_wrong'],
    ['with the header x5t', {}, { x5t: 'AAAA' }, 'workload_token_header_refused'],
    ['with the header cty', {}, { cty: 'JWT' }, 'workload_token_header_refused'],
    ['with the header jku', {}, { jku: 'https://evil.example' }, 'workload_token_header_refused'],
    ['with the header crit', {}, { crit: ['exp'] }, 'workload_token_header_refused'],
    ['with alg EdDSA', {}, { alg: 'EdDSA' }, 'workload_token_algorithm_refused'],
    ['with alg none', {}, { alg: 'none' }, 'workload_token_algorithm_refused'],
    ['without kid', {}, { kid: undefined }, 'workload_token_key_unknown'],
    ['with another kid', {}, { kid: 'other' }, 'workload_token_key_unknown'],

    ['without exp', { exp: undefined }, {}, 'workload_token_invalid'],
    ['that has expired', { exp: SECONDS - 5 }, {}, 'workload_token_expired'],
    ['for another audience', { aud: ['https://other.example'] }, {}, 'workload_token_audience_wrong'],
    ['for two audiences', { aud: [AUDIENCE, 'https://other.example'] }, {}, 'workload_token_audience_wrong'],
    ['for nobody', { aud: undefined }, {}, 'workload_token_audience_wrong'],

    // What is no SPIFFE ID names no trust domain, and so no source.
    ['of another trust domain', { sub: 'spiffe://staging.example/agents/recon' }, {}, 'workload_token_issuer_unknown'],
    [
      'of a trust domain that begins the same',
      { sub: ID.replace('prod.example', 'prod.example.evil') },
      {},
      'workload_token_issuer_unknown',
    ],
    ['with a path that goes up', { sub: `${ID}/../admin` }, {}, 'workload_token_issuer_unknown'],
    ['with a percent sign in sub', { sub: `${ID}/%61` }, {}, 'workload_token_issuer_unknown'],
    ['with a port in sub', { sub: ID.replace('example', 'example:443') }, {}, 'workload_token_issuer_unknown'],
    ['without sub', { sub: undefined }, {}, 'workload_token_issuer_unknown'],
    ['with sub as a list', { sub: [ID] }, {}, 'workload_token_issuer_unknown'],
    ['of the trust domain itself', { sub: 'spiffe://prod.example' }, {}, 'workload_token_invalid'],
    [
      'whose iss leads here, and whose sub lies elsewhere',
      { iss: 'spiffe://prod.example', sub: 'spiffe://staging.example/x' },
      {},
      'workload_token_invalid',
    ],
    [
      'whose iss leads here, and whose sub is no SPIFFE ID',
      { iss: 'spiffe://prod.example', sub: 'agent' },
      {},
      'workload_token_invalid',
    ],
    ['that names an issuer of another kind', { iss: SOURCE }, {}, 'workload_token_key_unknown'],
    ['that is bound to a key', { cnf: { jkt: 'x' } }, {}, 'key_binding_unsupported'],
  ])('%s', async (_name, change, header, code) => {
    expect(await ask({ ...claims, ...change }, { ...header })).toBe(code);
  });

  it.each([
    ['for X.509-SVIDs', { use: 'x509-svid', x5c: ['AAAA'] }],
    ['for WITs', { use: 'wit-svid' }],
    ['of a plain JWKS', { use: 'sig' }],
    ['without use', { use: undefined }],
    ['of an unknown kind', { kty: 'XYZ' }],
  ])('is not believed by a key %s', async (_name, entry) => {
    expect(await trusting((key) => source(key, entry)).ask(claims)).toBe('workload_token_key_unknown');
  });

  it('is invalid when its bundle is empty, and unsettled when its bundle is none', async () => {
    const under = (keys: unknown) =>
      trusting((key) => ({ ...source(key), jwks: { inline: Object.assign({ keys: [] }, { keys }) } })).ask(claims);
    expect(await under([])).toBe('workload_token_key_unknown');
    expect(await under(undefined)).toBe('keys_unavailable');
    expect(await under([{ use: 'jwt-svid', kty: 'EC' }])).toBe('keys_unavailable');
  });
});

describe('an ordinary token', () => {
  it('of an OIDC source may have a SPIFFE ID as its subject, and is still of that source', async () => {
    const oidc = trusting((key) => ({
      kind: 'oidc',
      name: 'discovery',
      dev: false,
      issuer: 'https://oidc.prod.example',
      jwks: { inline: { keys: [key.jwk] } },
      algorithms: ['ES256'],
    }));
    expect(await oidc.believe({ ...claims, ...times, iss: 'https://oidc.prod.example' })).toMatchObject({
      workload: { source: 'discovery', subject: ID },
    });
  });
});
