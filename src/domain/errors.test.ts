import { expect, test } from 'vitest';
import { MayflyError } from './errors.ts';
import { problemCodes, problemKind } from './problems.ts';
import { ProviderError } from './provider-error.ts';

test('a refusal says its code, its status, and what is public of it', () => {
  const bare = new MayflyError('task_ended');
  expect(bare).toMatchObject({ name: 'MayflyError', code: 'task_ended', status: 409, message: 'The task has ended' });
  expect(bare).toMatchObject({ detail: undefined, members: {}, errors: [], retryAfterSeconds: undefined });
  expect('cause' in bare).toBe(false);

  const errors = [{ path: '$.a', message: 'is missing' }];
  const told = new MayflyError('invalid_request', 'No.', { members: { n: 1 }, errors, cause: 'private' });
  expect(told).toMatchObject({ message: 'No.', detail: 'No.', members: { n: 1 }, errors, cause: 'private' });
});

test('what is not available now says when to ask again, and nothing else does by itself', () => {
  expect(new MayflyError('store_unavailable').retryAfterSeconds).toBe(2);
  expect(new MayflyError('store_unavailable', undefined, { retryAfterSeconds: 7 }).retryAfterSeconds).toBe(7);
  expect(new MayflyError('not_found').retryAfterSeconds).toBeUndefined();
});

test('each refusal has a status of the wire, a title and what to do next', () => {
  for (const code of problemCodes) {
    const { status, title, next } = problemKind(code);
    expect(status, code).toBeGreaterThanOrEqual(400);
    expect(title, code).not.toBe('');
    expect(next, code).not.toBe('');
  }
});

test('an error of a provider bears its class, and speaks of one item unless it says otherwise', () => {
  const cause = new Error('driver');
  expect(new ProviderError('denied', 'May not.')).toMatchObject({
    ...{ name: 'ProviderError', errorClass: 'denied', message: 'May not.', wholeTarget: false },
  });
  expect(new ProviderError('retryable', 'Away.', { cause, wholeTarget: true })).toMatchObject({
    ...{ wholeTarget: true, cause },
  });
});
