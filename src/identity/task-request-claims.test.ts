import { describe, expect, it } from 'vitest';
import { createIdentity } from './index.ts';
import { type Case, changed, details, payload, task } from './testing/drafts.ts';
import { AGENT, AUDIENCE, makeTrust, refusal, SECONDS, SOURCE, taskClaims } from './testing/trust.ts';

const { context, issuerKey } = makeTrust();
const identity = createIdentity();

/** Single changes to one valid, well signed request, by the code that must answer. */
const refused: Readonly<Record<string, readonly Case[]>> = {
  request_audience_wrong: [
    ['another audience', (r) => (r.claims.aud = 'https://other.example')],
    ['our name with a slash', (r) => (r.claims.aud = `${AUDIENCE}/`)],
    ['two audiences', (r) => Object.assign(r.claims, { aud: [AUDIENCE, 'https://other.example'] })],
    ['ours twice', (r) => Object.assign(r.claims, { aud: [AUDIENCE, AUDIENCE] })],
    ['an empty list', (r) => Object.assign(r.claims, { aud: [] })],
    ['a list in a list', (r) => Object.assign(r.claims, { aud: [[AUDIENCE]] })],
    ['no audience', (r) => Reflect.deleteProperty(r.claims, 'aud')],
  ],
  request_not_yet_valid: [
    [
      'iat 31 s ahead',
      (r) => {
        r.claims.iat = SECONDS + 31;
      },
    ],
    ['nbf 31 s ahead', (r) => (r.claims['nbf'] = SECONDS + 31)],
  ],
  request_lifetime_too_long: [
    ['a life of 301 s', (r) => (r.claims.exp = SECONDS + 301)],
    ['an exp in the far future', (r) => (r.claims.exp = 253402300799)],
  ],
  request_expired: [
    [
      'exp 5 s ago',
      (r) => {
        r.claims.iat = SECONDS - 100;
        r.claims.exp = SECONDS - 5;
      },
    ],
    [
      'exp an hour ago',
      (r) => {
        r.claims.iat = SECONDS - 3700;
        r.claims.exp = SECONDS - 3600;
      },
    ],
  ],
  request_claims_invalid: [
    ['delivery_jkt that is no thumbprint', (r) => (r.claims['delivery_jkt'] = 'x')],
    ['delivery_jkt as a list', (r) => (r.claims['delivery_jkt'] = ['A'.repeat(43)])],
    ['delivery_jkt null', (r) => (r.claims['delivery_jkt'] = null)],
    ['delivery_jkt inside task', (r) => task(r, { delivery_jkt: 'A'.repeat(43) })],
    ['delivery_jkt inside an unknown claim', (r) => (r.claims['x'] = [{ delivery_jkt: 'A'.repeat(43) }])],
    ['no iat', (r) => Reflect.deleteProperty(r.claims, 'iat')],
    ['no exp', (r) => Reflect.deleteProperty(r.claims, 'exp')],
    ['exp equal to iat', (r) => (r.claims.exp = SECONDS)],
    ['exp before iat', (r) => (r.claims.exp = SECONDS - 1)],
    ['iat as a text', (r) => Object.assign(r.claims, { iat: String(SECONDS) })],
    ['iat negative', (r) => (r.claims.iat = -1)],
    ['exp with a fraction', (r) => (r.claims.exp = SECONDS + 0.5)],
    ['exp 1e308', (r) => payload(r, `"exp":${SECONDS + 120}`, '"exp":1e308')],
    ['exp beyond 2^53', (r) => payload(r, `"exp":${SECONDS + 120}`, '"exp":9007199254740993')],
    ['exp that overflows to infinity', (r) => payload(r, `"exp":${SECONDS + 120}`, '"exp":1e999')],
    ['exp null', (r) => Object.assign(r.claims, { exp: null })],
    ['no jti', (r) => Reflect.deleteProperty(r.claims, 'jti')],
    ['an empty jti', (r) => (r.claims.jti = '')],
    ['a jti of 201 characters', (r) => (r.claims.jti = 'x'.repeat(201))],
    ['a jti with a line break', (r) => (r.claims.jti = 'a\nb')],
    ['jti as a number', (r) => Object.assign(r.claims, { jti: 7 })],
    ['txn as an object', (r) => Object.assign(r.claims, { txn: {} })],
    ['no sub', (r) => Reflect.deleteProperty(r.claims, 'sub')],
    ['sub with a zero-width space', (r) => (r.claims.sub = 'user:\u200bana')],
    ['no act', (r) => Reflect.deleteProperty(r.claims, 'act')],
    ['act without sub', (r) => Object.assign(r.claims, { act: {} })],
    ['act as a text', (r) => Object.assign(r.claims, { act: AGENT })],
    ['no task', (r) => Reflect.deleteProperty(r.claims, 'task')],
    ['an unknown field in task', (r) => task(r, { admin: true })],
    ['__proto__ in task', (r) => payload(r, '"task":{', '"task":{"__proto__":{},')],
    ['no task.id', (r) => Reflect.deleteProperty(r.claims.task, 'id')],
    ['an empty task.id', (r) => task(r, { id: '' })],
    ['a task.id of 201 characters', (r) => task(r, { id: 'x'.repeat(201) })],
    ['a task.id that turns the writing around', (r) => task(r, { id: 'run\u202e1174' })],
    ['no purpose', (r) => Reflect.deleteProperty(r.claims.task, 'purpose')],
    ['phase as null', (r) => task(r, { phase: null })],
    ['no not_after', (r) => Reflect.deleteProperty(r.claims.task, 'not_after')],
    ['not_after as RFC 3339', (r) => task(r, { not_after: '2026-11-22T13:00:00Z' })],
    ['not_after beyond the year 9999', (r) => task(r, { not_after: 253402300800 })],
    ['max_depth −1', (r) => task(r, { max_depth: -1 })],
    ['max_depth 17', (r) => task(r, { max_depth: 17 })],
    ['max_depth 1.5', (r) => task(r, { max_depth: 1.5 })],
    ['max_depth as a text', (r) => task(r, { max_depth: '1' })],
    ['intent_hash of another kind', (r) => task(r, { intent_hash: `md5:${'0'.repeat(32)}` })],
    ['intent_hash too short', (r) => task(r, { intent_hash: `sha-256:${'0'.repeat(63)}` })],
    ['intent_hash with stray bits', (r) => task(r, { intent_hash: `sha-256:${'A'.repeat(42)}B` })],
  ],
  key_binding_unsupported: [
    ['cnf', (r) => (r.claims['cnf'] = { jkt: 'x' })],
    ['cnf of another kind', (r) => (r.claims['cnf'] = { 'x5t#S256': 'A'.repeat(43) })],
    ['cnf of two kinds', (r) => (r.claims['cnf'] = { jkt: 'A'.repeat(43), 'x5t#S256': 'A'.repeat(43) })],
    ['cnf with stray bits', (r) => (r.claims['cnf'] = { jkt: `${'A'.repeat(42)}B` })],
    ['cnf null', (r) => (r.claims['cnf'] = null)],
    ['cnf inside act', (r) => Object.assign(r.claims.act, { cnf: { jkt: 'x' } })],
    ['cnf inside task', (r) => task(r, { cnf: {} })],
    ['cnf inside authorization_details', (r) => details(r, { cnf: {} })],
    ['cnf inside an unknown claim', (r) => (r.claims['x'] = [{ y: { cnf: 1 } }])],
  ],
  issuer_may_not_state: [
    ['a purpose that is not on its list', (r) => task(r, { purpose: 'delete.everything' })],
    ['a purpose with a space', (r) => task(r, { purpose: 'reconcile.invoices ' })],
    ['another workload', (r) => (r.claims.act.sub = 'spiffe://prod.example/agent/other')],
    ['the workload at another identity provider', (r) => Object.assign(r.claims.act, { iss: 'https://other.example' })],
    ['an autonomous task', (r) => (r.claims.sub = AGENT)],
  ],
  request_deadline_past: [
    ['not_after now', (r) => task(r, { not_after: SECONDS })],
    ['not_after 0', (r) => task(r, { not_after: 0 })],
  ],
  invalid_authorization_details: [
    ['none', (r) => Reflect.deleteProperty(r.claims, 'authorization_details')],
    ['an empty list', (r) => (r.claims.authorization_details = [])],
    [
      'an object instead of a list',
      (r) => Object.assign(r.claims, { authorization_details: r.claims.authorization_details[0] }),
    ],
    ['two entries', (r) => r.claims.authorization_details.push(...taskClaims().authorization_details)],
    [
      'a second entry of another type',
      (r) => Object.assign(r.claims.authorization_details, { 1: { type: 'payment' } }),
    ],
    ['another type', (r) => details(r, { type: 'payment' })],
    ['no type', (r) => details(r, { type: undefined })],
    ['an unknown field', (r) => details(r, { actions: ['write'] })],
    ['no entitlements', (r) => details(r, { entitlements: [] })],
    ['65 entitlements', (r) => details(r, { entitlements: Array.from({ length: 65 }, (_, n) => `db/e${n}`) })],
    ['an entitlement without a target', (r) => details(r, { entitlements: ['read-invoices'] })],
    ['an entitlement in capitals', (r) => details(r, { entitlements: ['Ledger-db/read-invoices'] })],
    ['a wildcard', (r) => details(r, { entitlements: ['ledger-db/*'] })],
    ['an entitlement with a line break', (r) => details(r, { entitlements: ['ledger-db/read-invoices\n'] })],
    ['an entitlement of 64 characters', (r) => details(r, { entitlements: [`db/${'x'.repeat(64)}`] })],
    ['entitlements as a text', (r) => details(r, { entitlements: 'ledger-db/read-invoices' })],
    ['a TTL of 0', (r) => details(r, { max_ttl_seconds: 0 })],
    ['a TTL of −1', (r) => details(r, { max_ttl_seconds: -1 })],
    ['a TTL of 86401', (r) => details(r, { max_ttl_seconds: 86_401 })],
    ['a TTL of "5m"', (r) => details(r, { max_ttl_seconds: '5m' })],
    ['a TTL of 1e308', (r) => payload(r, '"max_ttl_seconds":300', '"max_ttl_seconds":1e308')],
    ['params as a list', (r) => details(r, { params: ['acme'] })],
    ['a param that is an object', (r) => details(r, { params: { tenant: {} } })],
    ['a param that is null', (r) => details(r, { params: { tenant: null } })],
    ['a param with a fraction', (r) => details(r, { params: { tenant: 0.5 } })],
    ['a param beyond 2^53', (r) => payload(r, '"tenant":"acme"', '"tenant":9007199254740993')],
    ['a param with a strange name', (r) => details(r, { params: { 'a b': 1 } })],
    ['a param called __proto__', (r) => payload(r, '"tenant":"acme"', '"tenant":"acme","__proto__":1')],
    [
      '33 params',
      (r) => details(r, { params: Object.fromEntries(Array.from({ length: 33 }, (_, n) => [`p${n}`, n])) }),
    ],
  ],
};

