import { createHash, createHmac } from 'node:crypto';
import { expect, test } from 'vitest';
import { randomPassword, scramVerifier } from './scram.ts';

test('the verifier accepts the client proof and signs the server proof of RFC 7677 §3', async () => {
  const salt = Buffer.from('W22ZaJ0SNY7soEsUEjb6gQ==', 'base64');
  const verifier = await scramVerifier('pencil', 4096, salt);
  const [, head, keys] = verifier.split('$');
  expect(head).toBe('4096:W22ZaJ0SNY7soEsUEjb6gQ==');
  const [storedKey = '', serverKey = ''] = (keys ?? '').split(':').map((key) => Buffer.from(key, 'base64'));

  const authMessage =
    'n=user,r=rOprNGfwEbeRWgbNEkqO,' +
    'r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,' +
    'c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0';
  const proof = Buffer.from('dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=', 'base64');
  const clientSignature = createHmac('sha256', storedKey).update(authMessage).digest();
  const clientKey = Buffer.from(proof.map((byte, i) => byte ^ (clientSignature[i] ?? 0)));
  expect(createHash('sha256').update(clientKey).digest()).toEqual(storedKey);
  expect(createHmac('sha256', serverKey).update(authMessage).digest('base64')).toBe(
    '6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=',
  );
});

test('two verifiers of one password differ, by their salt', async () => {
  expect(await scramVerifier('pencil', 1)).not.toBe(await scramVerifier('pencil', 1));
});

test('a password has 192 bits in characters that a URL and SASLprep leave alone', () => {
  const password = randomPassword();
  expect(password).toMatch(/^[A-Za-z0-9_-]{32}$/);
  expect(randomPassword()).not.toBe(password);
});
