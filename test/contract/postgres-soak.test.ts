import { afterAll, beforeAll, expect, test } from 'vitest';
import { soak } from '../soak/lives.ts';
import { notBack, type Sizes } from '../soak/size.ts';
import { availableVersions, type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { type Ledger, makeLedger } from './postgres-fixture.ts';

/** A short one. The long one is `npm run soak -- postgres`. */
const [version] = availableVersions([18]);
let server: PostgresServer;
let ledger: Ledger;
beforeAll(async () => {
  if (version === undefined) return;
  server = await startPostgres({ version });
  ledger = await makeLedger(server, 'ledger', { maxLive: 500 });
});
afterAll(async () => {
  await ledger?.close();
  await server?.stop();
});

test.skipIf(version === undefined)(
  'after a thousand lives the catalogs are as they were: no role, no row of the registry, no bloat',
  async () => {
    const { before, half, full, after, overtaken } = await soak(ledger, { lives: 1000, rate: 10_000, iterations: 1 });
    expect(notBack(before, half, after)).toEqual([]);
    expect(overtaken).toBeGreaterThan(0);
    // It was not as if nothing had happened.
    expect(full.registered).toBeGreaterThanOrEqual(500);
    expect(full.roles).toBe(before.roles);
  },
  120_000,
);

test('what is left is said: roles, rows and bytes', () => {
  const table = { name: 't', rows: 10, dead: 0, heapBytes: 8192, indexBytes: 16_384 };
  const before: Sizes = { tables: [table], roles: 0, registered: 0 };
  expect(notBack(before, before, before)).toEqual([]);
  expect(notBack(before, before, { ...before, roles: 2, registered: 3 })).toHaveLength(2);
  expect(notBack(before, before, { ...before, tables: [{ ...table, rows: 11 }] })).toEqual(['t has 1 rows more']);
  expect(notBack(before, before, { ...before, tables: [{ ...table, heapBytes: 10_000_000 }] })).toHaveLength(1);
  expect(notBack(before, before, { ...before, tables: [{ ...table, indexBytes: 100_000_000 }] })).toHaveLength(1);
});
