import { expect, test } from 'vitest';
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
  ['Unknown', 408, 'retryable', false, true],
  ['Unknown', 499, 'retryable', false, true],
  ['RequestTimeoutException', 400, 'retryable', false, true],
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
