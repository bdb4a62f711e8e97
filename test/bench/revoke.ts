import { randomUUID } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import type pg from 'pg';
import { randomPassword, scramVerifier } from '../../providers/postgres/scram.ts';
import { startBenchHouse } from './lib/bench-house.ts';
import { call, closeConnections } from './lib/http.ts';
import { joined, type Measured, measure, report, type Row } from './lib/report.ts';

/**
 * From due to verified gone. `revoke`: a task that holds as many grants as the case says ends, then the next one; `release`: as many
 * callers end one grant after another. Each waits until its own are contained; the round is over when the last one is clean. Beside
 * them the floor: the provider's own functions called straight through pg, one role at a time on each of as many connections.
 */
const ROUNDS = 3;
const COUNT = { 1: 25, 8: 240, 16: 480 } as const;

const house = await startBenchHouse();
try {
  const token = await house.token();
  const rows: Row[] = [];
  for (const concurrency of [1, 8, 16] as const) {
    const clients = await house.floorClients(concurrency);
    const floors: Measured[] = [];
    const revoked: Measured[] = [];
    const released: Measured[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      floors.push(await revokeFloor(clients, await mintFloor(clients, COUNT[concurrency])));
      revoked.push(await revokeOurs(token, concurrency, COUNT[concurrency]));
      released.push(await releaseOurs(token, concurrency, COUNT[concurrency]));
    }
    const floor = joined(floors);
    const of = `floor c${concurrency}`;
    for (const [name, measured] of [
      ['revoke', joined(revoked)],
      ['release', joined(released)],
    ] as const)
      rows.push({
        case: `${name} c${concurrency}`,
        unit: 'grants/s',
        ...measured,
        ratio: measured.value / floor.value,
        of,
      });
    rows.push({ case: `floor c${concurrency}`, unit: 'roles/s', ...floor });
    await Promise.all(clients.map((client) => client.end()));
  }
  report('revoke', rows);
} finally {
  closeConnections();
  await house.stop();
}

async function revokeOurs(token: string, held: number, count: number): Promise<Measured> {
  const tasks = await holdGrants(token, count / held, held);
  for (const { task } of tasks) await expectDone('POST', `/v1/tasks/${task}/complete`, token);
  return timesOf(tasks.flatMap(({ grants }) => grants));
}

async function releaseOurs(token: string, concurrency: number, count: number): Promise<Measured> {
  const grants = (await holdGrants(token, count, 1)).flatMap((task) => task.grants);
  await measure(count, concurrency, (index) => expectDone('DELETE', `/v1/grants/${grants[index]}`, token));
  return timesOf(grants);
}

interface Held {
  readonly task: string;
  readonly grants: string[];
}

async function holdGrants(token: string, tasks: number, each: number): Promise<Held[]> {
  const held: Held[] = [];
  await measure(tasks, 8, async () => {
    const opened = await call('POST', `${house.url}/v1/tasks`, token, { request: await house.sign() });
    const task = (opened.body['task'] as { id: string }).id;
    held.push({ task, grants: [] });
  });
  await measure(tasks * each, 8, async (index) => {
    const to = held[index % tasks];
    const issued = await call('POST', `${house.url}/v1/tasks/${to?.task}/grants`, token, {
      entitlement: 'ledger-db/read-invoices',
    });
    if (issued.status !== 201) throw new Error(`${issued.status} ${JSON.stringify(issued.body)}`);
    to?.grants.push((issued.body['grant'] as { id: string }).id);
  });
  return held;
}

async function expectDone(method: string, path: string, token: string): Promise<void> {
  const { status } = await call(method, `${house.url}${path}?wait=60`, token, method === 'POST' ? {} : undefined);
  if (status !== 200) throw new Error(`${path} answered ${status}`);
}

/** The times are the store's: from the moment that the obligation was due to the moment that it was seen to be clean. */
async function timesOf(grants: readonly string[]): Promise<Measured> {
  const ids = grants.map((id) => id.slice('grt_'.length));
  for (;;) {
    const [state] = await house.onStore<{ left: number; seconds: number; millis: number[] }>(
      `SELECT (count(*) FILTER (WHERE clean_at IS NULL))::int AS left, extract(epoch FROM max(clean_at) - min(due_at))::float8 AS seconds,
        array_agg((extract(epoch FROM clean_at - due_at) * 1000)::float8) AS millis FROM mayfly.revocations WHERE grant_id = ANY($1)`,
      [ids],
    );
    if (state !== undefined && state.left === 0)
      return { perSecond: grants.length / state.seconds, millis: state.millis };
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
