import { expect, test } from 'vitest';
import { Secret } from '../../domain/secret.ts';
import { matchesVerifier, scramVerifier } from './scram.ts';

test('a verifier is the one of RFC 7677 §3', async () => {
  const salt = Buffer.from('W22ZaJ0SNY7soEsUEjb6gQ==', 'base64');
  expect(await scramVerifier(new Secret('pencil'), salt, 4096)).toBe(
    'SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=',
  );
});

test('a verifier matches its own password and no other, and differs every time', async () => {
  const [one, two] = await Promise.all([scramVerifier(new Secret('a')), scramVerifier(new Secret('a'))]);
  expect(one).not.toBe(two);
  expect(await matchesVerifier(new Secret('a'), one)).toBe(true);
  expect(await matchesVerifier(new Secret('b'), one)).toBe(false);
});

test.each([null, '', 'md5abc', 'SCRAM-SHA-256$4096:x', 'a'])(
  'nothing matches what is no verifier: %s',
  async (stored) => {
    expect(await matchesVerifier(new Secret('a'), stored)).toBe(false);
  },
);
