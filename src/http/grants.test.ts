import { afterEach, describe, expect, test } from 'vitest';
import { AgentKey } from '../client/index.ts';
import { MayflyError } from '../domain/errors.ts';
import { grantBody, issuedBody, releasedGrantBody, renewedBody } from './answers.ts';
import { containedGrant, GRANT_ID, PASSWORD, sampleCredential, sampleGrant, TASK_ID } from './testing/samples.ts';
import { startTestApp, type TestApp, type TestAppOptions } from './testing/test-app.ts';

const running: TestApp[] = [];
afterEach(async () => {
  await Promise.all(running.splice(0).map((app) => app.stop()));
});

async function start(options: TestAppOptions): Promise<TestApp> {
  const app = await startTestApp(options);
  running.push(app);
  return app;
}

const ISSUE = `/v1/tasks/task_${TASK_ID}/grants`;
const GRANT = `/v1/grants/grt_${GRANT_ID}`;
const expiresAt = new Date('2026-11-22T18:05:00Z');
const issued = (over = {}) => ({
  grant: sampleGrant(),
  credential: sampleCredential(),
  expiresAt,
  cut: null,
  idempotencyReplayed: false,
  ...over,
});

describe('asking for an entitlement', () => {
  test('answers 201 with the grant and the credential, and where the grant is', async () => {
    const app = await start({ useCases: { issueGrant: async () => issued() } });
    const { status, headers, body } = await app.ask('POST', ISSUE, {
      body: { entitlement: 'ledger-db/read-invoices' },
    });
    expect([status, headers.location, headers['idempotency-replayed']]).toEqual([201, GRANT, undefined]);
    const { grant, credential } = issuedBody.parse(body);
    expect(grant).toMatchObject({
      id: `grt_${GRANT_ID}`,
      task_id: `task_${TASK_ID}`,
      deadline: '2026-11-22T18:05:00.000Z',
      state: 'active',
    });
    expect(credential).toEqual({
      host: 'db.example',
      port: 5432,
      database: 'ledger',
      username: 'mfy_handle',
      password: PASSWORD,
      expires_at: '2026-11-22T18:05:00.000Z',
      guarantee: grant.guarantee,
      grant_id: grant.id,
    });
  });

  test('tells no more of the grant than is promised', async () => {
    const app = await start({ useCases: { issueGrant: async () => issued() } });
    const { body } = await app.ask('POST', ISSUE, { body: { entitlement: 'x/y' } });
    expect(Object.keys(issuedBody.parse(body).grant).sort()).toEqual(
      [
        'id',
        'task_id',
        'entitlement',
        'target',
        'params',
        'state',
        'deadline',
        'guarantee',
        'decision_id',
        'created_at',
        'revocation',
      ].sort(),
    );
  });

  test('passes on what was asked, and nothing else', async () => {
    const seen: unknown[] = [];
    const app = await start({
      useCases: {
        issueGrant: async (_deps, caller, taskId, request) => {
          seen.push(caller.workload.subject, taskId, request);
          return issued();
        },
      },
    });
    await app.ask('POST', ISSUE, {
      body: { entitlement: 'x/y', ttl_seconds: 60, justification: 'month end', context: { ticket: { id: 7 } } },
      headers: { 'Idempotency-Key': 'a~b!c' },
    });
    await app.ask('POST', ISSUE, { body: { entitlement: 'x/y' } });
    expect(seen).toEqual([
      'agent-recon',
      TASK_ID,
      { entitlement: 'x/y', ttlSeconds: 60, justification: 'month end', delivery: null, idempotencyKey: 'a~b!c' },
      'agent-recon',
      TASK_ID,
      { entitlement: 'x/y', ttlSeconds: null, justification: null, delivery: null, idempotencyKey: null },
    ]);
  });

  test('says what was cut, and that a key was used before', async () => {
    const cut = { by: 'policy', askedSeconds: 900, grantedSeconds: 300 } as const;
    const app = await start({ useCases: { issueGrant: async () => issued({ cut, idempotencyReplayed: true }) } });
    const { status, headers, body } = await app.ask('POST', ISSUE, {
      body: { entitlement: 'x/y', ttl_seconds: 900 },
      headers: { 'idempotency-key': 'k' },
    });
    expect([status, headers['idempotency-replayed']]).toEqual([201, 'true']);
    expect(issuedBody.parse(body).cut).toEqual({ by: 'policy', asked_seconds: 900, granted_seconds: 300 });
  });

  test.each(['', ' ', 'a b', 'ä', 'k'.repeat(256), ['a', 'b']])('refuses the Idempotency-Key %o', async (key) => {
    const app = await start({ useCases: { issueGrant: async () => issued() } });
    const { status, body } = await app.ask('POST', ISSUE, {
      body: { entitlement: 'x/y' },
      headers: { 'Idempotency-Key': key },
    });
    expect([status, body]).toMatchObject([400, { code: 'invalid_request', errors: [{ path: 'Idempotency-Key' }] }]);
  });

  test('seals the credential to the key that was asked for', async () => {
    const key = await AgentKey.make();
    const app = await start({ useCases: { issueGrant: async () => issued() } });
    const { status, body, text } = await app.ask('POST', ISSUE, {
      body: { entitlement: 'x/y', delivery: key.delivery },
    });
    expect(status).toBe(201);
    expect(text).not.toContain(PASSWORD);
    const { grant, credential } = body as { grant: { id: string }; credential: string };
    expect(await key.open(credential)).toMatchObject({ grant_id: grant.id });
  });

  test('tells a denial with its reasons', async () => {
    const denied = new MayflyError('denied_by_policy', undefined, {
      members: { decision_id: 'dec_1', reasons: ['Not on Sundays.'] },
    });
    const app = await start({ useCases: { issueGrant: () => Promise.reject(denied) } });
    const { status, body } = await app.ask('POST', ISSUE, { body: { entitlement: 'x/y' } });
    expect([status, body]).toMatchObject([
      403,
      { code: 'denied_by_policy', reasons: ['Not on Sundays.'], decision_id: 'dec_1' },
    ]);
  });

  test('of a key in flight says when to come again', async () => {
    const busy = new MayflyError('key_in_flight', undefined, { retryAfterSeconds: 1 });
    const app = await start({ useCases: { issueGrant: () => Promise.reject(busy) } });
    const { status, headers } = await app.ask('POST', ISSUE, { body: { entitlement: 'x/y' } });
    expect([status, headers['retry-after']]).toEqual([409, '1']);
  });
});

