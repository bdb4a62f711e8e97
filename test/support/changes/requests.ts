import { createHmac } from 'node:crypto';
import { forge } from '../forge.ts';
import { open, READ, refused, refuses, request, type Send } from '../refusals.ts';

const now = () => Math.floor(Date.now() / 1000);

export const rightRequest = request(() => {});

/** One right task request, each time with one thing changed. */
export function refuseChangedRequests(): void {
  const claims = (members: object): Send => request(({ claims: all }) => void Object.assign(all, members));
  const header = (members: object): Send => request(({ header: all }) => void Object.assign(all, members));
  const stated = (members: object): Send =>
    request(({ claims: all }) => void Object.assign(Object(all['task']), members));
  const detail = (members: object): Send =>
    claims({ authorization_details: [{ type: 'mayfly', entitlements: [READ], ...members }] });
  const times = (change: (iat: number) => object): Send =>
    request(({ claims: all }) => void Object.assign(all, change(now())));
  const spelled = (spell: (text: string) => string): Send => request((draft) => void (draft.spell = spell));
  const payload = (write: (claims: Record<string, unknown>) => string): Send =>
    request((draft) => void (draft.payload = write(draft.claims)));

  refuses(400, 'request_malformed', {
    'no JWS': open({ request: 'not.a.jws!' }),
    'four parts': spelled((text) => `${text}.x`),
    padding: spelled((text) => `${text}==`),
    'a line break': spelled((text) => `${text}\n`),
    'no signature': spelled((text) => text.replace(/[^.]*$/, '')),
    '17 kB': claims({ txn: 'x'.repeat(17_000) }),
    'a payload that is a list': payload(() => '[]'),
    'NUL in a claim': payload((all) => JSON.stringify({ ...all, sub: 'a\0b' })),
    'half a surrogate pair': payload((all) => JSON.stringify({ ...all, sub: '\ud800' })),
  });
  refuses(400, 'duplicate_member', {
    'a claim twice': payload((all) => JSON.stringify(all).replace('{', '{"aud":"x",')),
  });
  refuses(401, 'request_type_wrong', {
    'the type of a token': header({ typ: 'JWT' }),
    'the type of an event': header({ typ: 'agent-task-event+jwt' }),
    'no type': header({ typ: undefined }),
    'a workload token instead': async () => await open({ request: refused().token })(),
  });
  refuses(401, 'request_algorithm_refused', {
    'no algorithm': header({ alg: 'none' }),
    'a shared secret': spelled(withSharedSecret),
    'an algorithm that is not allowed': header({ alg: 'ES512' }),
  });
  refuses(401, 'request_issuer_unknown', {
    'an unknown issuer': claims({ iss: 'https://evil.example' }),
    'an issuer that is an object': claims({ iss: {} }),
  });
  refuses(401, 'request_header_refused', {
    'a key of its own': header({ jwk: { kty: 'EC' } }),
    'a place of a key': header({ jku: 'https://evil.example/jwks' }),
    'something critical': header({ crit: ['b64'], b64: false }),
  });
  refuses(401, 'request_key_unknown', {
    'an unknown key': header({ kid: 'another' }),
    'no key': header({ kid: undefined }),
  });
  refuses(401, 'request_signature_invalid', {
    'another’s signature': async () => {
      const { house } = refused();
      return await open({ request: forge(house.devDir, 'workloads', await house.sign(), () => {}) })();
    },
    'another payload': spelled((text) => {
      const [head = '', body = '', signature = ''] = text.split('.');
      const changed = Buffer.from(body, 'base64url').toString().replace('"execute"', '"closing"').replace(READ, 'x/y');
      return [head, Buffer.from(changed).toString('base64url'), signature].join('.');
    }),
  });
  refuses(401, 'request_audience_wrong', {
    'another audience': claims({ aud: 'https://another.example' }),
    'ours with a slash': request(({ claims: all }) => void (all['aud'] = `${String(all['aud'])}/`)),
    'two audiences': request(({ claims: all }) => void (all['aud'] = [all['aud'], 'x'])),
    'no audience': claims({ aud: undefined }),
  });
  refuses(401, 'request_expired', { 'one that has expired': times((iat) => ({ iat: iat - 200, exp: iat - 6 })) });
  refuses(401, 'request_not_yet_valid', {
    'one from the future': times((iat) => ({ iat: iat + 60, exp: iat + 120 })),
    'one for later': times((iat) => ({ nbf: iat + 60 })),
  });
  refuses(401, 'request_lifetime_too_long', { 'one that lives too long': times((iat) => ({ iat, exp: iat + 301 })) });
  refuses(401, 'request_deadline_past', { 'a task that is over': stated({ not_after: now() - 1 }) });
  refuses(400, 'request_claims_invalid', {
    'a key to seal to that is none': [claims({ delivery_jkt: 'x' }), '$.delivery_jkt'],
    'a key to seal to, in another place': [claims({ x: { delivery_jkt: 'A'.repeat(43) } }), '$.delivery_jkt'],
    'no times': [claims({ exp: undefined, iat: undefined }), '$.iat', '$.exp'],
    'times in text': [claims({ exp: '2030-01-01' }), '$.exp'],
    'times in fractions': [times((iat) => ({ iat: iat + 0.5 })), '$.iat'],
    'times beyond all': [claims({ exp: 1e300 }), '$.exp'],
    'an end before the beginning': [times((iat) => ({ exp: iat - 1 })), '$.exp'],
    'no jti': [claims({ jti: undefined }), '$.jti'],
    'a jti without end': [claims({ jti: 'j'.repeat(201) }), '$.jti'],
    'a line break in a name': [claims({ sub: 'user\nadmin' }), '$.sub'],
    'writing that turns around': [claims({ sub: 'user\u202e' }), '$.sub'],
    'nobody who acts': [claims({ act: undefined }), '$.act'],
    'a member of `task` that is not known': [stated({ priority: 1 }), '$.task'],
    'a deadline in text': [stated({ not_after: 'tomorrow' }), '$.task.not_after'],
    'a depth below zero': [stated({ max_depth: -1 }), '$.task.max_depth'],
  });
  refuses(400, 'invalid_authorization_details', {
    'no details': claims({ authorization_details: undefined }),
    'no entry': claims({ authorization_details: [] }),
    'two entries': request(({ claims: all }) => {
      const details = all['authorization_details'];
      all['authorization_details'] = Array.isArray(details) ? [...details, ...details] : [];
    }),
    'an entry of another kind': detail({ type: 'openid' }),
    'a member too many': detail({ all: true }),
    'nothing to ask for': detail({ entitlements: [] }),
    'a wildcard': detail({ entitlements: ['ledger-db/*'] }),
    'a longest life of nothing': detail({ max_ttl_seconds: 0 }),
    'a longest life in text': detail({ max_ttl_seconds: '5m' }),
    'params in params': detail({ params: { a: { b: 1 } } }),
    'a param called __proto__': payload((all) =>
      JSON.stringify({
        ...all,
        authorization_details: [{ type: 'mayfly', entitlements: [READ], params: { x: 1 } }],
      }).replace('"x":1', '"__proto__":1'),
    ),
  });
  refuses(400, 'key_binding_unsupported', {
    'a key of the agent': claims({ cnf: { jkt: 'x' } }),
    'a key of the agent, inside': claims({ act: { sub: 'agent-recon', cnf: { jkt: 'x' } } }),
    'a key that is none': claims({ cnf: null }),
  });
  refuses(403, 'issuer_may_not_state', {
    'a purpose that is not the issuer’s': stated({ purpose: 'rule.the-world' }),
    'a phase that there is not': stated({ phase: 'afterwards' }),
    'a workload that is not on its list': claims({ act: { sub: 'agent-else' } }),
    'an agent on its own behalf': claims({ sub: 'agent-recon' }),
  });
  refuses(403, 'workload_not_named', { 'one for another workload': claims({ act: { sub: 'agent-support' } }) });
}

function withSharedSecret(text: string): string {
  const [head = '', body = ''] = text.split('.');
  const header = { ...JSON.parse(Buffer.from(head, 'base64url').toString()), alg: 'HS256' };
  const input = `${Buffer.from(JSON.stringify(header)).toString('base64url')}.${body}`;
  return `${input}.${createHmac('sha256', 'the public key').update(input).digest('base64url')}`;
}
