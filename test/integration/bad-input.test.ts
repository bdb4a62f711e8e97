import { createHmac } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { GrantBody, TaskBody } from '../../src/client/index.ts';
import { type ProblemCode, problemCodes, problemKind } from '../../src/domain/problems.ts';
import { ask, type AskOptions, askRaw, type Reply } from '../support/ask.ts';
import { type Change, forge } from '../support/forge.ts';
import { type House, startHouse } from '../support/house.ts';

const READ = 'ledger-db/read-invoices';
const MISSING = '019a0000-0000-7000-8000-000000000000';

let house: House;
/** Of agent-recon, the caller that is refused again and again. */
let token: string;
let task: TaskBody;
let grant: GrantBody;
let ended: TaskBody;
let endedGrant: GrantBody;
let foreign: { readonly task: TaskBody; readonly grant: GrantBody };

beforeAll(async () => {
  house = await startHouse({
    files: {
      'entitlements/of-tenant.yaml': `
- name: ledger-db/of-tenant
  target: ledger-db
  sensitivity: confidential
  actions: [read]
  max_ttl_seconds: 600
  params: { tenant: { type: string, pattern: "[a-z]{1,8}" }, rows: { type: integer, min: 1, max: 10 } }
  provider: { template: mayfly_t_of_tenant, privileges: [{ schema: billing, tables: [invoices], grant: [SELECT] }], connection_limit: 1 }
`,
      'policies/of-tenant.cedar': `
@id("of-tenant")
permit (principal is Mayfly::Task, action, resource == Mayfly::Entitlement::"ledger-db/of-tenant");
`,
    },
  });
  token = await house.token();
  const client = house.client();
  ({ task } = await client.openTask(await house.sign({ entitlements: [READ, 'ledger-db/no-such-thing'] })));
  ({ grant } = await client.issue(task.id, { entitlement: READ }));
  ({ task: ended } = await client.openTask(await house.sign()));
  ({ grant: endedGrant } = await client.issue(ended.id, { entitlement: READ }));
  await client.complete(ended.id, { wait: 30 });
  for (let state = ''; state !== 'clean'; ) ({ state } = (await client.grant(endedGrant.id, { wait: 30 })).revocation);
  const stranger = house.client('agent-support');
  const opened = await stranger.openTask(await house.sign({ workload: 'agent-support' }));
  foreign = { task: opened.task, grant: (await stranger.issue(opened.task.id, { entitlement: READ })).grant };
});
afterAll(async () => {
  await house?.stop();
});

/** Everything that stands in the store and in the target, whatever else happens in the background. */
async function everything(): Promise<unknown> {
  const rows = await house.onStore(`
    SELECT 'task' AS what, id::text, state, ended_by, not_after::text AS until FROM mayfly.tasks
    UNION ALL SELECT 'grant', id::text, state, ended_by, deadline::text FROM mayfly.grants
    UNION ALL SELECT 'revocation', id::text, state, NULL, due_at::text FROM mayfly.revocations
    UNION ALL SELECT 'key', key, task_id::text, grant_id::text, NULL FROM mayfly.idempotency_keys
    UNION ALL SELECT 'decision', id::text, NULL, NULL, NULL FROM mayfly.decisions
    UNION ALL SELECT 'event', id::text, type, NULL, NULL FROM mayfly.audit_events
    UNION ALL SELECT 'catalog', revision::text, NULL, NULL, NULL FROM mayfly.catalog_active
    UNION ALL SELECT 'role', rolname, rolcanlogin::text, NULL, rolvaliduntil::text FROM pg_roles WHERE rolname LIKE 'mfy\\_%'
    ORDER BY 1, 2`);
  return rows;
}

/** The answer is that refusal, says what to do next, and has its own page. */
async function expectRefusal(
  reply: Reply,
  status: number,
  code: ProblemCode,
  places?: readonly string[],
): Promise<void> {
  expect({ status: reply.status, code: reply.body['code'] }).toEqual({ status, code });
  const { title, next } = problemKind(code);
  expect(next.length).toBeGreaterThan(10);
  const { detail, errors, ended_by: endedBy, ...rest } = reply.body;
  expect(endedBy).toBe(code === 'task_ended' ? 'completed' : undefined);
  expect(rest).toEqual({
    type: `/problems/${code}`,
    title,
    status,
    code,
    next,
    instance: reply.headers['x-request-id'],
  });
  expect(detail ?? '').toBeTypeOf('string');
  expect(reply.headers).toMatchObject({ 'content-type': 'application/problem+json', 'cache-control': 'no-store' });
  if (status === 401) expect(reply.headers['www-authenticate']).toMatch(/^Bearer realm="mayfly"/);
  if (places !== undefined)
    expect([...new Set((errors as { path: string }[]).map(({ path }) => path))]).toEqual(places);
  const page = await ask(house.url, 'GET', `/problems/${code}`);
  expect(page.body).toMatchObject({ code, next });
}

type Send = () => Promise<Reply>;
type Case = readonly [what: string, send: Send, status: number, code: ProblemCode, places?: readonly string[]];

/** One test for each: refused just so, nothing made and nothing lost, and the same caller goes on. */
function refuses(cases: readonly Case[]): void {
  for (const [what, send, status, code, places] of cases) {
    test(what, async () => {
      const before = await everything();
      await expectRefusal(await send(), status, code, places);
      expect(await everything()).toEqual(before);
      expect(await ask(house.url, 'GET', `/v1/tasks/${task.id}`, { token })).toMatchObject({
        status: 200,
        body: { id: task.id, state: 'active', grants: [{ id: grant.id, state: 'active' }] },
      });
    });
  }
}

