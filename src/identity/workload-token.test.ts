import { describe, expect, it } from 'vitest';
import { MayflyError } from '../domain/errors.ts';
import { createIdentity } from './index.ts';
import { makeKey, signText, signToken } from './testing/keys.ts';
import {
  AGENT,
  AUDIENCE,
  believe,
  ISSUER,
  makeTrust,
  NOW,
  OPERATORS,
  operatorClaims,
  refusal,
  SECONDS,
  SOURCE,
  workloadClaims,
} from './testing/trust.ts';
import { readAuthorization } from './workload-token.ts';

const { context, trust, issuerKey, workloadKey, operatorKey } = makeTrust();
const identity = createIdentity();

type Change = Readonly<Record<string, unknown>>;

const token = (claims: Change = {}, header: Change = {}): string =>
  signToken(workloadKey, { ...workloadClaims(), ...claims }, { typ: 'JWT', ...header });
const asked = (authorization: string | undefined) => refusal(believe(identity, authorization, context));
const JKT = 'A'.repeat(43);
const bearer = (text: string) => asked(`Bearer ${text}`);

describe('the Authorization header', () => {
  it.each([
    ['nothing', undefined, 'workload_token_missing'],
    ['an empty one', '', 'workload_token_missing'],
    ['another scheme', 'Basic YTpi', 'workload_token_missing'],
    ['the token alone', token(), 'workload_token_missing'],
    ['Bearer alone', 'Bearer', 'workload_token_malformed'],
    ['Bearer and a space', 'Bearer ', 'workload_token_malformed'],
    ['two spaces', `Bearer  ${token()}`, 'workload_token_malformed'],
    ['a tab', `Bearer\t${token()}`, 'workload_token_missing'],
    ['two tokens', `Bearer ${token()} ${token()}`, 'workload_token_malformed'],
    ['two headers that were joined', `Bearer ${token()}, Bearer ${token()}`, 'workload_token_malformed'],
    ['two headers that were joined tightly', `Bearer ${token()},Bearer`, 'workload_token_malformed'],
    ['a token that is too long', `Bearer ${'a'.repeat(20_000)}.a.a`, 'workload_token_malformed'],
    ['a header of a megabyte', `Bearer ${token()}${' '.repeat(1_000_000)}`, 'workload_token_malformed'],
    ['a token that is not bound, as one that is (RFC 9449 §7)', `DPoP ${token()}`, 'workload_token_unbound'],
    ['DPoP alone', 'DPoP', 'workload_token_malformed'],
    ['Bearer in small letters, as RFC 9110 allows', `bearer ${token()}`, 'accepted'],
    ['one bearer token', `Bearer ${token()}`, 'accepted'],
  ])('with %s', async (_name, authorization, code) => {
    expect(await asked(authorization)).toBe(code);
  });

  it('gives exactly the token', () => {
    expect(readAuthorization('Bearer a.b-_.c')).toEqual({ scheme: 'bearer', token: 'a.b-_.c' });
    expect(readAuthorization('dpop a.b-_.c')).toEqual({ scheme: 'dpop', token: 'a.b-_.c' });
  });
});

