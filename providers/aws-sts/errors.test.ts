import { expect, test } from 'vitest';
import { AwsClock } from './clock.ts';
import { classify } from './errors.ts';

function failure(name: string, status?: number) {
  const message = 'User: arn:aws:sts::1:assumed-role/x is not authorized with key SECRET';
  const $metadata = status === undefined ? {} : { httpStatusCode: status, requestId: 'abc-123' };
  return Object.assign(new Error(message), { name, $metadata });
}

test.each([
  ['AccessDenied', 403, 'denied', true, false],
  ['AccessDeniedException', 403, 'denied', true, false],
  ['ThrottlingException', 400, 'retryable', true, true],
  ['NoSuchEntityException', 404, 'misconfigured', true, false],
  ['InvalidClientTokenId', 403, 'denied', true, true],
  ['PackedPolicyTooLarge', 400, 'misconfigured', true, false],
  ['SomethingNew', 400, 'misconfigured', true, false],
  ['InternalFailure', 500, 'retryable', false, true],
  ['Throttling', 503, 'retryable', false, true],
  ['TimeoutError', undefined, 'retryable', false, true],
  ['SyntaxError', 200, 'retryable', false, true],
] as const)('%s with %s is %s', (name, status, errorClass, refused, wholeTarget) => {
  expect(classify(failure(name, status), 'trying')).toMatchObject({ errorClass, refused, wholeTarget });
});

test('of an error its code and request id are told, and nothing else', () => {
  const { message, cause } = classify(failure('AccessDenied', 403), 'trying');
  expect({ message, cause }).toEqual({
    message: 'trying: the broker lacks a permission (AccessDenied, request abc-123)',
    cause: undefined,
  });
});

test('AWS’s clock is corrected by no more than its answers show', () => {
  const clock = new AwsClock();
  expect(clock.offset).toBeNull();
  const at = Date.parse('2030-01-01T00:00:10.900Z');
  clock.heard('Tue, 01 Jan 2030 00:00:10 GMT', at - 50, at);
  expect(clock.offset).toBe(0);
  clock.heard('Tue, 01 Jan 2030 00:00:30 GMT', at + 50, at + 100);
  expect(clock.offset).toBe(19_000);
  clock.heard('nonsense', at, at);
  expect(clock.toTarget(new Date(0)).getTime()).toBe(19_000);
});