const call = (method: string, path: () => string, options: AskOptions = {}): Send => {
  return () => ask(house.url, method, path(), { token, ...options });
};
const open = (body: unknown): Send => call('POST', () => '/v1/tasks', { body });
const issue = (body: unknown, headers: AskOptions['headers'] = {}): Send =>
  call('POST', () => `/v1/tasks/${task.id}/grants`, { body, headers });
const renew = (body: unknown): Send => call('POST', () => `/v1/grants/${grant.id}/renew`, { body });

/** A request that is right but for one change, signed by the issuer itself. */
const request = (change: Change, more: object = {}): Send => {
  return async () => open({ request: forge(house.devDir, 'orchestrator', await house.sign(), change), ...more })();
};
const claims = (members: Record<string, unknown>): Send =>
  request(({ claims: all }) => void Object.assign(all, members));
const stated = (members: Record<string, unknown>): Send =>
  request(({ claims: all }) => void Object.assign(Object(all['task']), members));
const details = (value: unknown): Send => claims({ authorization_details: value });
const header = (members: Record<string, unknown>): Send =>
  request(({ header: all }) => void Object.assign(all, members));

const now = () => Math.floor(Date.now() / 1000);
const times = (change: (iat: number) => Record<string, number>): Send =>
  request(({ claims: all }) => void Object.assign(all, change(now())));

describe('bodies that are no JSON of ours', () => {
  const body = `{"entitlement":"${READ}"}`;
  refuses([
    ['half an object', issue('{"entitlement":'), 400, 'malformed_json'],
    ['something after the object', issue(`${body} x`), 400, 'malformed_json'],
    ['single quotes', issue(`{'entitlement':'${READ}'}`), 400, 'malformed_json'],
    ['a byte order mark', issue(`\ufeff${body}`), 400, 'malformed_json'],
    ['nothing', call('POST', () => `/v1/tasks/${task.id}/grants`), 400, 'malformed_json'],
    ['only white space', issue('  '), 400, 'malformed_json'],
    ['bytes that are not UTF-8', issue(Buffer.from([0x22, 0xff, 0xfe, 0x22])), 400, 'malformed_json'],
    ['half a surrogate pair in its bytes', issue(Buffer.from([0x22, 0xed, 0xa0, 0x80, 0x22])), 400, 'malformed_json'],
    [
      'half a surrogate pair, escaped',
      issue(`{"entitlement":"${READ}","justification":"\\ud800"}`),
      400,
      'malformed_json',
    ],
    ['the other half', issue('{"entitlement":"\\udc00"}'), 400, 'malformed_json'],
    ['half a pair in a name', issue('{"\\ud800":1}'), 400, 'malformed_json'],
    ['NUL in a text', issue('{"entitlement":"a\\u0000b"}'), 400, 'malformed_json'],
    ['NUL in a name', issue('{"a\\u0000":1}'), 400, 'malformed_json'],
    ['a raw control character', issue('{"entitlement":"a\u0001"}'), 400, 'malformed_json'],
    ['nesting without end', issue(`${'['.repeat(5_000)}${']'.repeat(5_000)}`), 400, 'malformed_json'],
    ['a member twice', issue(`{"entitlement":"${READ}","entitlement":"${READ}"}`), 400, 'duplicate_member'],
    [
      'a member twice, once escaped',
      issue(`{"entitlement":"${READ}","\\u0065ntitlement":"x"}`),
      400,
      'duplicate_member',
    ],
    [
      'a member twice, deep inside',
      issue(`{"entitlement":"${READ}","context":{"a":{"b":1,"b":2}}}`),
      400,
      'duplicate_member',
    ],
    ['two members of no meaning', open('{"request":"x","__proto__":1,"__proto__":2}'), 400, 'duplicate_member'],
  ]);
});

describe('bodies that are too large', () => {
  const two = 2 * 1024 * 1024;
  const long = `{"entitlement":"${READ}","justification":"${'x'.repeat(two)}"}`;
  refuses([
    ['2 MB, said so', issue(long), 413, 'body_too_large'],
    ['2 MB to open a task', open({ request: 'x'.repeat(two) }), 413, 'body_too_large'],
    [
      '2 MB, where a body means nothing',
      call('POST', () => `/v1/tasks/${task.id}/complete`, { body: long }),
      413,
      'body_too_large',
    ],
    ['2 MB in chunks', issue(long, { 'transfer-encoding': 'chunked', 'content-length': [] }), 413, 'body_too_large'],
    ['2 MB of zeros', issue(Buffer.alloc(two)), 413, 'body_too_large'],
    ['just too much', issue(`${' '.repeat(64 * 1024)}{}`), 413, 'body_too_large'],
    ['2 MB without a token', () => ask(house.url, 'POST', '/v1/tasks', { body: long }), 413, 'body_too_large'],
  ]);
});

