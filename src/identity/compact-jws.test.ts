import { createPublicKey } from 'node:crypto';
import fc from 'fast-check';
import { compactVerify } from 'jose';
import { describe, expect, it } from 'vitest';
import { decodeBase64url, decodeCompactJws } from './compact-jws.ts';
import { requestRefusals } from './refusals.ts';
import { makeKey, signInput, signText } from './testing/keys.ts';

const key = makeKey('k');
const decode = (text: string) => decodeCompactJws(text, requestRefusals);
const headerText = JSON.stringify({ alg: 'ES256', kid: 'k' });
const malformed: unknown = expect.objectContaining({ code: 'request_malformed' });

/** Signed over the parts as they are spelled, so that the signature holds. */
function spelled(change: (part: string, at: number) => string): string {
  // A payload of one byte has four bits to spare, the header two.
  const [header = '', payload = ''] = signText(key, `${headerText}  `, 'a').split('.').map(change);
  const signature = signInput(key, `${header}.${payload}`).toString('base64url');
  return `${header}.${payload}.${change(signature, 2)}`;
}

describe('decodeCompactJws', () => {
  it('gives header and payload, which need not be JSON', () => {
    const text = signText(key, headerText, Buffer.from([0, 255]));
    expect(decode(text)).toStrictEqual({ text, header: { alg: 'ES256', kid: 'k' }, payload: Buffer.from([0, 255]) });
  });

  it.each<readonly [name: string, change: (part: string, at: number) => string]>([
    ['a space before the header', (part, at) => (at === 0 ? ` ${part}` : part)],
    ['spaces in the payload', (part, at) => (at === 1 ? `${part.slice(0, 1)}  ${part.slice(1)}` : part)],
    ['a line break in the signature', (part, at) => (at === 2 ? `${part.slice(0, 40)}\n${part.slice(40)}` : part)],
    ['a padded payload', (part, at) => (at === 1 ? `${part}==` : part)],
    ['a padded signature', (part, at) => (at === 2 ? `${part}==` : part)],
    ['stray bits in the payload', (part, at) => (at === 1 ? `${part.slice(0, 1)}R` : part)],
  ])('refuses %s, with a signature that holds: jose takes it', async (_name, change) => {
    const text = spelled(change);
    await expect(compactVerify(text, createPublicKey(key.privateKey))).resolves.toBeDefined();
    expect(() => decode(text)).toThrow(malformed);
  });

  it('has exactly one spelling for each run of bytes', () => {
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/= \n';
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 1, maxLength: 40 }),
        fc.string({ unit: fc.constantFrom(...alphabet.split('')), maxLength: 6 }),
        (bytes, tail) => {
          const canonical = Buffer.from(bytes).toString('base64url');
          expect(decodeBase64url(canonical)).toStrictEqual(Buffer.from(bytes));
          const other = canonical.slice(0, -1) + tail;
          const decoded = decodeBase64url(other);
          expect(decoded === undefined || decoded.toString('base64url') === other).toBe(true);
          expect(other !== canonical && decoded?.equals(Buffer.from(bytes)) === true).toBe(false);
        },
      ),
    );
  });
});