describe('a workload token', () => {
  const claimsText = JSON.stringify(workloadClaims());
  const headerText = '{"alg":"ES256","kid":"workload-1"}';

  it.each<readonly [name: string, text: string, code: string]>([
    ['with typ JWT', token(), 'accepted'],
    ['with typ at+jwt', token({}, { typ: 'at+jwt' }), 'accepted'],
    ['without typ', token({}, { typ: undefined }), 'accepted'],
    ['with claims of its own', token({ cnf2: 1, groups: ['x'], scope: 'a b' }), 'accepted'],
    ['with x5t, which decides nothing', token({}, { x5t: 'AAAA' }), 'accepted'],
    ['with aud as a list of one', token({ aud: [AUDIENCE] }), 'accepted'],
    ['with times in fractions', token({ exp: SECONDS + 0.5, iat: SECONDS - 0.5, nbf: undefined }), 'accepted'],
    ['without iat and nbf', token({ iat: undefined, nbf: undefined }), 'accepted'],
    ['expired 4 s ago', token({ exp: SECONDS - 4 }), 'accepted'],
    ['from 30 s ahead', token({ iat: SECONDS + 30, nbf: SECONDS + 30 }), 'accepted'],

    ['of text', 'hello', 'workload_token_malformed'],
    ['with padding', `${token()}=`, 'workload_token_malformed'],
    ['encrypted (five parts)', 'a.b.c.d.e', 'workload_token_malformed'],
    [
      'with a claim twice',
      signText(workloadKey, headerText, `{"sub":"x",${claimsText.slice(1)}`),
      'workload_token_malformed',
    ],
    [
      'with a header twice',
      signText(workloadKey, `{"kid":"x",${headerText.slice(1)}`, claimsText),
      'workload_token_malformed',
    ],
    ['with a payload that is a list', signText(workloadKey, headerText, `[${claimsText}]`), 'workload_token_malformed'],

    ['with the typ of a task request', token({}, { typ: 'agent-task+jwt' }), 'workload_token_type_wrong'],
    ['with the typ of an event', token({}, { typ: 'agent-task-event+jwt' }), 'workload_token_type_wrong'],
    ['with the typ of a DPoP proof', token({}, { typ: 'dpop+jwt' }), 'workload_token_type_wrong'],
    ['with the typ of a security event', token({}, { typ: 'secevent+jwt' }), 'workload_token_type_wrong'],
    ['with the typ of a transaction token', token({}, { typ: 'txntoken+jwt' }), 'workload_token_type_wrong'],
    ['with the typ of a WIT', token({}, { typ: 'wit+jwt' }), 'workload_token_type_wrong'],
    ['with typ null', token({}, { typ: null }), 'workload_token_type_wrong'],

    ['with alg none', token({}, { alg: 'none' }), 'workload_token_algorithm_refused'],
    ['with alg HS256', token({}, { alg: 'HS256' }), 'workload_token_algorithm_refused'],
    ['with an algorithm of another source', token({}, { alg: 'RS256' }), 'workload_token_algorithm_refused'],
    ...['jwk', 'jku', 'x5u', 'x5c', 'crit', 'b64', 'zip', 'enc'].map(
      (name) => [`with the header ${name}`, token({}, { [name]: 'x' }), 'workload_token_header_refused'] as const,
    ),

    ['of an unknown issuer', token({ iss: 'https://other.example' }), 'workload_token_issuer_unknown'],
    ['of a task issuer', signToken(issuerKey, { ...workloadClaims(), iss: ISSUER }), 'workload_token_issuer_unknown'],
    ['without iss', token({ iss: undefined }), 'workload_token_issuer_unknown'],
    ['with iss __proto__', token({ iss: '__proto__' }), 'workload_token_issuer_unknown'],
    ['with an unknown kid', token({}, { kid: 'workload-2' }), 'workload_token_key_unknown'],
    ['without kid', token({}, { kid: undefined }), 'workload_token_key_unknown'],
    ['signed by a source of another kind', signToken(operatorKey, workloadClaims()), 'workload_token_key_unknown'],
    [
      'signed by another key of that name',
      signToken(makeKey('workload-1'), workloadClaims()),
      'workload_token_signature_invalid',
    ],

    ['for another audience', token({ aud: 'https://other.example' }), 'workload_token_audience_wrong'],
    ['for two audiences', token({ aud: [AUDIENCE, 'https://other.example'] }), 'workload_token_audience_wrong'],
    ['for nobody', token({ aud: undefined }), 'workload_token_audience_wrong'],
    ['expired 5 s ago', token({ exp: SECONDS - 5 }), 'workload_token_expired'],
    ['from 31 s ahead', token({ iat: SECONDS + 31 }), 'workload_token_not_yet_valid'],
    ['valid from 31 s on', token({ nbf: SECONDS + 31 }), 'workload_token_not_yet_valid'],

    ['without exp', token({ exp: undefined }), 'workload_token_invalid'],
    ['with exp as a text', token({ exp: String(SECONDS + 60) }), 'workload_token_invalid'],
    ['with exp beyond the year 9999', token({ exp: 253402300800 }), 'workload_token_invalid'],
    ['with nbf as a text', token({ nbf: '0' }), 'workload_token_invalid'],
    ['without sub', token({ sub: undefined }), 'workload_token_invalid'],
    ['with an empty sub', token({ sub: '' }), 'workload_token_invalid'],
    ['with sub as a list', token({ sub: [AGENT] }), 'workload_token_invalid'],
    ['with a line break in sub', token({ sub: `${AGENT}\n` }), 'workload_token_invalid'],

    ['bound to what is no key', token({ cnf: { jkt: 'x' } }), 'key_binding_unsupported'],
    [
      'bound to a certificate, over a connection without one',
      token({ cnf: { 'x5t#S256': JKT } }),
      'certificate_missing',
    ],
    ['bound to a key and a certificate', token({ cnf: { jkt: JKT, 'x5t#S256': JKT } }), 'key_binding_unsupported'],
    ['bound to a key, as one that is not (RFC 9449 §7)', token({ cnf: { jkt: JKT } }), 'workload_token_bound'],
    ['with cnf null', token({ cnf: null }), 'key_binding_unsupported'],
  ])('%s', async (_name, text, code) => {
    expect(await bearer(text)).toBe(code);
  });

  it('is the workload of its source, until its own end', async () => {
    expect(await believe(identity, `Bearer ${token()}`, context)).toStrictEqual({
      kind: 'workload',
      workload: { source: 'idp', subject: AGENT },
      keyThumbprint: null,
      instance: null,
      expiresAt: new Date(NOW.getTime() + 600_000),
    });
  });

  it('is refused with 401', async () => {
    const error: unknown = await believe(identity, 'Bearer x', context).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ status: 401 });
  });

  it('is refused when two sources have one issuer, of one kind or of two', async () => {
    const [source] = trust.workloadSources;
    const [people] = trust.operators;
    if (!source || !people) throw new Error('no source');
    const twice = { ...trust, workloadSources: [source, { ...source, name: 'other' }] };
    const mixed = { ...trust, operators: [{ ...people, issuer: SOURCE }] };
    for (const confused of [twice, mixed]) {
      expect(await refusal(believe(identity, `Bearer ${token()}`, { ...context, trust: confused }))).toBe(
        'workload_token_issuer_unknown',
      );
    }
  });
});

