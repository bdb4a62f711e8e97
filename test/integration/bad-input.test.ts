import { describe, expect, test } from 'vitest';
import { problemCodes } from '../../src/domain/problems.ts';
import { ask, askRaw } from '../support/ask.ts';
import { call, issue, open, READ, refused, refuses, request, type Send, useRefusals } from '../support/refusals.ts';

useRefusals();

const MISSING = '019a0000-0000-7000-8000-000000000000';
const ofTask =
  (tail = '') =>
  () =>
    `/v1/tasks/${refused().task.id}${tail}`;
const ofGrant =
  (tail = '') =>
  () =>
    `/v1/grants/${refused().grant.id}${tail}`;

describe('bodies that are no JSON', () => {
  const body = `{"entitlement":"${READ}"}`;
  refuses(400, 'malformed_json', {
    'half an object': issue('{"entitlement":'),
    'something after the object': issue(`${body} x`),
    'single quotes': issue(`{'entitlement':'${READ}'}`),
    'a byte order mark': issue(`\ufeff${body}`),
    nothing: call('POST', ofTask('/grants')),
    'only white space': issue('  '),
    'bytes that are not UTF-8': issue(Buffer.from([0x22, 0xff, 0xfe, 0x22])),
    'half a surrogate pair in its bytes': issue(Buffer.from([0x22, 0xed, 0xa0, 0x80, 0x22])),
    'half a surrogate pair, escaped': issue(`{"entitlement":"${READ}","justification":"\\ud800"}`),
    'the other half': issue('{"entitlement":"\\udc00"}'),
    'half a pair in a name': issue('{"\\ud800":1}'),
    'NUL in a text': issue('{"entitlement":"a\\u0000b"}'),
    'NUL in a name': issue('{"a\\u0000":1}'),
    'a raw control character': issue('{"entitlement":"a\u0001"}'),
    'nesting without end': issue(`${'['.repeat(5_000)}${']'.repeat(5_000)}`),
  });
  refuses(400, 'duplicate_member', {
    'a member twice': issue(`{"entitlement":"${READ}","entitlement":"${READ}"}`),
    'a member twice, once escaped': issue(`{"entitlement":"${READ}","\\u0065ntitlement":"x"}`),
    'a member twice, deep inside': issue(`{"entitlement":"${READ}","context":{"a":{"b":1,"b":2}}}`),
    'a member twice that means nothing': open('{"request":"x","__proto__":1,"__proto__":2}'),
  });
});

describe('bodies that are too large', () => {
  const two = 2 * 1024 * 1024;
  const long = `{"entitlement":"${READ}","justification":"${'x'.repeat(two)}"}`;
  refuses(413, 'body_too_large', {
    '2 MB, said so': issue(long),
    '2 MB to open a task': open({ request: 'x'.repeat(two) }),
    '2 MB where a body means nothing': call('POST', ofTask('/complete'), { body: long }),
    '2 MB in chunks': issue(long, { 'transfer-encoding': 'chunked', 'content-length': [] }),
    '2 MB of zeros': issue(Buffer.alloc(two)),
    'just too much': issue(`${' '.repeat(64 * 1024)}{}`),
    '2 MB without a token': () => ask(refused().house.url, 'POST', '/v1/tasks', { body: long }),
  });
});

describe('media types', () => {
  const typed = (type: string | string[]): Send => issue({ entitlement: READ }, { 'content-type': type });
  refuses(415, 'unsupported_media_type', {
    'a form': typed('application/x-www-form-urlencoded'),
    text: typed('text/plain'),
    'JSON of another kind': typed('application/merge-patch+json'),
    'another character set': typed('application/json; charset=utf-16'),
    'no type': typed([]),
    compressed: issue({ entitlement: READ }, { 'content-encoding': 'gzip' }),
  });
  refuses(400, 'invalid_request', { 'two types': [typed(['application/json', 'text/plain']), 'content-type'] });
});