describe('media types, methods and addresses', () => {
  const typed = (type: string): Send => issue({ entitlement: READ }, { 'content-type': type });
  refuses([
    ['a form', typed('application/x-www-form-urlencoded'), 415, 'unsupported_media_type'],
    ['text', typed('text/plain'), 415, 'unsupported_media_type'],
    ['JSON of another kind', typed('application/merge-patch+json'), 415, 'unsupported_media_type'],
    ['another character set', typed('application/json; charset=utf-16'), 415, 'unsupported_media_type'],
    ['no type', issue({ entitlement: READ }, { 'content-type': [] }), 415, 'unsupported_media_type'],
    [
      'two types',
      issue({ entitlement: READ }, { 'content-type': ['application/json', 'text/plain'] }),
      400,
      'invalid_request',
      ['content-type'],
    ],
    ['compressed', issue({ entitlement: READ }, { 'content-encoding': 'gzip' }), 415, 'unsupported_media_type'],
    ['PUT', call('PUT', () => '/v1/tasks', { body: {} }), 405, 'method_not_allowed'],
    ['PATCH', call('PATCH', () => `/v1/tasks/${task.id}`, { body: {} }), 405, 'method_not_allowed'],
    ['GET where one asks', call('GET', () => `/v1/tasks/${task.id}/grants`), 405, 'method_not_allowed'],
    ['GET that would end', call('GET', () => `/v1/tasks/${task.id}/complete`), 405, 'method_not_allowed'],
    ['DELETE of a task', call('DELETE', () => `/v1/tasks/${task.id}`), 405, 'method_not_allowed'],
    ['POST to a grant', call('POST', () => `/v1/grants/${grant.id}`, { body: {} }), 405, 'method_not_allowed'],
    ['OPTIONS', call('OPTIONS', () => `/v1/tasks/${task.id}`), 405, 'method_not_allowed'],
    ['an address of nothing', call('GET', () => '/v1/nothing'), 404, 'not_found'],
    ['a slash at the end', call('GET', () => `/v1/tasks/${task.id}/`), 404, 'not_found'],
    ['another case', call('GET', () => `/V1/tasks/${task.id}`), 404, 'not_found'],
    ['a way out', call('GET', () => `/v1/tasks/../tasks/${task.id}`), 404, 'not_found'],
    ['broken percent-encoding', call('GET', () => '/v1/tasks/%zz'), 400, 'invalid_request'],
    [
      'a query that is not known',
      call('GET', () => `/v1/tasks/${task.id}?verbose=1`),
      400,
      'invalid_request',
      ['?verbose'],
    ],
    [
      'a query where none is known',
      call('POST', () => '/v1/tasks?dry=1', { body: { request: 'x' } }),
      400,
      'invalid_request',
      ['?dry'],
    ],
    ['a query twice', call('GET', () => `/v1/tasks/${task.id}?wait=1&wait=1`), 400, 'invalid_request', ['?wait']],
    ['waiting too long', call('GET', () => `/v1/grants/${grant.id}?wait=61`), 400, 'invalid_request', ['?wait']],
    [
      'waiting backwards',
      call('POST', () => `/v1/tasks/${task.id}/complete?wait=-1`),
      400,
      'invalid_request',
      ['?wait'],
    ],
    ['waiting for nothing', call('GET', () => `/v1/grants/${grant.id}?wait=`), 400, 'invalid_request', ['?wait']],
    ['waiting in words', call('DELETE', () => `/v1/grants/${grant.id}?wait=ten`), 400, 'invalid_request', ['?wait']],
  ]);

  test('a refused method says which ones are known', async () => {
    const reply = await ask(house.url, 'PUT', `/v1/tasks/${task.id}`, { token });
    expect(reply.headers.allow).toBe('GET, HEAD');
  });
});

describe('hosts that are not ours', () => {
  const named = (host: string): Send => call('GET', () => `/v1/tasks/${task.id}`, { headers: { host } });
  refuses([
    ['another name', named('evil.example'), 400, 'host_refused'],
    ['ours as a beginning', named('127.0.0.1.evil.example'), 400, 'host_refused'],
    ['another address', named('10.0.0.1'), 400, 'host_refused'],
    ['ours with a tail', named('127.0.0.1:1x'), 400, 'host_refused'],
  ]);

  test.each([
    ['an empty one', 'GET /v1/tasks HTTP/1.1\r\nHost: \r\nConnection: close\r\n\r\n', 'host_refused'],
    ['none', 'GET /v1/tasks HTTP/1.1\r\nConnection: close\r\n\r\n', 'host_refused'],
    [
      'a whole address',
      'GET http://127.0.0.1/v1/tasks HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n',
      'host_refused',
    ],
    [
      'two',
      'GET /v1/tasks HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n',
      'invalid_request',
    ],
  ])('%s', async (_what, bytes, code) => {
    const answer = await askRaw(house.url, bytes);
    expect(answer).toMatch(/^HTTP\/1\.1 400 /);
    expect(answer).toContain(`"code":"${code}"`);
  });
});

