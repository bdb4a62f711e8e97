import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import type { Facts } from '../../src/domain/grant.ts';
import type { GrantId } from '../../src/domain/ids.ts';
import { endBatch } from '../../src/revocation/end-batch.ts';
import { keepLateFacts, type TakenUpAgain } from '../../src/store/late-facts.ts';
import { type Born, type EngineHouse, type EngineTarget, only, startEngineHouse } from '../support/engine.ts';

let house: EngineHouse;
let target: EngineTarget;
/** What the target says of all that it makes. */
let facts: Facts;
beforeAll(async () => {
  house = await startEngineHouse();
});
beforeEach(() => {
  target = house.target();
  facts = { incarnation: target.synthetic.system.incarnation };
});
afterAll(async () => {
  await house?.stop();
});

/** As whoever minted does, whose target answered after the grant had ended. */
async function answerLate(born: Born): Promise<TakenUpAgain | undefined> {
  return await house.deps.db.transaction({}, async (tx) => await keepLateFacts(tx, grantIdOf(born), facts));
}

function grantIdOf({ id }: Born): GrantId {
  return id as GrantId;
}

async function factsOf({ id }: Born): Promise<unknown> {
  return only(await house.onStore<{ facts: unknown }>('SELECT facts FROM mayfly.grants WHERE id = $1', [id])).facts;
}

test('what is made after its end is kept for whoever ends it', async () => {
  const born = only(await target.bear(1, { lost: true }));
  await target.end([born]);
  expect(await answerLate(born)).toBeUndefined();
  expect(await factsOf(born)).toEqual(facts);
  expect(only((await target.claim()).items).facts).toEqual(facts);
});

test('what is made while it is being ended is not called contained by a claim that did not know of it', async () => {
  const { born, claim } = await target.claimed(1, { lost: true });
  expect(await answerLate(only(born))).toEqual({ containedAt: null, cleanAt: null, writtenOffAt: null });
  expect(await house.standing(only(born))).toMatchObject({ state: 'revoking', revocation: 'due', claimed_by: null });
  await endBatch(house.deps, claim);
  expect(await house.standing(only(born))).toMatchObject({ state: 'revoking', revocation: 'due' });
  await endBatch(house.deps, await target.claim());
  expect(await house.standing(only(born))).toMatchObject({ state: 'revoked', revocation: 'contained' });
});

const SET = 'UPDATE mayfly.revocations SET';
const CONTAINED = `${SET} state = 'contained', contained_at = clock_timestamp() WHERE grant_id = $1`;
const REVOKED = `UPDATE mayfly.grants SET state = 'revoked' WHERE id = $1`;

test.each([
  ['contained', [CONTAINED, REVOKED]],
  ['clean', [CONTAINED, REVOKED, `${SET} state = 'clean', clean_at = clock_timestamp() WHERE grant_id = $1`]],
  [
    'written off',
    [
      `${SET} state = 'due', claimed_by = NULL, claimed_until = NULL WHERE grant_id = $1`,
      `${SET} state = 'written_off', written_off_at = clock_timestamp(), written_off_by = 'dana', written_off_reason = 'gone' WHERE grant_id = $1`,
    ],
  ],
])('what is %s is owed its end once more', async (state, reached) => {
  const { born } = await target.claimed(1, { lost: true });
  const one = only(born);
  for (const statement of reached) await house.onStore(statement, [one.id]);
  const was = Object.values((await answerLate(one)) ?? {}).filter((time) => time !== null);
  expect(was).toHaveLength(state === 'clean' ? 2 : 1);
  expect(await house.standing(one)).toMatchObject({ state: 'revoking', revocation: 'due', attempts: 0 });
  expect(await factsOf(one)).toEqual(facts);
});

test('of a grant that is alive nothing changes', async () => {
  const born = only(await target.bear(1));
  const before = await factsOf(born);
  expect(await answerLate(born)).toBeUndefined();
  expect(await house.standing(born)).toMatchObject({ state: 'active', revocation: 'scheduled' });
  expect(await factsOf(born)).toEqual(before);
});
