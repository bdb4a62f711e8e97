import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { type Ledger, makeLedger, type Managed, soon } from './postgres-fixture.ts';

const modes: readonly (readonly [string, Managed | undefined])[] = [
  ['definer', undefined],
  ['createrole', { mode: 'createrole' }],
  ['pool', { mode: 'pool', poolSize: 4 }],
];

describe.each(modes)('what the target says of an end, mode %s', (name, managed) => {
  let server: PostgresServer;
  let ledger: Ledger;
  beforeAll(async () => {
    server = await startPostgres({ version: 18 });
    ledger = await makeLedger(server, `ends_${name}`, managed === undefined ? {} : { managed });
  });
  afterAll(async () => {
    await ledger?.close();
    await server?.stop();
  });

  test('is what it was told, and moves with a renewal before anybody else knows', async () => {
    const [kept, renewed] = [await ledger.mint(), await ledger.mint()];
    const refs = [kept, renewed].map(({ ref, minted }) => ({ ...ref, facts: minted.facts }));
    const [stays = refs[0], moves = refs[1]] = refs;
    if (stays === undefined || moves === undefined) throw new Error('nothing was minted');
    const until = new Date(moves.deadline.getTime() + 30_000);
    await ledger.session.renew?.(moves, until, soon());
    const unknown = ledger.ref();
    const ends = (await ledger.session.ends?.([unknown, moves, stays], soon())) ?? [];
    expect(ends[0]).toBeNull();
    // Never later than decided; earlier by the error of two clocks at most.
    const shortOf = (end: Date | null | undefined, told: Date) => told.getTime() - (end?.getTime() ?? 0);
    expect(shortOf(ends[1], until)).toBeGreaterThanOrEqual(0);
    expect(shortOf(ends[1], until)).toBeLessThan(10_000);
    expect(shortOf(ends[2], stays.deadline)).toBeGreaterThanOrEqual(0);
    expect(shortOf(ends[2], stays.deadline)).toBeLessThan(10_000);
    // Which no renewal does: it is not taken for one.
    await ledger.admin(`ALTER ROLE "${String(kept.minted.secret.reveal()['username'])}" VALID UNTIL 'infinity'`);
    expect(await ledger.session.ends?.([stays], soon())).toEqual([stays.deadline]);
  });

  test('is nothing in another cluster than the one that the facts name', async () => {
    const { ref, minted } = await ledger.mint();
    const foreign = { ...ref, facts: { ...minted.facts, system_identifier: '1' } };
    expect(await ledger.session.ends?.([foreign], soon())).toEqual([null]);
  });

  test('verify says whether it is open', async () => {
    const { ref, minted } = await ledger.mint();
    const mine = { ...ref, facts: minted.facts };
    expect(await ledger.session.verify([mine], soon())).toMatchObject([{ ok: true, contained: false, open: true }]);
    await ledger.session.fence([mine], soon());
    expect(await ledger.session.verify([mine], soon())).toMatchObject([{ ok: true, contained: true, open: false }]);
  });
});