describe('members that do not fit', () => {
  const seventeen = Array.from({ length: 17 }, (_, index) => `a/b${index}`);
  refuses([
    ['not an object', issue('[]'), 400, 'invalid_request', ['$']],
    ['null', issue('null'), 400, 'invalid_request', ['$']],
    ['nothing in it', issue({}), 400, 'invalid_request', ['$.entitlement']],
    ['a member too many', issue({ entitlement: READ, ttl: 5 }), 400, 'invalid_request', ['$.ttl']],
    ['two too many', issue({ entitlement: READ, a: 1, b: 2 }), 400, 'invalid_request', ['$.a', '$.b']],
    [
      'one called __proto__',
      issue(`{"entitlement":"${READ}","__proto__":{"ttl_seconds":1}}`),
      400,
      'invalid_request',
      ['$.__proto__'],
    ],
    ['one called constructor', issue({ entitlement: READ, constructor: 1 }), 400, 'invalid_request', ['$.constructor']],
    ['an entitlement that is a number', issue({ entitlement: 7 }), 400, 'invalid_request', ['$.entitlement']],
    ['a list of entitlements', issue({ entitlement: [READ] }), 400, 'invalid_request', ['$.entitlement']],
    ['no entitlement', issue({ entitlement: null }), 400, 'invalid_request', ['$.entitlement']],
    ['an empty one', issue({ entitlement: '' }), 400, 'invalid_request', ['$.entitlement']],
    ['one without end', issue({ entitlement: 'x'.repeat(201) }), 400, 'invalid_request', ['$.entitlement']],
    [
      'a justification that is none',
      issue({ entitlement: READ, justification: {} }),
      400,
      'invalid_request',
      ['$.justification'],
    ],
    [
      'a justification without end',
      issue({ entitlement: READ, justification: 'x'.repeat(2_001) }),
      400,
      'invalid_request',
      ['$.justification'],
    ],
    ['a context that is a list', issue({ entitlement: READ, context: [] }), 400, 'invalid_request', ['$.context']],
    [
      'a body where none is known',
      call('POST', () => `/v1/tasks/${task.id}/complete`, { body: { wait: 1 } }),
      400,
      'invalid_request',
      ['$.wait'],
    ],
    ['a request that is a number', open({ request: 1 }), 400, 'invalid_request', ['$.request']],
    ['a request that is an object', open({ request: {} }), 400, 'invalid_request', ['$.request']],
    ['no request', open({ issue: [READ] }), 400, 'invalid_request', ['$.request']],
    ['a request without end', open({ request: 'x'.repeat(32_769) }), 400, 'invalid_request', ['$.request']],
    ['what to issue, not a list', request(() => {}, { issue: READ }), 400, 'invalid_request', ['$.issue']],
    ['what to issue, not names', request(() => {}, { issue: [READ, 5] }), 400, 'invalid_request', ['$.issue[1]']],
    [
      'what to issue, twice the same',
      request(() => {}, { issue: [READ, READ] }),
      400,
      'invalid_request',
      ['$.issue[1]'],
    ],
    ['too much to issue', request(() => {}, { issue: seventeen }), 400, 'invalid_request', ['$.issue']],
    ['a life and a member too many', issue({ entitlement: READ, ttl_seconds: 0, x: 1 }), 400, 'invalid_request'],
    ['sealed delivery', issue({ entitlement: READ, delivery: { jwk: {} } }), 400, 'delivery_unsupported'],
    ['sealed delivery, however it looks', issue({ entitlement: READ, delivery: null }), 400, 'delivery_unsupported'],
    ['sealed delivery at opening', request(() => {}, { delivery: {} }), 400, 'delivery_unsupported'],
    ['a key to seal with in the request', claims({ delivery_jkt: 'x' }), 400, 'delivery_unsupported'],
  ]);
});

describe('lives that can not be', () => {
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
    '9007199254740993',
  ];
  refuses(
    lives.flatMap((life): Case[] => [
      [
        `${life}, asking`,
        issue(`{"entitlement":"${READ}","ttl_seconds":${life}}`),
        422,
        'impossible_value',
        ['$.ttl_seconds'],
      ],
      [`${life}, renewing`, renew(`{"ttl_seconds":${life}}`), 422, 'impossible_value', ['$.ttl_seconds']],
    ]),
  );
  refuses([['none, renewing', renew({}), 400, 'invalid_request', ['$.ttl_seconds']]]);
});

describe('idempotency keys', () => {
  const keyed = (key: string | string[]): Send => issue({ entitlement: READ }, { 'idempotency-key': key });
  refuses([
    ['256 characters', keyed('k'.repeat(256)), 400, 'invalid_request', ['Idempotency-Key']],
    ['20 kB', keyed('k'.repeat(20_000)), 400, 'invalid_request', ['Idempotency-Key']],
    ['empty', keyed(''), 400, 'invalid_request', ['Idempotency-Key']],
    ['with a space', keyed('a b'), 400, 'invalid_request', ['Idempotency-Key']],
    ['not ASCII', keyed('schl\u00fcssel'), 400, 'invalid_request', ['Idempotency-Key']],
    ['two of them', keyed(['a', 'b']), 400, 'invalid_request', ['Idempotency-Key']],
  ]);
});

describe('ids', () => {
  const ids = (): readonly string[] => [
    'nonsense',
    'task_nonsense',
    `task_${MISSING}`,
    task.id.toUpperCase(),
    task.id.slice(5),
    task.id.replaceAll('-', ''),
    `${task.id}%20`,
    `${task.id}%00`,
    grant.id,
    `task_${grant.id.slice(4)}`,
    'task_%2e%2e%2f',
    `task_${'9'.repeat(5_000)}`,
    "task_' OR 1=1 --".replaceAll(' ', '%20'),
  ];
  const methods: [what: string, method: string, tail: string, body?: object][] = [
    ['reading', 'GET', ''],
    ['its timeline', 'GET', '/timeline'],
    ['asking', 'POST', '/grants', { entitlement: READ }],
    ['completing', 'POST', '/complete'],
    ['cancelling', 'POST', '/cancel'],
  ];
  refuses(
    Array.from({ length: 13 }, (_, index) => index).flatMap((index): Case[] => {
      const [what = '', method = '', tail = '', body] = methods[index % methods.length] ?? [];
      const options = body === undefined ? {} : { body };
      return [
        [
          `of no task (${index}), ${what}`,
          call(method, () => `/v1/tasks/${ids()[index]}${tail}`, options),
          404,
          'not_found',
        ],
      ];
    }),
  );
  refuses([
    ['of a task for a grant', call('GET', () => `/v1/grants/${task.id}`), 404, 'not_found'],
    ['of no grant, releasing', call('DELETE', () => `/v1/grants/grt_${MISSING}`), 404, 'not_found'],
    [
      'of no grant, renewing',
      call('POST', () => '/v1/grants/grt_x/renew', { body: { ttl_seconds: 60 } }),
      404,
      'not_found',
    ],
  ]);
});

