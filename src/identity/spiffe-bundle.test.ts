import { existsSync, readFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { readCertificate } from './certificates/certificate.ts';
import { FRESH_MS } from './remote-keys.ts';
import { MAX_REFRESH_MS, MIN_REFRESH_MS, readSpiffeBundle } from './spiffe-bundle.ts';
import { type KeyHarness, openKeys } from './testing/key-harness.ts';
import { makeKey, signToken, type TestKey } from './testing/keys.ts';
import { issue, makeAuthority, type TestCertificate } from './testing/svids.ts';
import { AUDIENCE, believe, refusal, SECONDS } from './testing/trust.ts';
import { vetKeys } from './vet-keys.ts';

/** go-spiffe's bundles (Apache-2.0). */
const folder = new URL('../../../shared/vectors/spiffe/bundle/', import.meta.url);
const there = existsSync(folder);
if (!there && process.env['CI'] === 'true') throw new Error(`the SPIFFE vectors are missing: ${folder.pathname}`);
if (!there) console.warn('SKIPPED: the SPIFFE vectors are not beside the repository');

describe.skipIf(!there)('go-spiffe’s vectors', () => {
  const read = (path: string) => readSpiffeBundle(JSON.parse(readFileSync(new URL(path, folder), 'utf8')));
  /** How many keys for JWT-SVIDs can really be used. */
  const usable = (path: string): number =>
    vetKeys(read(path).jwks, ['ES256', 'RS256'], (_kid, reason) => {
      throw new Error(reason);
    }).size;

  it('valid bundles hold as many keys for JWT-SVIDs as they should, and no others', () => {
    expect(usable('spiffebundle/spiffebundle_valid_1.json')).toBe(1);
    expect(usable('spiffebundle/spiffebundle_valid_2.json')).toBe(6);
    expect(usable('spiffebundle/spiffebundle_valid_with_wit.json')).toBe(2);
    expect(read('spiffebundle/spiffebundle_valid_2.json')).toMatchObject({ sequence: 1, freshMs: 60_000 });
  });

  it.each(['valid_1', 'valid_2', 'valid_with_wit'])('%s holds one authority for X.509-SVIDs, which is one', (name) => {
    const authorities = read(`spiffebundle/spiffebundle_${name}.json`).authorities.map(readCertificate);
    expect(authorities).toMatchObject([{ isAuthority: true, uris: [expect.stringMatching(/^spiffe:\/\//)] }]);
  });

  it.each([
    ['spiffebundle/spiffebundle_missing_kid.json', 'a jwt-svid entry has no kid'],
    ['spiffebundle/spiffebundle_multiple_x509.json', 'an x509-svid entry has not exactly one certificate'],
    ['spiffebundle/spiffebundle_no_keys.json', 'not a SPIFFE bundle'],
  ])('%s is refused', (path, message) => {
    expect(() => read(path)).toThrow(message);
  });

  it('a plain JWKS has no key for JWT-SVIDs', () => {
    expect(usable('jwtbundle/jwks_valid_1.json')).toBe(0);
    expect(usable('jwtbundle/jwks_valid_2.json')).toBe(0);
    expect(usable('jwtbundle/jwks_missing_kid.json')).toBe(0);
  });
});

describe('a bundle', () => {
  it.each([
    null,
    [],
    'text',
    { keys: {} },
    { keys: [7] },
    { keys: [], spiffe_sequence: -1 },
    { keys: [], spiffe_sequence: '1' },
  ])('is not %j', (document) => {
    expect(() => readSpiffeBundle(document)).toThrow('not a SPIFFE bundle');
  });

  it.each([
    [0, MIN_REFRESH_MS],
    [9, MIN_REFRESH_MS],
    [60, 60_000],
    [86_400, MAX_REFRESH_MS],
  ])('that wants to be looked at every %d s is, within bounds', (hint, freshMs) => {
    expect(readSpiffeBundle({ keys: [], spiffe_refresh_hint: hint }).freshMs).toBe(freshMs);
  });
});

describe('a bundle by URL', () => {
  const first = makeKey('first');
  const second = makeKey('second');
  let keys: KeyHarness;
  let serial = 0;
  beforeEach(async () => {
    keys = await openKeys();
  });
  afterEach(() => keys.close());

  const serve = (members: object, ...given: readonly TestKey[]): void =>
    keys.server.answer((_request, response) => {
      const entries = given.map(({ jwk }) => ({ ...jwk, use: 'jwt-svid', alg: undefined }));
      response.end(JSON.stringify({ keys: entries, ...members }));
    });
  const ask = (key: TestKey): Promise<string> => {
    const { context, trust } = keys.trusting();
    const source = {
      ...({ kind: 'spiffe-jwt', name: 'prod', dev: true, issuer: 'spiffe://prod.example' } as const),
      ...{ trustDomain: 'prod.example', jwks: { url: keys.server.url }, algorithms: ['ES256'] },
    };
    serial += 1;
    const claims = { aud: AUDIENCE, sub: 'spiffe://prod.example/agent', exp: SECONDS + 60, jti: String(serial) };
    const ours = { ...context, trust: { ...trust, workloadSources: [source] } };
    return refusal(believe(keys.identity, `Bearer ${signToken(key, claims)}`, ours));
  };

  it('is looked at again as often as it says', async () => {
    serve({ spiffe_refresh_hint: 20 }, first);
    expect(await ask(first)).toBe('accepted');
    keys.time.ms = 19_999;
    expect(await ask(first)).toBe('accepted');
    expect(keys.server.asked).toHaveLength(1);
    keys.time.ms = 20_000;
    serve({ spiffe_refresh_hint: 20 }, second);
    expect(await ask(first)).toBe('accepted');
    await vi.waitFor(async () => expect(await ask(first)).toBe('workload_token_key_unknown'));
  });

  it('that says nothing is looked at every five minutes', async () => {
    serve({}, first);
    await ask(first);
    keys.time.ms = FRESH_MS - 1;
    await ask(first);
    expect(keys.server.asked).toHaveLength(1);
    keys.time.ms = FRESH_MS;
    await ask(first);
    await vi.waitFor(() => expect(keys.server.asked).toHaveLength(2));
  });

  it('does not go back: an older one is a failure, and the newer one stays', async () => {
    serve({ spiffe_sequence: 7 }, second);
    expect(await ask(second)).toBe('accepted');
    serve({ spiffe_sequence: 6 }, first);
    expect(await ask(first)).toBe('keys_unavailable');
    expect(keys.failures()).toStrictEqual(['spiffe_sequence went back from 7 to 6']);
    expect(await ask(second)).toBe('accepted');
    keys.time.ms += 30_000;
    serve({ spiffe_sequence: 8 }, first);
    expect(await ask(first)).toBe('accepted');
    expect(await ask(second)).toBe('workload_token_key_unknown');
  });

  it('that is empty ends the whole domain, and one without keys at all is no word of the domain', async () => {
    serve({}, first);
    expect(await ask(first)).toBe('accepted');
    keys.server.answer((_request, response) => void response.end('{"spiffe_sequence":9}'));
    keys.time.ms += FRESH_MS;
    expect(await ask(first)).toBe('accepted');
    await vi.waitFor(() => expect(keys.failures()).toStrictEqual(['not a SPIFFE bundle']));
    expect(await ask(first)).toBe('accepted');
    serve({});
    keys.time.ms += FRESH_MS;
    await ask(first);
    await vi.waitFor(async () => expect(await ask(first)).toBe('workload_token_key_unknown'));
  });

  it('with another authority is looked for once where a certificate leads to none of those known', async () => {
    const [one, other] = [makeAuthority(), makeAuthority()];
    const serveOne = ({ entry }: TestCertificate): void =>
      keys.server.answer((_request, response) => void response.end(JSON.stringify({ keys: [entry] })));
    const { context, trust } = keys.trusting();
    const prod = {
      ...({ kind: 'spiffe-x509', name: 'prod', dev: true, issuer: 'spiffe://prod.example' } as const),
      ...{ trustDomain: 'prod.example', jwks: { url: keys.server.url }, algorithms: [] },
    };
    const under = { ...context, trust: { ...trust, workloadSources: [prod] } };
    const show = ({ x509 }: TestCertificate): Promise<string> => {
      const presented = { authorization: undefined, proofs: [], method: 'GET', path: '/', certificates: [x509] };
      return refusal(keys.identity.authenticate(presented, under));
    };
    const connected = issue(one);
    serveOne(one);
    expect(await show(connected)).toBe('accepted');
    serveOne(other);
    expect(await Promise.all([other, other, makeAuthority()].map((by) => show(issue(by))))).toEqual([
      'accepted',
      'accepted',
      'certificate_untrusted',
    ]);
    expect(await show(connected)).toBe('certificate_untrusted');
    expect(keys.server.asked).toHaveLength(2);
    keys.time.ms += 30_000;
    keys.server.answer((_request, response) => void response.writeHead(503).end());
    expect(await show(issue(one))).toBe('keys_unavailable');
    expect(await show(issue(other))).toBe('accepted');
  });
});
