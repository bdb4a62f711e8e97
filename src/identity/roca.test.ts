import { generateKeyPairSync } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { bearsRocaMark } from './roca.ts';

describe('the mark of ROCA', () => {
  it('is borne by every power of 65537, multiplied as the faulty generator does', () => {
    // Any number is congruent to itself modulo all small primes at once, so plain powers do for moduli.
    for (const power of [1n, 2n, 17n, 128n]) expect(bearsRocaMark(65537n ** power)).toBe(true);
    const primorial = [
      2n,
      3n,
      5n,
      7n,
      11n,
      13n,
      17n,
      19n,
      23n,
      29n,
      31n,
      37n,
      41n,
      43n,
      47n,
      53n,
      59n,
      61n,
      67n,
      71n,
      73n,
      79n,
      83n,
      89n,
      97n,
      101n,
      103n,
      107n,
      109n,
      113n,
      127n,
      131n,
      137n,
      139n,
      149n,
      151n,
      157n,
      163n,
      167n,
    ].reduce((product, prime) => product * prime);
    expect(bearsRocaMark((12345n * primorial + 65537n ** 5n) * (678n * primorial + 65537n ** 9n))).toBe(true);
  });

  it('is borne by no modulus of an honest generator', () => {
    for (let n = 0; n < 2; n++) {
      const { n: modulus = '' } = generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey.export({
        format: 'jwk',
      });
      expect(bearsRocaMark(BigInt(`0x${Buffer.from(modulus, 'base64url').toString('hex')}`))).toBe(false);
    }
  });
});
