import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { answers, hangs, refuses } from '../support/synthetic/faults.ts';
import { startSyntheticHouse, type SyntheticHouse } from '../support/synthetic/house.ts';

const EACH = 60;
const sick = ['hanging', 'refusing', 'babbling'] as const;

let server: PostgresServer;
let house: SyntheticHouse;
beforeAll(async () => {
  server = await startPostgres({ version: 18 });
  house = await startSyntheticHouse(server, {
    hanging: 'handles',
    refusing: 'handles',
    babbling: 'handles',
    healthy: 'handles',
  });
});
afterAll(async () => {
  await house?.stop();
  await server?.stop();
});

async function statesOn(target: string): Promise<string[]> {
  const rows = await house.onStore<{ state: string }>(
    `SELECT DISTINCT g.state FROM mayfly.grants g JOIN mayfly.revocations r ON r.grant_id = g.id
     WHERE g.target = $1 AND r.state <> 'scheduled'`,
    [target],
  );
  return rows.map(({ state }) => state);
}

test('a storm on three sick targets and a healthy one: its grants are contained while theirs are not, and issuing goes on', async () => {
  const names = [...sick, 'healthy'];
  const tasks = await Promise.all(
    Array.from({ length: 4 }, async () => {
      const task = await house.openTask(...names);
      for (const name of names) await Promise.all(Array.from({ length: EACH / 4 }, () => house.issue(task, name)));
      return task;
    }),
  );
  house.target('hanging').faults.set('fence', hangs);
  house.target('refusing').faults.set('fence', refuses('denied', 'May not.'));
  house.target('babbling').faults.set(
    'verify',
    answers(() => 'fine'),
  );
  await Promise.all(tasks.map((task) => house.client.cancel(task)));

  await vi.waitFor(() => expect(house.target('hanging').count('fence')).toBeGreaterThan(0), { timeout: 60_000 });
  const later = await house.openTask(...names);
  const issued = await Promise.all(names.map((name) => house.issue(later, name)));
  expect(issued.map(({ state }) => state)).toEqual(names.map(() => 'active'));
  await vi.waitFor(async () => expect(await statesOn('healthy')).toEqual(['revoked']), {
    timeout: 60_000,
    interval: 25,
  });
  for (const name of sick) {
    expect(await statesOn(name)).toEqual(['revoking']);
    expect(house.target(name).count('fence')).toBeGreaterThan(0);
  }
  // The calls that hung at first hung still: nothing there waited for a time-out.
  const waited = await house.onStore(
    `SELECT FROM mayfly.revocations h, mayfly.revocations s WHERE h.target = 'healthy' AND s.target = 'hanging' AND h.contained_at > s.last_error_at`,
  );
  expect(waited).toEqual([]);

  await house.client.cancel(later);
  for (const name of sick) house.target(name).faults.clear();
  for (const name of names) {
    await vi.waitFor(async () => expect(await statesOn(name)).toEqual(['revoked']), { timeout: 60_000, interval: 50 });
    expect(
      house
        .target(name)
        .system.all()
        .some(({ handle }) => house.target(name).system.accepts(handle)),
    ).toBe(false);
  }
});
