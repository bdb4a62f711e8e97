import { describe, expect, it } from 'vitest';
import type { OidcSource } from '../../catalog/types.ts';
import type { TestKey } from '../testing/keys.ts';
import { times, trusting } from '../testing/sources.ts';
import { AUDIENCE } from '../testing/trust.ts';

const source =
  (change: Partial<OidcSource>) =>
  (key: TestKey): OidcSource => ({
    kind: 'oidc',
    name: 'cloud',
    dev: false,
    issuer: 'https://login.example',
    jwks: { inline: { keys: [key.jwk] } },
    algorithms: ['ES256'],
    ...change,
  });
const claims = { ...times, iss: 'https://login.example', aud: AUDIENCE, sub: 'subject' };
const accessToken = { ...claims, client_id: 'recon', jti: 'token-1' };

describe('the subject', () => {
  // Shapes as these providers document them; the client is not in `sub` of each.
  it.each<readonly [provider: string, source: Partial<OidcSource>, claims: object, subject: string]>([
    ['Keycloak', { subjectClaim: 'azp' }, { azp: 'recon', typ: 'Bearer', sub: 'f1c6-uuid', scope: 'email' }, 'recon'],
    ['Auth0', {}, { sub: 'AbC123@clients', azp: 'AbC123', gty: 'client-credentials' }, 'AbC123@clients'],
    [
      'Entra v1',
      { subjectClaim: 'appid', require: { tid: 'tenant' } },
      { appid: 'app', tid: 'tenant', ver: '1.0' },
      'app',
    ],
    [
      'Entra v2',
      { subjectClaim: 'azp', require: { tid: 'tenant', ver: '2.0' } },
      { azp: 'app', tid: 'tenant', ver: '2.0' },
      'app',
    ],
    ['Okta', { subjectClaim: 'cid' }, { cid: '0oa1', sub: '0oa1', ver: 1 }, '0oa1'],
    ['RFC 9068', { subjectClaim: 'client_id', tokenType: 'at+jwt' }, accessToken, 'recon'],
  ])('of %s is the claim that the catalog names', async (_provider, change, more, subject) => {
    const { believe } = trusting(source(change));
    const header = change.tokenType === undefined ? { typ: 'JWT' } : { typ: 'at+jwt' };
    expect(await believe({ ...claims, ...more }, header)).toMatchObject({ workload: { source: 'cloud', subject } });
  });

  it.each([
    ['is absent', undefined],
    ['is empty', ''],
    ['is a list', ['recon']],
    ['is a number', 7],
    ['holds a line break', 'recon\n'],
  ])('is refused when that claim %s', async (_what, azp) => {
    const { ask } = trusting(source({ subjectClaim: 'azp' }));
    expect(await ask({ ...claims, azp })).toBe('workload_token_invalid');
  });

  it('is not `sub` where another acts for it; a claim that names who acts is', async () => {
    const exchanged = { ...claims, client_id: 'broker-of-tokens', act: { sub: 'broker-of-tokens' } };
    expect(await trusting(source({})).ask(exchanged)).toBe('workload_token_invalid');
    expect(await trusting(source({ subjectClaim: 'client_id' })).ask(exchanged)).toBe('accepted');
  });

  it('is no member that every object has', async () => {
    expect(await trusting(source({ subjectClaim: 'constructor' })).ask(claims)).toBe('workload_token_invalid');
  });
});

describe('a required claim', () => {
  const { ask } = trusting(source({ require: { tid: 'tenant', ver: 2, app: true } }));
  const right = { ...claims, tid: 'tenant', ver: 2, app: true };
  it.each<readonly [name: string, change: object, code: string]>([
    ['exactly so', {}, 'accepted'],
    ['absent', { tid: undefined }, 'workload_token_invalid'],
    ['another', { tid: 'other' }, 'workload_token_invalid'],
    ['in other letters', { tid: 'Tenant' }, 'workload_token_invalid'],
    ['in a list', { tid: ['tenant'] }, 'workload_token_invalid'],
    ['a text for a number', { ver: '2' }, 'workload_token_invalid'],
    ['a text for a yes', { app: 'true' }, 'workload_token_invalid'],
  ])('%s', async (_name, change, code) => {
    expect(await ask({ ...right, ...change })).toBe(code);
  });

  it('is not met by a member that every object has', async () => {
    expect(await trusting(source({ require: { toString: 'x' } })).ask(claims)).toBe('workload_token_invalid');
  });
});

describe('where the catalog demands at+jwt', () => {
  const { ask } = trusting(source({ tokenType: 'at+jwt' }));
  it.each<readonly [name: string, change: object, header: object, code: string]>([
    ['an access token', {}, { typ: 'at+jwt' }, 'accepted'],
    ['an access token by its full type', {}, { typ: 'application/at+jwt' }, 'accepted'],
    ['an ID token', { nonce: 'n', at_hash: 'h' }, { typ: 'JWT' }, 'workload_token_type_wrong'],
    ['a token that does not say what it is', {}, {}, 'workload_token_type_wrong'],
    ['a JWT-SVID', {}, { typ: 'JOSE' }, 'workload_token_type_wrong'],
    ['no client_id', { client_id: undefined }, { typ: 'at+jwt' }, 'workload_token_invalid'],
    ['no iat', { iat: undefined }, { typ: 'at+jwt' }, 'workload_token_invalid'],
    ['no jti', { jti: undefined }, { typ: 'at+jwt' }, 'workload_token_invalid'],
  ])('%s', async (_name, change, header, code) => {
    expect(await ask({ ...accessToken, ...change }, { ...header })).toBe(code);
  });
});

it('typ JOSE is for JWT-SVIDs alone', async () => {
  const { ask } = trusting(source({}));
  expect(await ask(claims, { typ: 'JOSE' })).toBe('workload_token_type_wrong');
  expect(await ask(claims, { typ: 'JWT' })).toBe('accepted');
});