describe('methods and addresses', () => {
  refuses(405, 'method_not_allowed', {
    PUT: call('PUT', () => '/v1/tasks', { body: {} }),
    PATCH: call('PATCH', ofTask(), { body: {} }),
    'GET where one asks': call('GET', ofTask('/grants')),
    'GET that would end': call('GET', ofTask('/complete')),
    'DELETE of a task': call('DELETE', ofTask()),
    'POST to a grant': call('POST', ofGrant(), { body: {} }),
    OPTIONS: call('OPTIONS', ofTask()),
  });
  refuses(404, 'not_found', {
    'an address of nothing': call('GET', () => '/v1/nothing'),
    'a slash at the end': call('GET', ofTask('/')),
    'another case': call('GET', () => `/V1/tasks/${refused().task.id}`),
    'a way out': call('GET', () => `/v1/tasks/../tasks/${refused().task.id}`),
  });
  refuses(400, 'invalid_request', {
    'broken percent-encoding': call('GET', () => '/v1/tasks/%zz'),
    'a query that is not known': [call('GET', ofTask('?verbose=1')), '?verbose'],
    'a query where none is known': [call('POST', () => '/v1/tasks?dry=1', { body: { request: 'x' } }), '?dry'],
    'a query twice': [call('GET', ofTask('?wait=1&wait=1')), '?wait'],
    'waiting too long': [call('GET', ofGrant('?wait=61')), '?wait'],
    'waiting backwards': [call('POST', ofTask('/complete?wait=-1')), '?wait'],
    'waiting for nothing': [call('GET', ofGrant('?wait=')), '?wait'],
    'waiting in words': [call('DELETE', ofGrant('?wait=ten')), '?wait'],
  });

  test('a refused method says which ones are known', async () => {
    expect((await call('PUT', ofTask())()).headers.allow).toBe('GET, HEAD');
  });
});

describe('hosts', () => {
  const named = (host: string): Send => call('GET', ofTask(), { headers: { host } });
  refuses(400, 'host_refused', {
    'another name': named('evil.example'),
    'ours as a beginning': named('127.0.0.1.evil.example'),
    'another address': named('10.0.0.1'),
    'ours with a tail': named('127.0.0.1:1x'),
  });

  test.each([
    ['an empty one', 'GET /v1/tasks HTTP/1.1\r\nHost: \r\n', 'host_refused'],
    ['none', 'GET /v1/tasks HTTP/1.1\r\n', 'host_refused'],
    ['a whole address', 'GET http://127.0.0.1/v1/tasks HTTP/1.1\r\nHost: 127.0.0.1\r\n', 'host_refused'],
    ['two', 'GET /v1/tasks HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: 127.0.0.1\r\n', 'invalid_request'],
  ])('%s', async (_what, bytes, code) => {
    const answer = await askRaw(refused().house.url, `${bytes}Connection: close\r\n\r\n`);
    expect(answer).toMatch(/^HTTP\/1\.1 400 /);
    expect(answer).toContain(`"code":"${code}"`);
  });
});

describe('members', () => {
  const asking = (members: object): Send => issue({ entitlement: READ, ...members });
  const opening = (members: object): Send => request(() => {}, members);
  refuses(400, 'invalid_request', {
    'not an object': [issue('[]'), '$'],
    null: [issue('null'), '$'],
    'null where nothing is needed': [call('POST', ofTask('/complete'), { body: 'null' }), '$'],
    'nothing in it': [issue({}), '$.entitlement'],
    'one too many': [asking({ ttl: 5 }), '$.ttl'],
    'two too many': [asking({ a: 1, b: 2 }), '$.a', '$.b'],
    'one called __proto__': [issue(`{"entitlement":"${READ}","__proto__":{"ttl_seconds":1}}`), '$.__proto__'],
    'one called constructor': [asking({ constructor: 1 }), '$.constructor'],
    'one of the signed request': [asking({ params: { tenant: 'x' } }), '$.params'],
    'one where none is known': [call('POST', ofTask('/complete'), { body: { wait: 1 } }), '$.wait'],
    'an entitlement that is a number': [asking({ entitlement: 7 }), '$.entitlement'],
    'a list of entitlements': [asking({ entitlement: [READ] }), '$.entitlement'],
    'no entitlement': [asking({ entitlement: null }), '$.entitlement'],
    'an empty entitlement': [asking({ entitlement: '' }), '$.entitlement'],
    'an entitlement without end': [asking({ entitlement: 'x'.repeat(201) }), '$.entitlement'],
    'a justification that is none': [asking({ justification: {} }), '$.justification'],
    'a justification without end': [asking({ justification: 'x'.repeat(2_001) }), '$.justification'],
    'a context that is a list': [asking({ context: [] }), '$.context'],
    'a request that is a number': [open({ request: 1 }), '$.request'],
    'a request that is an object': [open({ request: {} }), '$.request'],
    'no request': [open({ issue: [READ] }), '$.request'],
    'a request without end': [open({ request: 'x'.repeat(32_769) }), '$.request'],
    'what to issue, not a list': [opening({ issue: READ }), '$.issue'],
    'what to issue, not names': [opening({ issue: [READ, 5] }), '$.issue[1]'],
    'what to issue, twice the same': [opening({ issue: [READ, READ] }), '$.issue[1]'],
    'too much to issue': [opening({ issue: Array.from({ length: 17 }, (_, index) => `a/b${index}`) }), '$.issue'],
    'a life that can not be and one too many': asking({ ttl_seconds: 0, x: 1 }),
  });
  refuses(400, 'invalid_request', {
    'sealed delivery to nothing': [asking({ delivery: null }), '$.delivery'],
    'sealed delivery to a key by name': [asking({ delivery: { jwk: 'x' } }), '$.delivery.jwk'],
    'sealed delivery with more': [asking({ delivery: { jwk: {}, alg: 'dir' } }), '$.delivery.alg'],
    'sealed delivery of nothing': [opening({ delivery: { jwk: {} } }), '$.delivery'],
  });
  refuses(422, 'delivery_key_refused', {
    'sealed delivery to no key': asking({ delivery: { jwk: {} } }),
    'sealed delivery to no key, at opening': opening({ issue: [READ], delivery: { jwk: {} } }),
  });
});

