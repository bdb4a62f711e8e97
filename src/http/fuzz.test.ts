import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { issuedBody, openedBody, problemBody, renewedBody } from './answers.ts';
import { GRANT_ID, sampleCredential, sampleGrant, sampleTask, TASK_ID } from './testing/samples.ts';
import { type Reply, startTestApp, type TestApp } from './testing/test-app.ts';

let app: TestApp;
beforeAll(async () => {
  const expiresAt = new Date('2026-11-22T18:05:00Z');
  app = await startTestApp({
    useCases: {
      openTask: async () => ({ task: sampleTask(), replayed: false, cut: null }),
      viewTask: async () => ({ task: sampleTask(), grants: [], children: [] }),
      readTask: async () => ({ task: sampleTask(), grants: [], children: [] }),
      readGrant: async () => sampleGrant(),
      issueGrant: async () => ({
        grant: sampleGrant(),
        credential: sampleCredential(),
        expiresAt,
        cut: null,
        idempotencyReplayed: false,
      }),
      renewGrant: async () => ({ grant: sampleGrant(), credential: null, expiresAt, cut: null }),
    },
  });
});
afterAll(() => app.stop());

/** Each answer is one that the document tells of: a success of its shape, or a refusal. Never a fault of ours. */
function expectToldAnswer(reply: Reply, success: number, schema: { parse(body: unknown): unknown }): void {
  const refused = reply.status !== success;
  expect(reply.status).toBeLessThan(500);
  expect((refused ? problemBody : schema).parse(reply.body)).toMatchObject(refused ? { status: reply.status } : {});
}

const likely = {
  open: fc.record(
    { request: fc.string({ unit: 'binary' }), issue: fc.array(fc.string(), { maxLength: 20 }) },
    { requiredKeys: [] },
  ),
  issue: fc.record(
    {
      entitlement: fc.oneof(fc.string({ unit: 'binary' }), fc.constant('ledger-db/read-invoices')),
      ttl_seconds: fc.oneof(fc.double(), fc.integer(), fc.string(), fc.constant(null)),
      justification: fc.string({ unit: 'binary' }),
      context: fc.oneof(fc.dictionary(fc.string(), fc.jsonValue()), fc.jsonValue()),
    },
    { requiredKeys: [] },
  ),
  renew: fc.record(
    { ttl_seconds: fc.oneof(fc.double(), fc.integer({ min: -5, max: 90_000 }), fc.jsonValue()) },
    { requiredKeys: [] },
  ),
};

const runs = { numRuns: 150 };

describe('no body makes a fault of ours', () => {
  test('opening', async () => {
    await fc.assert(
      fc.asyncProperty(fc.oneof(likely.open, fc.jsonValue()), async (body) => {
        expectToldAnswer(await app.ask('POST', '/v1/tasks', { body: JSON.stringify(body) }), 201, openedBody);
      }),
      runs,
    );
  });

  test('asking', async () => {
    await fc.assert(
      fc.asyncProperty(fc.oneof(likely.issue, fc.jsonValue()), async (body) => {
        expectToldAnswer(
          await app.ask('POST', `/v1/tasks/task_${TASK_ID}/grants`, { body: JSON.stringify(body) }),
          201,
          issuedBody,
        );
      }),
      runs,
    );
  });

  test('renewing', async () => {
    await fc.assert(
      fc.asyncProperty(fc.oneof(likely.renew, fc.jsonValue()), async (body) => {
        expectToldAnswer(
          await app.ask('POST', `/v1/grants/grt_${GRANT_ID}/renew`, { body: JSON.stringify(body) }),
          200,
          renewedBody,
        );
      }),
      runs,
    );
  });

  test('and no bytes', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), async (bytes) => {
        expectToldAnswer(await app.ask('POST', '/v1/tasks', { body: Buffer.from(bytes) }), 201, openedBody);
      }),
      runs,
    );
  });
});

describe('no address and no header makes a fault of ours', () => {
  test('addresses', async () => {
    const piece = fc.oneof(
      fc.string({ unit: 'binary' }).map((text) => encodeURIComponent(text)),
      fc.stringMatching(/^[!-~]{0,20}$/),
      fc.constantFrom(
        'v1',
        'tasks',
        'grants',
        'problems',
        'docs',
        `task_${TASK_ID}`,
        '..',
        '%',
        '%00',
        '?wait=',
        '?',
        '#',
      ),
    );
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom('GET', 'POST', 'DELETE', 'PUT', 'HEAD', 'OPTIONS'),
        fc.array(piece, { maxLength: 5 }),
        async (method, pieces) => {
          const { status } = await app.ask(method, `/${pieces.join('/')}`);
          expect(status).toBeLessThan(500);
        },
      ),
      runs,
    );
  });

  test('headers', async () => {
    const value = fc.stringMatching(/^[ -~\u00a0-\u00ff]{0,40}$/);
    await fc.assert(
      fc.asyncProperty(
        fc.record(
          {
            authorization: value,
            host: fc.stringMatching(/^[!-~]{1,30}$/),
            'idempotency-key': value,
            'x-request-id': value,
            'x-forwarded-for': value,
            accept: value,
            'content-type': value,
            'content-encoding': value,
          },
          { requiredKeys: [] },
        ),
        async (headers) => {
          const { status, headers: answered } = await app.ask('POST', `/v1/tasks/task_${TASK_ID}/grants`, {
            headers,
            body: { entitlement: 'x/y' },
          });
          expect(status).toBeLessThan(500);
          expect(answered['x-request-id']).toMatch(/^[A-Za-z0-9._-]{1,64}$/);
        },
      ),
      runs,
    );
  });
});
