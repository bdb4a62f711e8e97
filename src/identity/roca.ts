/**
 * Keys made by Infineon's faulty library (ROCA, CVE-2017-15361) have primes of the form
 * `k·M + (65537^a mod M)`, so the modulus is a power of 65537 modulo every small prime. An honest modulus is so
 * by chance once in about 2^27. jose and OpenSSL accept such keys; factoring one of 2048 bits is affordable.
 */
const PRIMES = [
  3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109, 113,
  127, 131, 137, 139, 149, 151, 157, 163, 167,
];

const powersByPrime = PRIMES.map((prime) => ({ prime: BigInt(prime), powers: powersOf(65537 % prime, prime) }));

/** Whether an RSA modulus bears the mark of ROCA. */
export function bearsRocaMark(modulus: bigint): boolean {
  return powersByPrime.every(({ prime, powers }) => powers.has(Number(modulus % prime)));
}

function powersOf(base: number, prime: number): ReadonlySet<number> {
  const powers = new Set<number>();
  for (let power = 1; !powers.has(power); power = (power * base) % prime) powers.add(power);
  return powers;
}