describe('what is not the caller’s', () => {
  refuses([
    [
      'asking',
      call('POST', () => `/v1/tasks/${foreign.task.id}/grants`, { body: { entitlement: READ } }),
      404,
      'not_found',
    ],
    [
      'asking with a key',
      call('POST', () => `/v1/tasks/${foreign.task.id}/grants`, {
        body: { entitlement: READ },
        headers: { 'idempotency-key': 'k' },
      }),
      404,
      'not_found',
    ],
    [
      'asking for what does not exist',
      call('POST', () => `/v1/tasks/${foreign.task.id}/grants`, { body: { entitlement: 'x/y' } }),
      404,
      'not_found',
    ],
    ['completing', call('POST', () => `/v1/tasks/${foreign.task.id}/complete?wait=1`), 404, 'not_found'],
    ['cancelling', call('POST', () => `/v1/tasks/${foreign.task.id}/cancel`), 404, 'not_found'],
    ['waiting', call('GET', () => `/v1/tasks/${foreign.task.id}?wait=30`), 404, 'not_found'],
    [
      'renewing',
      call('POST', () => `/v1/grants/${foreign.grant.id}/renew`, { body: { ttl_seconds: 60 } }),
      404,
      'not_found',
    ],
    ['releasing', call('DELETE', () => `/v1/grants/${foreign.grant.id}`), 404, 'not_found'],
    ['waiting for a grant', call('GET', () => `/v1/grants/${foreign.grant.id}?wait=30`), 404, 'not_found'],
  ]);
});

describe('entitlements', () => {
  refuses([
    ['that exist, but not for this task', issue({ entitlement: 'ledger-db/read-payments' }), 403, 'not_in_task'],
    ['that do not exist', issue({ entitlement: 'ledger-db/nothing' }), 403, 'not_in_task'],
    [
      'that the task names, but the catalog does not',
      issue({ entitlement: 'ledger-db/no-such-thing' }),
      403,
      'not_in_task',
    ],
    ['that are no names', issue({ entitlement: '../../etc/passwd' }), 403, 'not_in_task'],
    ['in another case', issue({ entitlement: READ.toUpperCase() }), 403, 'not_in_task'],
    ['with something invisible', issue({ entitlement: `${READ}\u200b` }), 403, 'not_in_task'],
    ['called __proto__', issue({ entitlement: '__proto__' }), 403, 'not_in_task'],
  ]);

  test('that do not exist and that are not for this task are refused alike', async () => {
    const [one, other] = await Promise.all(
      ['ledger-db/read-payments', 'ledger-db/no-such-thing'].map((entitlement) => issue({ entitlement })()),
    );
    expect({ ...one?.body, instance: '' }).toEqual({ ...other?.body, instance: '' });
  });

  test('asked for at opening are refused one by one, and the task is open all the same', async () => {
    const signed = await house.sign({ entitlements: [READ] });
    const reply = await ask(house.url, 'POST', '/v1/tasks', { token, body: { request: signed, issue: [READ, 'x/y'] } });
    expect(reply).toMatchObject({
      status: 201,
      body: {
        task: { state: 'active', grants: [{ entitlement: READ, state: 'active' }] },
        issued: [
          { entitlement: READ, credential: { username: expect.stringMatching(/^mfy_/) } },
          { entitlement: 'x/y', problem: { code: 'not_in_task', status: 403, next: expect.any(String) } },
        ],
      },
    });
    await house.client().complete((reply.body['task'] as TaskBody).id, { wait: 30 });
  });
});

describe('what has ended', () => {
  const of = (tail: string, body?: object): Send =>
    call('POST', () => `/v1/tasks/${ended.id}${tail}`, body === undefined ? {} : { body });
  refuses([
    ['a grant', of('/grants', { entitlement: READ }), 409, 'task_ended'],
    ['a grant that it never covered', of('/grants', { entitlement: 'x/y' }), 409, 'task_ended'],
    ['cancelling what is completed', of('/cancel'), 409, 'task_ended'],
    [
      'renewing',
      call('POST', () => `/v1/grants/${endedGrant.id}/renew`, { body: { ttl_seconds: 60 } }),
      409,
      'grant_ended',
    ],
  ]);
});

