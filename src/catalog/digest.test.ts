import { expect, test } from 'vitest';
import { catalogDigest } from './digest.ts';

test('the digest is sha256 in hex and does not depend on the order of files', () => {
  const digest = catalogDigest({ 'a.yaml': '1', 'b.yaml': '2' });
  expect(digest).toMatch(/^sha256:[0-9a-f]{64}$/);
  expect(catalogDigest({ 'b.yaml': '2', 'a.yaml': '1' })).toBe(digest);
});

test('it stays the same over releases: stored revisions are known by it', () => {
  expect(catalogDigest({ 'trust.yaml': '{}\n', 'policies/ä.cedar': 'é' })).toBe(
    'sha256:c72b56c0d6e2c2ce18c8c64e7af24a7f7269499da03085b18ae0e27869387f7f',
  );
});

test('every change of a path or a content changes it', () => {
  const digests = [
    {},
    { a: '' },
    { a: 'b' },
    { ab: '' },
    { a: '', b: '' },
    { a: '1:b0:' },
    { a: 'é' },
    { a: 'e\u0301' },
  ].map(catalogDigest);
  expect(new Set(digests).size).toBe(digests.length);
});
