import pg from 'pg';
import { expect, test } from 'vitest';
import { ProviderError } from '../../src/provider.ts';
import { classify, ConnectionLost } from './errors.ts';

function answered(code: string, message = 'password "hunter2" in the text'): pg.DatabaseError {
  const error = new pg.DatabaseError(message, message.length, 'error');
  error.code = code;
  error.where = "SQL statement CREATE ROLE x PASSWORD 'hunter2'";
  return error;
}

test.each([
  ['28P01', 'denied'],
  ['28000', 'denied'],
  ['42501', 'denied'],
  ['3D000', 'misconfigured'],
  ['3F000', 'misconfigured'],
  ['42883', 'misconfigured'],
  ['25006', 'misconfigured'],
  ['53300', 'retryable'],
  ['53200', 'retryable'],
  ['55P03', 'retryable'],
  ['57014', 'retryable'],
  ['57P01', 'retryable'],
  ['57P03', 'retryable'],
  ['40001', 'retryable'],
  ['40P01', 'retryable'],
  ['08006', 'retryable'],
  ['XX000', 'retryable'],
  ['MF001', 'misconfigured'],
  ['MF002', 'retryable'],
  ['MF003', 'gone'],
  ['MF009', 'gone'],
])('SQLSTATE %s is %s', (code, errorClass) => {
  expect(classify(answered(code), 'minting')).toMatchObject({ errorClass });
});

test.each(['28P01', '42601', 'XX000', '57P01'])('what the driver said is dropped, also from the cause (%s)', (code) => {
  const error = classify(answered(code), 'minting');
  expect(`${error.message} ${String(error.cause)} ${JSON.stringify(error)} ${error.stack}`).not.toContain('hunter2');
  expect(error.message).toContain(code);
});

test('our own refusals keep their text', () => {
  expect(classify(answered('MF005', 'this template allows at most 60 seconds'), 'minting').message).toBe(
    'minting: this template allows at most 60 seconds (MF005)',
  );
});

test.each(['ECONNREFUSED', 'ECONNRESET', 'ETIMEDOUT', 'ENOTFOUND', 'EPIPE'])(
  '%s is retryable on another connection',
  (code) => {
    const error = classify(Object.assign(new Error('x'), { code }), 'fencing');
    expect(error).toBeInstanceOf(ConnectionLost);
    expect(error.errorClass).toBe('retryable');
  },
);

test.each([
  'ERR_TLS_CERT_ALTNAME_INVALID',
  'CERT_HAS_EXPIRED',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
])('%s is misconfigured', (code) => {
  expect(classify(Object.assign(new Error('x'), { code }), 'connecting')).toMatchObject({
    errorClass: 'misconfigured',
  });
});

test('what was classified stays as it is, and what nobody foresaw is retryable', () => {
  const known = new ProviderError('denied', 'known');
  expect(classify(known, 'x')).toBe(known);
  expect(classify('?', 'x')).toMatchObject({ errorClass: 'retryable' });
});

test('a pooler is told by how it refuses what only the broker says', () => {
  for (const error of [
    answered('08P01', 'unsupported startup parameter: statement_timeout=5'),
    answered('26000', 'prepared statement "mayfly_1" does not exist'),
    answered('42P05'),
  ]) {
    expect(classify(error, 'connecting')).toMatchObject({
      errorClass: 'misconfigured',
      message: 'connecting: a pooler answers; the broker must connect to the server directly',
    });
  }
  expect(classify(answered('08P01', 'SASL authentication failed'), 'connecting')).toMatchObject({
    errorClass: 'denied',
  });
});
