import { createHmac, createPublicKey } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { MAX_COMPACT_CHARS } from './compact-jws.ts';
import { createIdentity } from './index.ts';
import { type Case, changed, json, parts, payload, strayBit } from './testing/drafts.ts';
import { makeKey } from './testing/keys.ts';
import { ISSUER, makeTrust, refusal, SOURCE } from './testing/trust.ts';

const { context, issuerKey, workloadKey } = makeTrust();
const identity = createIdentity();

/** Single changes to one valid request, by the code that must answer: grammar, header, issuer, key, signature. */
const refused: Readonly<Record<string, readonly Case[]>> = {
  request_malformed: [
    ['empty', (r) => (r.spell = () => '')],
    ['two parts', (r) => (r.spell = (token) => token.slice(0, token.lastIndexOf('.')))],
    ['four parts', (r) => (r.spell = (token) => `${token}.AAAA`)],
    ['an empty signature', (r) => (r.spell = (token) => token.slice(0, token.lastIndexOf('.') + 1))],
    ['an empty payload (detached)', (r) => (r.spell = (token) => parts(token, (h, _b, s) => `${h}..${s}`))],
    ['padding', (r) => (r.spell = (token) => `${token}==`)],
    ['a space before it', (r) => (r.spell = (token) => ` ${token}`)],
    ['a line break after it', (r) => (r.spell = (token) => `${token}\n`)],
    ['a space inside a part', (r) => (r.spell = (token) => `${token.slice(0, 10)} ${token.slice(10)}`)],
    ['the alphabet of plain base64', (r) => (r.spell = (token) => `${token.slice(0, -1)}+`)],
    [
      'stray bits in the signature',
      (r) => (r.spell = (token) => parts(token, (h, b, s) => `${h}.${b}.${strayBit(s)}`)),
    ],
    ['one base64url character too many', (r) => (r.spell = (token) => parts(token, (h, b, s) => `${h}.${b}.${s}AAA`))],
    ['16 KiB and one character', (r) => (r.claims['pad'] = 'x'.repeat(MAX_COMPACT_CHARS))],
    ['a JSON form instead of the compact one', (r) => (r.spell = (token) => JSON.stringify({ payload: token }))],
    ['a header that is not JSON', (r) => (r.headerText = 'alg=ES256')],
    ['a header that is a list', (r) => (r.headerText = '["ES256"]')],
    ['a header that is null', (r) => (r.headerText = 'null')],
    ['a payload that is not JSON', (r) => (r.payloadText = 'foo')],
    ['a payload that is a text', (r) => (r.payloadText = '"foo"')],
    ['a payload that is not UTF-8', (r) => (r.payloadText = Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]))],
    ['a payload with overlong UTF-8', (r) => (r.payloadText = Buffer.from([0x22, 0xc0, 0xaf, 0x22]))],
    ['a byte order mark before the payload', (r) => (r.payloadText = `\ufeff${JSON.stringify(r.claims)}`)],
    ['NUL in a claim', (r) => (r.claims.jti = 'a\0b')],
    ['half a surrogate pair in a claim', (r) => payload(r, '"request-1"', String.raw`"\ud800"`)],
    ['a claim nested 100 deep', (r) => payload(r, '"txn":', `"x":${'['.repeat(100)}${']'.repeat(100)},"txn":`)],
  ],
  duplicate_member: [
    ['alg twice', (r) => (r.headerText = '{"alg":"ES256","typ":"agent-task+jwt","kid":"issuer-1","alg":"ES256"}')],
    [
      'kid twice, once escaped',
      (r) => (r.headerText = String.raw`{"alg":"ES256","typ":"agent-task+jwt","kid":"issuer-1","\u006bid":"x"}`),
    ],
    ['iss twice', (r) => payload(r, '"aud":', `"iss":"${ISSUER}","aud":`)],
    ['purpose twice inside task', (r) => payload(r, '"purpose":', '"purpose":"reconcile.invoices","purpose":')],
    [
      'entitlements twice inside a list',
      (r) => payload(r, '"entitlements":', '"entitlements":["ledger-db/all"],"entitlements":'),
    ],
    ['a name twice in an unknown claim', (r) => payload(r, '"txn":', '"x":{"a":1,"a":1},"txn":')],
  ],
  request_type_wrong: [
    ['no typ', (r) => delete r.header['typ']],
    ['typ JWT', (r) => (r.header['typ'] = 'JWT')],
    ['typ of an event', (r) => (r.header['typ'] = 'agent-task-event+jwt')],
    ['typ of a delegation', (r) => (r.header['typ'] = 'agent-delegation+jwt')],
    ['typ in capitals', (r) => (r.header['typ'] = 'AGENT-TASK+JWT')],
    ['typ with application/', (r) => (r.header['typ'] = 'application/agent-task+jwt')],
    ['typ as a list', (r) => (r.header['typ'] = ['agent-task+jwt'])],
  ],
  request_issuer_unknown: [
    ['another issuer', (r) => (r.claims.iss = 'https://other.example')],
    ['the issuer with a slash', (r) => (r.claims.iss = `${ISSUER}/`)],
    [
      'a workload source as issuer',
      (r) => {
        r.claims.iss = SOURCE;
        r.key = workloadKey;
        r.header['kid'] = 'workload-1';
      },
    ],
    ['no iss', (r) => Reflect.deleteProperty(r.claims, 'iss')],
    ['iss as a list', (r) => Object.assign(r.claims, { iss: [ISSUER] })],
  ],
  request_algorithm_refused: [
    ['alg none', (r) => (r.header['alg'] = 'none')],
    ['alg HS256', (r) => (r.header['alg'] = 'HS256')],
    [
      'HS256 keyed with the public key (alg confusion)',
      (r) => {
        r.header['alg'] = 'HS256';
        r.spell = (token) =>
          parts(token, (h, b) => {
            const pem = createPublicKey(issuerKey.privateKey).export({ type: 'spki', format: 'pem' });
            return `${h}.${b}.${createHmac('sha256', pem).update(`${h}.${b}`).digest('base64url')}`;
          });
      },
    ],
    ['an algorithm that this issuer may not use', (r) => (r.header['alg'] = 'ES384')],
    ['an allowed algorithm that is not this key’s', (r) => (r.header['alg'] = 'RS256')],
    [
      'an algorithm off the list, before any key is looked for',
      (r) => Object.assign(r.header, { alg: 'HS256', kid: 'x' }),
    ],
    ['alg in small letters', (r) => (r.header['alg'] = 'es256')],
    ['no alg', (r) => delete r.header['alg']],
    ['alg as a number', (r) => (r.header['alg'] = 256)],
  ],
  request_header_refused: [
    ['jwk', (r) => (r.header['jwk'] = r.key.jwk)],
    ['jku', (r) => (r.header['jku'] = 'https://evil.example/jwks')],
    ['x5u', (r) => (r.header['x5u'] = 'https://evil.example/cert')],
    ['x5c', (r) => (r.header['x5c'] = ['MIIB'])],
    ['crit', (r) => (r.header['crit'] = ['exp'])],
    ['b64', (r) => (r.header['b64'] = true)],
    ['x5t', (r) => (r.header['x5t'] = 'AAAA')],
    ['cty', (r) => (r.header['cty'] = 'JWT')],
    ['__proto__', (r) => (r.headerText = '{"alg":"ES256","typ":"agent-task+jwt","kid":"issuer-1","__proto__":{}}')],
  ],
  request_key_unknown: [
    ['an unknown kid', (r) => (r.header['kid'] = 'issuer-2')],
    [
      'the kid of another source',
      (r) => {
        r.header['kid'] = 'workload-1';
        r.key = workloadKey;
      },
    ],
    ['no kid', (r) => delete r.header['kid']],
    ['an empty kid', (r) => (r.header['kid'] = '')],
    ['kid as a number', (r) => (r.header['kid'] = 1)],
    ['kid __proto__', (r) => (r.header['kid'] = '__proto__')],
  ],
  request_signature_invalid: [
    ['another key under the same kid', (r) => (r.key = { ...makeKey('issuer-1') })],
    [
      'a payload that was changed after signing',
      (r) =>
        (r.spell = (token) =>
          parts(token, (h, b, s) => {
            const text = json(Buffer.from(b, 'base64url').toString(), 'read-invoices', 'all-invoices.');
            return `${h}.${Buffer.from(text).toString('base64url')}.${s}`;
          })),
    ],
    [
      'a header that was changed after signing',
      (r) =>
        (r.spell = (token) =>
          parts(
            token,
            (_h, b, s) =>
              `${Buffer.from('{"typ":"agent-task+jwt","alg":"ES256","kid":"issuer-1"}').toString('base64url')}.${b}.${s}`,
          )),
    ],
    [
      'a signature in DER',
      (r) => (r.spell = (token) => parts(token, (h, b) => `${h}.${b}.${Buffer.alloc(70, 0x30).toString('base64url')}`)),
    ],
    [
      'a signature of zeros',
      (r) => (r.spell = (token) => parts(token, (h, b) => `${h}.${b}.${Buffer.alloc(64).toString('base64url')}`)),
    ],
    [
      'half a signature',
      (r) =>
        (r.spell = (token) =>
          parts(token, (h, b, s) => `${h}.${b}.${Buffer.from(s, 'base64url').subarray(0, 32).toString('base64url')}`)),
    ],
  ],
};

describe('a task request whose envelope is wrong', () => {
  const cases = Object.entries(refused).flatMap(([code, list]) =>
    list.map(([name, change]) => ({ code, name, change })),
  );

  it.each(cases)('$code: $name', async ({ code, change }) => {
    expect(await refusal(identity.verifyTaskRequest(changed(issuerKey, change), context))).toBe(code);
  });

  it('is accepted at its longest, and refused one character longer', async () => {
    const padded = (length: number) => changed(issuerKey, (r) => (r.claims['pad'] = 'x'.repeat(length)));
    // Three bytes are four characters, so the limit itself may not be reachable: take the last that fits.
    let fits = 11_000;
    while (padded(fits + 1).length <= MAX_COMPACT_CHARS) fits++;
    expect(padded(fits).length).toBeGreaterThan(MAX_COMPACT_CHARS - 3);
    expect(await refusal(identity.verifyTaskRequest(padded(fits), context))).toBe('accepted');
    expect(await refusal(identity.verifyTaskRequest(padded(fits + 1), context))).toBe('request_malformed');
  });
});
