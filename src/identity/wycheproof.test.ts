import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { MayflyError } from '../domain/errors.ts';
import { decodeCompactJws } from './compact-jws.ts';
import { createIdentity } from './index.ts';
import { createKeySets } from './key-sets.ts';
import { requestRefusals } from './refusals.ts';
import { verifySignature } from './signed-token.ts';
import { believe, makeTrust } from './testing/trust.ts';

/**
 * Wycheproof's JOSE vectors (C2SP, Apache-2.0) through the door that every token passes: grammar, key vetting, kid,
 * algorithm, signature. Their payloads are no claims, so what follows the signature is not reached.
 */
const folder = new URL('../../../shared/vectors/wycheproof/', import.meta.url);
const there = existsSync(folder);
if (!there && process.env['CI'] === 'true') throw new Error(`the Wycheproof vectors are missing: ${folder.pathname}`);
if (!there) console.warn('SKIPPED: the Wycheproof vectors are not beside the repository');

const jwk = z.record(z.string(), z.unknown());
const keyOrSet = z.union([z.object({ keys: z.array(jwk) }), jwk.transform((key) => ({ keys: [key] }))]);
const vectorFile = z.object({
  numberOfTests: z.number(),
  testGroups: z.array(
    z.object({
      comment: z.string(),
      public: keyOrSet.optional(),
      private: keyOrSet.optional(),
      tests: z.array(
        z.object({ tcId: z.number(), comment: z.string(), jws: z.string(), result: z.enum(['valid', 'invalid']) }),
      ),
    }),
  ),
});

const ALGORITHMS = [
  'ES256',
  'ES384',
  'ES512',
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'EdDSA',
  'Ed25519',
];

function load(name: string) {
  const file = vectorFile.parse(JSON.parse(readFileSync(new URL(name, folder), 'utf8')));
  const vectors = file.testGroups.flatMap((group) =>
    group.tests.map((test) => ({
      ...test,
      group: group.comment,
      inline: group.public ?? group.private ?? { keys: [] },
    })),
  );
  expect(vectors).toHaveLength(file.numberOfTests);
  return vectors;
}

type Vector = ReturnType<typeof load>[number];

/** `accepted`, or the code of the refusal; anything but a MayflyError fails the test. */
async function verdict({ jws, inline }: Vector): Promise<string> {
  const keySets = createKeySets({
    fetch: globalThis.fetch,
    clock: () => 0,
    log: () => undefined,
    fetchTimeoutMs: 1,
  });
  const keys = keySets.of({ name: 'wycheproof', dev: false, jwks: { inline }, algorithms: ALGORITHMS });
  try {
    await verifySignature(decodeCompactJws(jws, requestRefusals), keys, requestRefusals);
    return 'accepted';
  } catch (error) {
    if (error instanceof MayflyError) return error.code;
    throw error;
  }
}

async function verdicts(vectors: readonly Vector[]): Promise<ReadonlyMap<number, string>> {
  return new Map(await Promise.all(vectors.map(async (vector) => [vector.tcId, await verdict(vector)] as const)));
}

const idsOf = (vectors: readonly Vector[]): number[] => vectors.map(({ tcId }) => tcId);

describe.skipIf(!there)('Wycheproof', () => {
  it('no invalid signature vector is accepted', async () => {
    const vectors = load('json_web_signature_test.json').filter(({ result }) => result === 'invalid');
    const accepted = [...(await verdicts(vectors))].filter(([, code]) => code === 'accepted');
    expect(vectors).toHaveLength(355);
    expect(accepted).toStrictEqual([]);
  });

  it('every valid signature vector is accepted, but those that our rules refuse by name', async () => {
    const vectors = load('json_web_signature_test.json').filter(({ result }) => result === 'valid');
    const found = await verdicts(vectors);
    const refused = (code: string): number[] => idsOf(vectors.filter(({ tcId }) => found.get(tcId) === code));
    const symmetric = vectors.filter(({ inline }) => inline.keys.every((key) => key['kty'] === 'oct'));

    // An empty part: no token of ours has an empty payload. 372 and 373 hold a `?`.
    expect(refused('request_malformed')).toStrictEqual([259, 264, 268, 272, 320, 325, 372, 373]);
    // The header's PS384 is not the key's PS256.
    expect(refused('request_algorithm_refused')).toStrictEqual([346, 350]);
    // No shared secrets; and `ES521`, the `alg` of the keys of 347 and 351, is no algorithm.
    const unknown = idsOf([...symmetric, ...vectors.filter(({ tcId }) => tcId === 347 || tcId === 351)]);
    expect(new Set(refused('request_key_unknown'))).toStrictEqual(
      new Set(unknown.filter((id) => id !== 372 && id !== 373)),
    );
    expect(refused('accepted')).toHaveLength(vectors.length - 8 - 2 - (unknown.length - 2));
    expect(refused('accepted')).toStrictEqual(
      expect.arrayContaining([18, 33, 260, 261, 262, 263, 265, 269, 273, 287, 321, 326, 345, 349, 378]),
    );
  });

  it('spellings that jose would decode are refused by the grammar alone, whatever the key', () => {
    const vectors = new Map(load('json_web_signature_test.json').map(({ tcId, jws }) => [tcId, jws]));
    const textOf = (tcId: number): string => vectors.get(tcId) ?? '';
    for (const tcId of [360, 361, 362, 363, 364, 365, 366, 368, 369, 371, 372, 373, 374, 375]) {
      expect(() => decodeCompactJws(textOf(tcId), requestRefusals)).toThrow(
        expect.objectContaining({ code: 'request_malformed' }),
      );
    }
    // Marked invalid for their padding, which the published file has lost: letter for letter they are the valid 357.
    for (const tcId of [367, 370]) expect(textOf(tcId)).toBe(textOf(357));
  });

  it('no invalid key is used: ROCA, e = 1, 1024 bits, off its curve, for another use', async () => {
    const vectors = load('json_web_key_test.json');
    const found = await verdicts(vectors);
    const accepted = idsOf(vectors.filter(({ tcId }) => found.get(tcId) === 'accepted'));
    // 5 is the only valid vector that is not symmetric.
    expect(accepted).toStrictEqual([5]);
    // ROCA is found in the key: its signature is good.
    expect(found.get(7)).toBe('request_key_unknown');
  });

  it('no vector makes the door itself stumble', async () => {
    const { context } = makeTrust();
    const identity = createIdentity();
    for (const { jws } of load('json_web_signature_test.json')) {
      const outcomes = await Promise.allSettled([
        identity.verifyTaskRequest(jws, context),
        believe(identity, `Bearer ${jws}`, context),
      ]);
      for (const outcome of outcomes) {
        expect(outcome).toMatchObject({ status: 'rejected', reason: expect.any(MayflyError) });
      }
    }
  });
});