const accepted: readonly Case[] = [
  ['nothing changed', () => undefined],
  ['an unknown claim', (r) => (r.claims['x'] = { y: [1] })],
  ['aud as a list of one', (r) => Object.assign(r.claims, { aud: [AUDIENCE] })],
  ['iat 30 s ahead', (r) => (r.claims.iat = SECONDS + 30)],
  [
    'exp 4 s ago',
    (r) => {
      r.claims.iat = SECONDS - 100;
      r.claims.exp = SECONDS - 4;
    },
  ],
  ['a life of 300 s', (r) => (r.claims.exp = SECONDS + 300)],
  ['nbf now', (r) => (r.claims['nbf'] = SECONDS)],
  ['no txn', (r) => Reflect.deleteProperty(r.claims, 'txn')],
  [
    'a task without what is optional',
    (r) =>
      (['phase', 'max_depth', 'intent_hash'] as const).forEach((name) => Reflect.deleteProperty(r.claims.task, name)),
  ],
  ['an intent_hash in base64url', (r) => task(r, { intent_hash: `sha-256:${'A'.repeat(43)}` })],
  ['max_depth 16', (r) => task(r, { max_depth: 16 })],
  ['act.iss that names the workload’s source', (r) => Object.assign(r.claims.act, { iss: SOURCE })],
  [
    'a nested act, which is history',
    (r) => Object.assign(r.claims.act, { act: { sub: 'spiffe://prod.example/agent/other' } }),
  ],
  ['params of every kind', (r) => details(r, { params: { a: 'x', b: -7, c: true } })],
  ['a jti of 200 characters beyond ASCII', (r) => (r.claims.jti = 'é'.repeat(200))],
];

describe('a well signed task request', () => {
  const cases = Object.entries(refused).flatMap(([code, list]) =>
    list.map(([name, change]) => ({ code, name, change })),
  );

  it.each(cases)('is refused, $code: $name', async ({ code, change }) => {
    expect(await refusal(identity.verifyTaskRequest(changed(issuerKey, change), context))).toBe(code);
  });

  it.each(accepted.map(([name, change]) => ({ name, change })))('is accepted: $name', async ({ change }) => {
    expect(await refusal(identity.verifyTaskRequest(changed(issuerKey, change), context))).toBe('accepted');
  });
});