describe('a grant', () => {
  test('is read with how far its revocation got', async () => {
    const app = await start({
      useCases: {
        readGrant: async () =>
          sampleGrant({
            grant: { state: 'revoking', endedBy: 'expired' },
            revocation: { state: 'due', attempts: 3, lastError: 'denied' },
          }),
      },
    });
    const { body } = await app.ask('GET', GRANT);
    expect(grantBody.parse(body)).toMatchObject({
      state: 'revoking',
      ended_by: 'expired',
      revocation: { state: 'due', attempts: 3, last_error: 'denied' },
    });
  });

  test('is waited for until it changes', async () => {
    const views = [sampleGrant(), sampleGrant(), containedGrant()];
    const app = await start({ useCases: { readGrant: async () => views.shift() ?? containedGrant() } });
    expect(grantBody.parse((await app.ask('GET', `${GRANT}?wait=30`)).body).state).toBe('revoked');
  });

  test('is released with 202, or 200 once it is contained', async () => {
    const ending = sampleGrant({ grant: { state: 'revoking', endedBy: 'released' }, revocation: { state: 'due' } });
    const app = await start({
      useCases: { releaseGrant: async () => ending, readGrant: async () => containedGrant() },
    });
    const now = await app.ask('DELETE', GRANT);
    expect(now.status).toBe(202);
    expect(releasedGrantBody.parse(now.body)).toMatchObject({
      grant: { ended_by: 'released' },
      revocations: [{ grant_id: `grt_${GRANT_ID}`, state: 'due' }],
    });
    const later = await app.ask('DELETE', `${GRANT}?wait=30`);
    expect(later.status).toBe(200);
    expect(releasedGrantBody.parse(later.body).revocations).toMatchObject([
      { state: 'contained', evidence: { sessions_ended: 1 } },
    ]);
  });

  test('is renewed; a credential comes only if it is new', async () => {
    const app = await start({
      useCases: {
        renewGrant: async (_deps, _caller, _id, ttlSeconds) => ({
          grant: sampleGrant(),
          credential: ttlSeconds === 60 ? null : sampleCredential(),
          expiresAt,
          cut: { by: 'task', askedSeconds: ttlSeconds, grantedSeconds: 30 },
        }),
      },
    });
    const same = renewedBody.parse((await app.ask('POST', `${GRANT}/renew`, { body: { ttl_seconds: 60 } })).body);
    expect(same).toMatchObject({ cut: { by: 'task', asked_seconds: 60, granted_seconds: 30 } });
    expect(same).not.toHaveProperty('credential');
    const fresh = renewedBody.parse((await app.ask('POST', `${GRANT}/renew`, { body: { ttl_seconds: 61 } })).body);
    expect(fresh.credential).toMatchObject({ password: PASSWORD, grant_id: `grt_${GRANT_ID}` });
  });
});

describe('an id', () => {
  test.each([
    'grt_',
    'grt_nonsense',
    `task_${GRANT_ID}`,
    GRANT_ID,
    `grt_${GRANT_ID.toUpperCase()}`,
    `grt_${GRANT_ID}0`,
    'grt_%00',
    '..%2f..',
  ])('that is none of ours looks like an unknown one: %s', async (id) => {
    const app = await start({ useCases: { readGrant: () => Promise.reject(new MayflyError('not_found')) } });
    const headers = { 'x-request-id': 'same' };
    const malformed = await app.ask('GET', `/v1/grants/${id}`, { headers });
    const unknown = await app.ask('GET', GRANT, { headers });
    expect([malformed.status, malformed.text]).toEqual([404, unknown.text]);
    expect(Object.keys(malformed.headers)).toEqual(Object.keys(unknown.headers));
  });

  test('that is none of ours is not told to strangers', async () => {
    const app = await start({});
    expect((await app.ask('GET', '/v1/grants/nonsense', { token: false })).status).toBe(401);
  });
});