describe('task requests', () => {
  const hs256 = (text: string): string => {
    const [head = '', body = ''] = text.split('.');
    const input = `${Buffer.from(JSON.stringify({ ...JSON.parse(Buffer.from(head, 'base64url').toString()), alg: 'HS256' })).toString('base64url')}.${body}`;
    return `${input}.${createHmac('sha256', 'the public key').update(input).digest('base64url')}`;
  };
  const spelled = (spell: (text: string) => string): Send => request((draft) => void (draft.spell = spell));
  refuses([
    ['no JWS', open({ request: 'not.a.jws!' }), 400, 'request_malformed'],
    ['four parts', spelled((text) => `${text}.x`), 400, 'request_malformed'],
    ['with padding', spelled((text) => `${text}==`), 400, 'request_malformed'],
    ['with a line break', spelled((text) => `${text}\n`), 400, 'request_malformed'],
    ['no signature', spelled((text) => text.replace(/[^.]*$/, '')), 400, 'request_malformed'],
    ['17 kB', claims({ txn: 'x'.repeat(17_000) }), 400, 'request_malformed'],
    ['a payload that is a list', request((draft) => void (draft.payload = '[]')), 400, 'request_malformed'],
    [
      'NUL in a claim',
      request((draft) => void (draft.payload = JSON.stringify({ ...draft.claims, sub: 'a\0b' }))),
      400,
      'request_malformed',
    ],
    [
      'half a surrogate pair',
      request((draft) => void (draft.payload = JSON.stringify({ ...draft.claims, sub: '\ud800' }))),
      400,
      'request_malformed',
    ],
    [
      'a claim twice',
      request((draft) => void (draft.payload = JSON.stringify(draft.claims).replace('{', '{"aud":"x",'))),
      400,
      'duplicate_member',
    ],
    ['the type of a token', header({ typ: 'JWT' }), 401, 'request_type_wrong'],
    ['the type of an event', header({ typ: 'agent-task-event+jwt' }), 401, 'request_type_wrong'],
    ['no type', header({ typ: undefined }), 401, 'request_type_wrong'],
    ['a workload token instead', async () => open({ request: token })(), 401, 'request_type_wrong'],
    ['no algorithm', header({ alg: 'none' }), 401, 'request_algorithm_refused'],
    ['a shared secret', spelled(hs256), 401, 'request_algorithm_refused'],
    ['an algorithm not allowed', header({ alg: 'ES512' }), 401, 'request_algorithm_refused'],
    ['an unknown issuer', claims({ iss: 'https://evil.example' }), 401, 'request_issuer_unknown'],
    ['an issuer that is an object', claims({ iss: {} }), 401, 'request_issuer_unknown'],
    ['a key of its own', header({ jwk: { kty: 'EC' } }), 401, 'request_header_refused'],
    ['a place of a key', header({ jku: 'https://evil.example/jwks' }), 401, 'request_header_refused'],
    ['something critical', header({ crit: ['b64'], b64: false }), 401, 'request_header_refused'],
    ['an unknown key', header({ kid: 'another' }), 401, 'request_key_unknown'],
    ['no key', header({ kid: undefined }), 401, 'request_key_unknown'],
    [
      'another’s key',
      async () => open({ request: forge(house.devDir, 'workloads', await house.sign(), () => {}) })(),
      401,
      'request_signature_invalid',
    ],
    [
      'another payload',
      spelled((text) =>
        text.replace(
          /\.[^.]*\./,
          `.${Buffer.from(JSON.stringify({ iss: house.issuer.issuers.orchestrator })).toString('base64url')}.`,
        ),
      ),
      401,
      'request_signature_invalid',
    ],
    ['another audience', claims({ aud: 'https://another.example' }), 401, 'request_audience_wrong'],
    ['ours with a slash', claims({ aud: 'http://127.0.0.1:7420/' }), 401, 'request_audience_wrong'],
    [
      'two audiences',
      request(({ claims: all }) => void (all['aud'] = [all['aud'], 'x'])),
      401,
      'request_audience_wrong',
    ],
    ['no audience', claims({ aud: undefined }), 401, 'request_audience_wrong'],
    ['expired', times((iat) => ({ iat: iat - 200, exp: iat - 6 })), 401, 'request_expired'],
    ['from the future', times((iat) => ({ iat: iat + 60, exp: iat + 120 })), 401, 'request_not_yet_valid'],
    ['not before later', times((iat) => ({ nbf: iat + 60 })), 401, 'request_not_yet_valid'],
    ['living too long', times((iat) => ({ iat, exp: iat + 301 })), 401, 'request_lifetime_too_long'],
    [
      'for a task that is over',
      request(({ claims: all }) => void Object.assign(Object(all['task']), { not_after: now() - 1 })),
      401,
      'request_deadline_past',
    ],
    ['without times', claims({ exp: undefined, iat: undefined }), 400, 'request_claims_invalid', ['$.iat', '$.exp']],
    ['times in text', claims({ exp: '2030-01-01' }), 400, 'request_claims_invalid', ['$.exp']],
    ['times in fractions', times((iat) => ({ iat: iat + 0.5 })), 400, 'request_claims_invalid', ['$.iat']],
    ['times beyond all', claims({ exp: 1e300 }), 400, 'request_claims_invalid', ['$.exp']],
    ['ending before it begins', times((iat) => ({ exp: iat - 1 })), 400, 'request_claims_invalid', ['$.exp']],
    ['without jti', claims({ jti: undefined }), 400, 'request_claims_invalid', ['$.jti']],
    ['a jti without end', claims({ jti: 'j'.repeat(201) }), 400, 'request_claims_invalid', ['$.jti']],
    ['a line break in a name', claims({ sub: 'user\nadmin' }), 400, 'request_claims_invalid', ['$.sub']],
    ['writing that turns around', claims({ sub: 'user\u202e' }), 400, 'request_claims_invalid', ['$.sub']],
    ['nobody who acts', claims({ act: undefined }), 400, 'request_claims_invalid', ['$.act']],
    ['a task member that is not known', stated({ priority: 1 }), 400, 'request_claims_invalid', ['$.task']],
    ['a deadline in text', stated({ not_after: 'tomorrow' }), 400, 'request_claims_invalid', ['$.task.not_after']],
    ['a depth below zero', stated({ max_depth: -1 }), 400, 'request_claims_invalid', ['$.task.max_depth']],
    ['no details', details(undefined), 400, 'invalid_authorization_details'],
    [
      'two details',
      request(
        ({ claims: all }) => void (all['authorization_details'] = [...(all['authorization_details'] as unknown[]), {}]),
      ),
      400,
      'invalid_authorization_details',
    ],
    [
      'details of another kind',
      details([{ type: 'openid', entitlements: [READ] }]),
      400,
      'invalid_authorization_details',
    ],
    [
      'details with a member too many',
      details([{ type: 'mayfly', entitlements: [READ], all: true }]),
      400,
      'invalid_authorization_details',
    ],
    ['nothing to ask for', details([{ type: 'mayfly', entitlements: [] }]), 400, 'invalid_authorization_details'],
    ['a wildcard', details([{ type: 'mayfly', entitlements: ['ledger-db/*'] }]), 400, 'invalid_authorization_details'],
    [
      'a life of nothing',
      details([{ type: 'mayfly', entitlements: [READ], max_ttl_seconds: 0 }]),
      400,
      'invalid_authorization_details',
    ],
    [
      'params in params',
      details([{ type: 'mayfly', entitlements: [READ], params: { a: { b: 1 } } }]),
      400,
      'invalid_authorization_details',
    ],
    [
      'a param called __proto__',
      request((draft) => {
        draft.payload = JSON.stringify({ ...draft.claims, authorization_details: 0 }).replace(
          '"authorization_details":0',
          `"authorization_details":[{"type":"mayfly","entitlements":["${READ}"],"params":{"__proto__":1}}]`,
        );
      }),
      400,
      'invalid_authorization_details',
    ],
    ['a key of the agent', claims({ cnf: { jkt: 'x' } }), 400, 'key_binding_unsupported'],
    [
      'a key of the agent, inside',
      claims({ act: { sub: 'agent-recon', cnf: { jkt: 'x' } } }),
      400,
      'key_binding_unsupported',
    ],
    ['a key of nobody', claims({ cnf: null }), 400, 'key_binding_unsupported'],
    ['a purpose that the issuer may not state', stated({ purpose: 'rule.the-world' }), 403, 'issuer_may_not_state'],
    ['a phase that is none', stated({ phase: 'afterwards' }), 403, 'issuer_may_not_state'],
    ['a workload that the issuer may not name', claims({ act: { sub: 'agent-else' } }), 403, 'issuer_may_not_state'],
    ['an agent on its own behalf', claims({ sub: 'agent-recon' }), 403, 'issuer_may_not_state'],
    ['for another workload', claims({ act: { sub: 'agent-support' } }), 403, 'workload_not_named'],
  ]);
});

