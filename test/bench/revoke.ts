import { randomUUID } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import type pg from 'pg';
import { randomPassword, scramVerifier } from '../../providers/postgres/scram.ts';
import { startBenchHouse } from './lib/bench-house.ts';
import { call, closeConnections } from './lib/http.ts';
import { joined, type Measured, measure, report, type Row } from './lib/report.ts';

/**
 * From due to verified gone: as many callers as the case says release one grant after another, each waiting until its own is
 * contained; the round is over when the last one is clean. Beside it the floor: the provider's own functions called straight
 * through pg, one role at a time on each of as many connections.
 */
const ROUNDS = 3;
const COUNT = { 1: 25, 8: 120, 16: 240 } as const;

const house = await startBenchHouse();
try {
  const token = await house.token();
  const rows: Row[] = [];
  for (const concurrency of [1, 8, 16] as const) {
    const clients = await house.floorClients(concurrency);
    const floors: Measured[] = [];
    const ours: Measured[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      floors.push(await revokeFloor(clients, await mintFloor(clients, COUNT[concurrency])));
      ours.push(await revokeOurs(token, concurrency, COUNT[concurrency]));
    }
    const floor = joined(floors);
    const broker = joined(ours);
    rows.push({
      case: `revoke c${concurrency}`,
      unit: 'grants/s',
      ...broker,
      ratio: broker.value / floor.value,
      of: `floor c${concurrency}`,
    });
    rows.push({ case: `floor c${concurrency}`, unit: 'roles/s', ...floor });
    await Promise.all(clients.map((client) => client.end()));
  }
  report('revoke', rows);
} finally {
  closeConnections();
  await house.stop();
}

/** The times are the store's: from the moment that the obligation was due to the moment that it was seen to be clean. */
async function revokeOurs(token: string, concurrency: number, count: number): Promise<Measured> {
  const grants: string[] = [];
  await measure(count, 8, async () => {
    const opened = await call('POST', `${house.url}/v1/tasks`, token, {
      request: await house.sign(),
      issue: ['ledger-db/read-invoices'],
    });
    const [issued] = opened.body['issued'] as { grant?: { id: string } }[];
    if (issued?.grant === undefined) throw new Error(`${opened.status} ${JSON.stringify(opened.body)}`);
    grants.push(issued.grant.id);
  });
  await measure(count, concurrency, async (index) => {
    const { status } = await call('DELETE', `${house.url}/v1/grants/${grants[index]}?wait=60`, token);
    if (status !== 200) throw new Error(`a release answered ${status}`);
  });
  const ids = grants.map((id) => id.slice('grt_'.length));
  for (;;) {
    const [state] = await house.onStore<{ left: number; seconds: number; millis: number[] }>(
      `SELECT (count(*) FILTER (WHERE clean_at IS NULL))::int AS left, extract(epoch FROM max(clean_at) - min(due_at))::float8 AS seconds,
        array_agg((extract(epoch FROM clean_at - due_at) * 1000)::float8) AS millis FROM mayfly.revocations WHERE grant_id = ANY($1)`,
      [ids],
    );
    if (state !== undefined && state.left === 0) return { perSecond: count / state.seconds, millis: state.millis };
    await pause(20);
  }
}

interface FloorRole {
  readonly handle: string;
  readonly oid: number;
}

async function mintFloor(clients: readonly pg.Client[], count: number): Promise<FloorRole[]> {
  const verifier = await scramVerifier(randomPassword(), 4096);
  const roles: FloorRole[] = [];
  await measure(count, clients.length, async (_, lane) => {
    const id = randomUUID();
    const handle = `mfy_${id.replaceAll('-', '')}`;
    const until = new Date(Date.now() + 300_000);
    const minted = await clients[lane]?.query<{ role_oid: number }>(
      'SELECT role_oid FROM mayfly.mint($1, $2, $3, $4, $5, $6, $7, $8, $9)',
      [house.broker.installation, handle, id, house.template, verifier, until, until, new Date(Date.now() + 10_000), 4],
    );
    roles.push({ handle, oid: minted?.rows[0]?.role_oid ?? 0 });
  });
  return roles;
}

function revokeFloor(clients: readonly pg.Client[], roles: readonly FloorRole[]): Promise<Measured> {
  const id = house.broker.installation;
  return measure(roles.length, clients.length, async (index, lane) => {
    const client = clients[lane];
    const role = roles[index];
    if (client === undefined || role === undefined) return;
    const run = (name: string, text: string, values: unknown[]) => client.query({ name, text, values });
    await run('fence', 'SELECT outcome FROM mayfly.fence($1, $2::text[], $3::oid[], $4::timestamptz[], $5, $6)', [
      id,
      [role.handle],
      [role.oid],
      [new Date(Date.now() + 300_000)],
      20,
      false,
    ]);
    await run('unlink', 'SELECT outcome FROM mayfly.unlink($1, $2::oid[], $3)', [id, [role.oid], 20]);
    for (let sweep = 0; sweep < 3; sweep++) {
      if (sweep > 0) await pause(15);
      await run('kill', 'SELECT mayfly.kill($1, $2::oid[], $3::int[])', [id, [role.oid], []]);
    }
    await run('look', 'SELECT * FROM mayfly.look($1::text[], $2::oid[])', [[role.handle], [role.oid]]);
    await run('drop', 'SELECT outcome FROM mayfly.drop($1, $2::text[], $3::oid[], $4, $5)', [
      id,
      [role.handle],
      [role.oid],
      20,
      false,
    ]);
    await run('kill', 'SELECT mayfly.kill($1, $2::oid[], $3::int[])', [id, [role.oid], []]);
    const { rows: seen } = await run('look', 'SELECT * FROM mayfly.look($1::text[], $2::oid[])', [
      [role.handle],
      [role.oid],
    ]);
    if (JSON.stringify(seen).includes('"can_login":true') || seen.length !== 1)
      throw new Error('the floor left a role alive');
  });
}
