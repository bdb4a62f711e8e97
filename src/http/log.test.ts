import { describe, expect, test } from 'vitest';
import { MayflyError } from '../domain/errors.ts';
import { Secret } from '../domain/secret.ts';
import { createLogger } from './log.ts';

const CANARY = 'canary-4f1e';

function logged(event: object): { text: string; line: Record<string, unknown> } {
  const lines: string[] = [];
  createLogger('trace', { write: (text: string) => void lines.push(text) }).error(event, 'message');
  const text = lines.join('');
  return { text, line: JSON.parse(text) as Record<string, unknown> };
}

describe('a line of the log', () => {
  test('is JSON with a level in words, a time in UTC and no name of the machine', () => {
    const { line } = logged({ grant_id: 'grt_1' });
    expect(line).toEqual({
      level: 'error',
      time: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
      grant_id: 'grt_1',
      msg: 'message',
    });
  });

  test('prints no secret, however deep it lies', () => {
    const secret = new Secret({ password: CANARY });
    const { text } = logged({ secret, a: { b: { c: [{ secret }] } }, text: String(secret) });
    expect(text).not.toContain(CANARY);
    expect(text).toContain('[secret]');
  });

  test('tells of an error its message, code, stack and causes', () => {
    const cause = Object.assign(new Error('refused'), { code: 'ECONNREFUSED' });
    const { line } = logged({ error: new MayflyError('store_unavailable', undefined, { cause }) });
    expect(line['error']).toMatchObject({
      name: 'MayflyError',
      message: 'The store is not available',
      code: 'store_unavailable',
      stack: expect.stringContaining('log.test.ts'),
      cause: { message: 'refused', code: 'ECONNREFUSED' },
    });
  });

  test('tells nothing else that a driver hung on its error', () => {
    const error = Object.assign(new Error('syntax error'), {
      query: `ALTER ROLE x PASSWORD '${CANARY}'`,
      parameters: [CANARY],
      client: { connectionParameters: { password: CANARY } },
      detail: CANARY,
    });
    for (const key of ['err', 'error'])
      expect(logged({ [key]: new Error('outer', { cause: error }) }).text).not.toContain(CANARY);
  });

  test.each([
    `connect to postgres://mayfly:${CANARY}@db.example:5432/store failed`,
    `connect to redis://:${CANARY}/with/slashes@cache.example failed`,
    `bad token eyJhbGciOiJub25lIn0.eyJzdWIiOiJ${CANARY}.sig-${CANARY}`,
    `role has SCRAM-SHA-256$4096:salt${CANARY}$stored:${CANARY}`,
  ])('hides what others’ messages quote: %s', (message) => {
    const { text } = logged({ error: new Error(message) });
    expect(text).not.toContain(CANARY);
  });

  test('is bounded, also for an error that causes itself', () => {
    const error: Error & { cause?: unknown } = new Error('x'.repeat(1_000_000));
    error.cause = error;
    expect(logged({ error }).text.length).toBeLessThan(50_000);
    expect(logged({ error: { [CANARY]: 1 } }).text).not.toContain(CANARY);
  });

  test('can be made of anything thrown', () => {
    expect(logged({ error: 'a string' }).line['error']).toEqual({ name: 'string', message: 'a string' });
    expect(logged({ error: undefined }).line['msg']).toBe('message');
  });
});