describe('workload tokens', () => {
  const bearing =
    (make: () => string | Promise<string>): Send =>
    async () =>
      ask(house.url, 'POST', `/v1/tasks/${task.id}/grants`, { token: await make(), body: { entitlement: READ } });
  const changed = (change: Change): Send => bearing(() => forge(house.devDir, 'workloads', token, change));
  const claimed = (members: Record<string, unknown>) => changed(({ claims: all }) => void Object.assign(all, members));
  const headed = (members: Record<string, unknown>) => changed(({ header: all }) => void Object.assign(all, members));
  const authorized =
    (authorization: string | string[]): Send =>
    () =>
      ask(house.url, 'GET', `/v1/tasks/${task.id}`, { headers: { authorization } });
  refuses([
    ['none', () => ask(house.url, 'GET', `/v1/tasks/${task.id}`), 401, 'workload_token_missing'],
    ['another scheme', authorized('Basic eDp5'), 401, 'workload_token_missing'],
    ['an empty one', authorized('Bearer '), 401, 'workload_token_malformed'],
    ['two in one', () => authorized(`Bearer ${token} ${token}`)(), 401, 'workload_token_malformed'],
    ['two in a list', () => authorized(`Bearer ${token}, Bearer ${token}`)(), 401, 'workload_token_malformed'],
    [
      'two headers',
      () => authorized([`Bearer ${token}`, `Bearer ${token}`])(),
      400,
      'invalid_request',
      ['authorization'],
    ],
    ['a bound one', () => authorized(`DPoP ${token}`)(), 400, 'key_binding_unsupported'],
    ['nonsense', bearing(() => 'nonsense'), 401, 'workload_token_malformed'],
    ['17 kB', claimed({ x: 'x'.repeat(17_000) }), 401, 'workload_token_malformed'],
    [
      'a claim twice',
      changed((draft) => void (draft.payload = JSON.stringify(draft.claims).replace('{', '{"sub":"x",'))),
      401,
      'workload_token_malformed',
    ],
    ['a task request instead', bearing(() => house.sign()), 401, 'workload_token_type_wrong'],
    ['another type', headed({ typ: 'dpop+jwt' }), 401, 'workload_token_type_wrong'],
    ['no algorithm', headed({ alg: 'none' }), 401, 'workload_token_algorithm_refused'],
    ['another algorithm', headed({ alg: 'RS256' }), 401, 'workload_token_algorithm_refused'],
    ['its own key', headed({ jwk: {} }), 401, 'workload_token_header_refused'],
    ['an unknown key', headed({ kid: 'another' }), 401, 'workload_token_key_unknown'],
    ['an unknown issuer', claimed({ iss: 'https://evil.example' }), 401, 'workload_token_issuer_unknown'],
    [
      'another’s key',
      bearing(() => forge(house.devDir, 'operators', token, () => {})),
      401,
      'workload_token_signature_invalid',
    ],
    ['another audience', claimed({ aud: 'https://another.example' }), 401, 'workload_token_audience_wrong'],
    [
      'two audiences',
      changed(({ claims: all }) => void (all['aud'] = [all['aud'], 'x'])),
      401,
      'workload_token_audience_wrong',
    ],
    ['expired', claimed({ iat: now() - 900, exp: now() - 6 }), 401, 'workload_token_expired'],
    ['from the future', claimed({ iat: now() + 300 }), 401, 'workload_token_not_yet_valid'],
    ['without an end', claimed({ exp: undefined }), 401, 'workload_token_invalid', ['$.exp']],
    ['without a name', claimed({ sub: undefined }), 401, 'workload_token_invalid', ['$.sub']],
    ['an invisible name', claimed({ sub: 'agent-recon\u200b' }), 401, 'workload_token_invalid', ['$.sub']],
    ['with a key', claimed({ cnf: { jkt: 'x' } }), 400, 'key_binding_unsupported'],
    [
      'an operator’s',
      bearing(
        async () =>
          (await house.issuer.signOperatorToken({ subject: 'olga', roles: ['admin'], audience: house.url })).token,
      ),
      401,
      'workload_token_invalid',
    ],
    ['another workload’s', bearing(() => house.token('agent-else')), 404, 'not_found'],
  ]);
});