describe('lives', () => {
  const lives = [
    '0',
    '-1',
    '1e308',
    '1e400',
    '"5m"',
    '1.5',
    '"300"',
    'null',
    'true',
    '[]',
    '{}',
    '86401',
    '1e-9',
    '1e16',
  ];
  const renew = (body: string): Send => call('POST', ofGrant('/renew'), { body });
  for (const life of lives) {
    refuses(422, 'impossible_value', {
      [`${life}, asking`]: [issue(`{"entitlement":"${READ}","ttl_seconds":${life}}`), '$.ttl_seconds'],
      [`${life}, renewing`]: [renew(`{"ttl_seconds":${life}}`), '$.ttl_seconds'],
    });
  }
  refuses(400, 'invalid_request', { 'none, renewing': [renew('{}'), '$.ttl_seconds'] });
});

describe('idempotency keys', () => {
  const keyed = (key: string | string[]): readonly [Send, string] => [
    issue({ entitlement: READ }, { 'idempotency-key': key }),
    'Idempotency-Key',
  ];
  refuses(400, 'invalid_request', {
    '256 characters': keyed('k'.repeat(256)),
    '20 kB': keyed('k'.repeat(20_000)),
    'an empty one': keyed(''),
    'with a space': keyed('a b'),
    'not ASCII': keyed('schl\u00fcssel'),
    'two of them': keyed(['a', 'b']),
  });
});

describe('ids', () => {
  const written: [what: string, id: () => string][] = [
    ['nonsense', () => 'nonsense'],
    ['nonsense with our prefix', () => 'task_nonsense'],
    ['of no task', () => `task_${MISSING}`],
    ['in capitals', () => refused().task.id.toUpperCase()],
    ['without prefix', () => refused().task.id.slice(5)],
    ['without dashes', () => refused().task.id.replaceAll('-', '')],
    ['with a space', () => `${refused().task.id}%20`],
    ['with NUL', () => `${refused().task.id}%00`],
    ['of a grant', () => refused().grant.id],
    ['of a grant, called a task', () => `task_${refused().grant.id.slice(4)}`],
    ['with a way out', () => 'task_%2e%2e%2f'],
    ['without end', () => `task_${'9'.repeat(5_000)}`],
    ['with SQL in it', () => "task_'%20OR%201=1%20--"],
  ];
  for (const [what, id] of written) {
    refuses(404, 'not_found', {
      [`${what}, reading`]: call('GET', () => `/v1/tasks/${id()}`),
      [`${what}, asking`]: call('POST', () => `/v1/tasks/${id()}/grants`, { body: { entitlement: READ } }),
      [`${what}, ending`]: call('POST', () => `/v1/tasks/${id()}/complete?wait=1`),
    });
  }
  refuses(404, 'not_found', {
    'of a task for a grant': call('GET', () => `/v1/grants/${refused().task.id}`),
    'of no grant, releasing': call('DELETE', () => `/v1/grants/grt_${MISSING}`),
    'of no grant, renewing': call('POST', () => '/v1/grants/grt_x/renew', { body: { ttl_seconds: 60 } }),
    'of no task, its timeline': call('GET', () => `/v1/tasks/task_${MISSING}/timeline`),
  });
});

test('after all of it the caller gets what it may have, and every refusal was counted under its own code', async () => {
  const { house, task } = refused();
  expect(await issue({ entitlement: READ, ttl_seconds: 60 })()).toMatchObject({ status: 201 });
  const { revocations } = await house.client().complete(task.id, { wait: 30 });
  expect(revocations).toHaveLength(2);
  for (const { state } of revocations) expect(state).toMatch(/contained|clean/);
  const metrics = await ask(house.url, 'GET', '/metrics');
  const counted = [...metrics.text.matchAll(/^mayfly_refusals_total\{code="(\w+)"\}/gm)].map(([, code = '']) => code);
  expect(problemCodes).toEqual(expect.arrayContaining(counted));
  expect(counted).toEqual(expect.arrayContaining(['malformed_json', 'body_too_large', 'host_refused', 'not_found']));
  expect(counted).not.toContain('internal');
});
