import { setTimeout as pause } from 'node:timers/promises';
import { DURABLE } from './lib/bench-house.ts';
import { entitlements, haveSystems, startThreeSystems, type System, SYSTEMS } from '../support/three-systems.ts';
import { startPostgres } from '../support/postgres-servers.ts';
import { measure, quantile, report, type Row } from './lib/report.ts';

/**
 * A task that holds 1, 3, 10, 100 grants in PostgreSQL, AWS (MiniStack) and OpenBao is cancelled: from the request until all of them are
 * contained, seen in each system. Beside it, by turns, a task that holds as many in one of the systems as fall to that one; the ratio is to
 * the slowest of these. `--rounds N`.
 */
if (!haveSystems) throw new Error('npm run test:servers -- ministack openbao');
const at = process.argv.indexOf('--rounds');
const ROUNDS = at < 0 ? 9 : Number(process.argv[at + 1]);

const server = await startPostgres({ version: 18, settings: DURABLE });
const systems = await startThreeSystems({ server, inProcess: false, maxLive: 1000 });
try {
  const rows: Row[] = [];
  for (const count of [1, 3, 10, 100]) {
    const all = SYSTEMS.map((system, index) => ({ system, grants: Math.floor((count + 2 - index) / 3) }));
    // One grant falls to each system by turns.
    const shares = count === 1 ? SYSTEMS.map((system) => ({ system, grants: 1 })) : all;
    const together: number[] = [];
    const alone = new Map<System, number[]>(SYSTEMS.map((system) => [system, []]));
    for (let round = 0; round < ROUNDS; round++) {
      const turn = shares[round % 3];
      together.push(await contain(count === 1 && turn !== undefined ? [turn] : all));
      for (const share of shares) alone.get(share.system)?.push(await contain([share]));
    }
    const singles = shares.map(({ system, grants }) => ({
      name: `${system} alone ${grants} of ${count}`,
      ...times(alone.get(system) ?? []),
    }));
    const [slowest] = singles.toSorted((a, b) => b.p50_ms - a.p50_ms);
    const { p50_ms, p99_ms } = times(together);
    if (slowest === undefined) throw new Error('no system');
    rows.push({
      ...{ case: `all contained ${count}`, unit: 'grants', value: count, p50_ms, p99_ms },
      ...{ ratio: p50_ms / slowest.p50_ms, of: slowest.name },
    });
    for (const { name, ...single } of singles) rows.push({ case: name, unit: 'grants', value: count, ...single });
  }
  report('contain', rows);
} finally {
  await systems.stop();
  await server.stop();
}

function times(millis: readonly number[]): { p50_ms: number; p99_ms: number } {
  return { p50_ms: quantile(millis, 0.5), p99_ms: quantile(millis, 0.99) };
}

/** Milliseconds from the request to the last of them contained, by the store's clock, which is this machine's. */
async function contain(held: readonly { readonly system: System; readonly grants: number }[]): Promise<number> {
  const { house } = systems;
  const client = house.client();
  const used = held.filter(({ grants }) => grants > 0);
  const names = used.map(({ system }) => entitlements[system].confidential);
  const { task } = await client.openTask(await house.sign({ entitlements: names, ttl: 600 }));
  const asked = used.flatMap(({ system, grants }) => Array.from({ length: grants }, () => system));
  await measure(asked.length, 8, async (index) => {
    const system = asked[index] ?? 'ledger-db';
    const { grant } = await client.issue(task.id, { entitlement: entitlements[system].confidential, ttl_seconds: 300 });
    if (grant.state !== 'active') throw new Error(`a grant is ${grant.state}`);
  });
  const began = Date.now();
  await client.cancel(task.id, { wait: 0 });
  for (;;) {
    const [state] = await house.onStore<{ total: number; left: number; last: number }>(
      `SELECT count(*)::int AS total, (count(*) FILTER (WHERE r.contained_at IS NULL))::int AS left,
        (extract(epoch FROM max(r.contained_at)) * 1000)::float8 AS last
       FROM mayfly.grants g JOIN mayfly.revocations r ON r.grant_id = g.id WHERE g.task_id = $1`,
      [task.id.slice(task.id.indexOf('_') + 1)],
    );
    if (state?.left === 0 && state.total === asked.length) return state.last - began;
    await pause(20);
  }
}