describe('params', () => {
  const NAMED = 'ledger-db/of-tenant';
  /** Opens a task with these params and asks; the task is ended whatever comes. */
  async function askWith(params: unknown): Promise<Reply> {
    const signed = forge(house.devDir, 'orchestrator', await house.sign(), ({ claims: all }) => {
      all['authorization_details'] = [{ type: 'mayfly', entitlements: [NAMED], params }];
    });
    const opened = await ask(house.url, 'POST', '/v1/tasks', { token, body: { request: signed } });
    expect(opened.status).toBe(201);
    const id = (opened.body['task'] as TaskBody).id;
    const reply = await ask(house.url, 'POST', `/v1/tasks/${id}/grants`, { token, body: { entitlement: NAMED } });
    const done = await house.client().complete(id, { wait: 30 });
    expect(done.revocations).toHaveLength(reply.status === 422 ? 0 : 1);
    return reply;
  }

  test.each([
    ['are missing', undefined, ['tenant', 'rows']],
    ['are missing in part', { tenant: 'acme' }, ['rows']],
    ['do not fit their pattern', { tenant: "acme' OR 1=1", rows: 1 }, ['tenant']],
    ['fit their pattern only in part', { tenant: 'acme\n', rows: 1 }, ['tenant']],
    ['are of another type', { tenant: 5, rows: '1' }, ['tenant', 'rows']],
    ['are too large', { tenant: 'acme', rows: 11 }, ['rows']],
    ['are a truth instead of a number', { tenant: 'acme', rows: true }, ['rows']],
  ])('that %s', async (_what, params, names) => {
    const paths = names.map((name) => `$.authorization_details[0].params.${name}`);
    await expectRefusal(await askWith(params), 422, 'params_invalid', paths);
  });

  test('that fit, on a target that can not bind them, are no credential without them', async () => {
    await expectRefusal(await askWith({ tenant: 'acme', rows: 10, another: 'not ours' }), 503, 'target_refused');
    const [made] = await house.onStore('SELECT params, ended_by FROM mayfly.grants WHERE entitlement = $1', [NAMED]);
    expect(made).toEqual({ params: { tenant: 'acme', rows: 10 }, ended_by: 'mint_failed' });
  });

  test('can not be sent by the agent', async () => {
    await expectRefusal(await issue({ entitlement: READ, params: { tenant: 'x' } })(), 400, 'invalid_request', [
      '$.params',
    ]);
  });
});

describe('two opens racing', () => {
  const race = async (requests: readonly string[]): Promise<Reply[]> =>
    await Promise.all(requests.map((text) => ask(house.url, 'POST', '/v1/tasks', { token, body: { request: text } })));
  const made = async (column: 'jti' | 'external_id', value: unknown): Promise<number> =>
    (await house.onStore(`SELECT 1 FROM mayfly.tasks WHERE ${column} = $1`, [value])).length;
  const variant = (signed: string, change: Change): string => forge(house.devDir, 'orchestrator', signed, change);

  test('with one request open one task', async () => {
    const signed = await house.sign();
    const replies = await race([signed, signed, signed, signed]);
    expect(replies.map(({ status }) => status).sort()).toEqual([200, 200, 200, 201]);
    expect(new Set(replies.map(({ body }) => (body['task'] as TaskBody).id)).size).toBe(1);
  });

  test('with one jti and two texts open one task, and the other is told so', async () => {
    const signed = await house.sign();
    let jti: unknown;
    const other = variant(signed, ({ claims: all }) => {
      jti = all['jti'];
      Object.assign(Object(all['task']), { id: `another-${String(jti)}` });
    });
    const replies = await race([signed, other, signed, other]);
    const won = replies.find(({ status }) => status === 201);
    const lost = replies.filter(({ status }) => status === 401);
    expect(won).toBeDefined();
    expect(lost).toHaveLength(2);
    for (const reply of lost) await expectRefusal(reply, 401, 'task_request_used');
    expect(await made('jti', jti)).toBe(1);
  });

  test('with two jti and one id of the issuer open one task, and the other is told so', async () => {
    const signed = await house.sign();
    let id: unknown;
    const other = variant(signed, ({ claims: all }) => {
      id = (all['task'] as { id: string }).id;
      all['jti'] = `another-${String(all['jti'])}`;
    });
    const replies = await race([signed, other]);
    expect(replies.map(({ status }) => status).sort()).toEqual([201, 409]);
    const lost = replies.find(({ status }) => status === 409);
    if (lost !== undefined) await expectRefusal(lost, 409, 'external_id_used');
    expect(await made('external_id', id)).toBe(1);
  });

  test('by two workloads: only the one that is named has it, and nothing is burnt', async () => {
    const signed = await house.sign();
    const stranger = await house.token('agent-support');
    const [theirs, ours] = await Promise.all(
      [stranger, token].map((who) => ask(house.url, 'POST', '/v1/tasks', { token: who, body: { request: signed } })),
    );
    if (theirs !== undefined) await expectRefusal(theirs, 403, 'workload_not_named');
    expect(ours?.status).toBe(201);
  });

  test('the request of a task that has ended gives that task, and mints nothing', async () => {
    const signed = await house.sign();
    const { task: opened } = await house.client().openTask(signed);
    await house.client().cancel(opened.id, { wait: 30 });
    const again = await ask(house.url, 'POST', '/v1/tasks', { token, body: { request: signed, issue: [READ] } });
    expect(again).toMatchObject({ status: 200, body: { task: { id: opened.id, state: 'cancelled', grants: [] } } });
    expect(again.body).not.toHaveProperty('issued');
  });
});

test('after all of it the caller gets what it may have, and every refusal was counted under its own code', async () => {
  const reply = await issue({ entitlement: READ, ttl_seconds: 60 })();
  expect(reply.status).toBe(201);
  const { revocations } = await house.client().complete(task.id, { wait: 30 });
  expect(revocations.map(({ state }) => state)).toEqual([
    expect.stringMatching(/contained|clean/),
    expect.stringMatching(/contained|clean/),
  ]);
  const metrics = await ask(house.url, 'GET', '/metrics');
  const counted = [...metrics.text.matchAll(/^mayfly_refusals_total\{code="(\w+)"\} (\d+)/gm)].map(([, code]) => code);
  expect(problemCodes).toEqual(expect.arrayContaining(counted));
  expect(counted).not.toContain('internal');
  expect(counted.length).toBeGreaterThan(40);
});