describe('an operator’s token', () => {
  const operator = (claims: Change = {}) =>
    believe(identity, `Bearer ${signToken(operatorKey, { ...operatorClaims(), ...claims })}`, context);

  it('is none of an operator for whom another acts', async () => {
    expect(await refusal(operator({ groups: ['sre'], act: { sub: 'a-service' } }))).toBe('workload_token_invalid');
  });

  it('is an operator with the roles of its claim', async () => {
    expect(await operator({ groups: ['sre', 'audit', 'staff', 7, null] })).toStrictEqual({
      kind: 'operator',
      operator: 'people:ana',
      roles: ['viewer', 'operator', 'auditor'],
      groups: [],
      expiresAt: new Date(NOW.getTime() + 600_000),
    });
    expect(await operator({ groups: 'audit' })).toMatchObject({ roles: ['auditor'] });
  });

  it.each([
    ['no claim', { groups: undefined }],
    ['values without a role', { groups: ['staff'] }],
    ['a value that every object has', { groups: ['constructor', '__proto__', 'toString'] }],
    ['a list in a list', { groups: [['sre']] }],
    ['an object', { groups: { sre: true } }],
  ])('gives nothing with %s', async (_name, claims) => {
    const error: unknown = await operator(claims).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(MayflyError);
    expect(error).toMatchObject({ code: 'operator_only', status: 403 });
  });

  it('cannot be made by a workload source that claims the group', async () => {
    const caller = await believe(identity, `Bearer ${token({ groups: ['sre'] })}`, context);
    expect(caller.kind).toBe('workload');
    expect(await bearer(token({ iss: OPERATORS, groups: ['sre'] }))).toBe('workload_token_key_unknown');
  });
});
