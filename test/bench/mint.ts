import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { randomPassword, scramVerifier } from '../../providers/postgres/scram.ts';
import { startBenchHouse } from './lib/bench-house.ts';
import { call, closeConnections } from './lib/http.ts';
import { joined, type Measured, measure, report, type Row } from './lib/report.ts';

/**
 * From the REST call to a login that works, beside the floor: password and verifier made, the same function called straight
 * through pg, nothing else. Floor and broker take turns, so that a drift of the machine hits both.
 */
const ROUNDS = 5;
const COUNT = { 1: 40, 8: 160, 16: 320 } as const;

const floorHandles: string[] = [];
const house = await startBenchHouse();
try {
  const token = await house.token();
  const rows: Row[] = [];
  await warmUp(token);
  for (const concurrency of [1, 8, 16] as const) {
    const clients = await house.floorClients(concurrency);
    const floors: Measured[] = [];
    const brokers: Measured[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      floors.push(await mintFloor(clients, COUNT[concurrency]));
      await dropFloor(clients);
      const tasks = await Promise.all(Array.from({ length: concurrency }, async () => openTask(token)));
      const credentials: Record<string, unknown>[] = [];
      brokers.push(
        await measure(COUNT[concurrency], concurrency, async (_, lane) => {
          credentials.push(await mintOurs(token, tasks[lane] ?? ''));
        }),
      );
      await checkLogins(credentials);
      for (const task of tasks) await call('POST', `${house.url}/v1/tasks/${task}/complete?wait=60`, token, {});
    }
    const floor = joined(floors);
    const ours = joined(brokers);
    rows.push({
      case: `mint c${concurrency}`,
      unit: 'grants/s',
      ...ours,
      ratio: ours.value / floor.value,
      of: `floor c${concurrency}`,
    });
    rows.push({ case: `floor c${concurrency}`, unit: 'roles/s', ...floor });
    await Promise.all(clients.map((client) => client.end()));
  }
  report('mint', rows);
} finally {
  closeConnections();
  await house.stop();
}

/** A broker that has just started still compiles its code: what is measured is one that runs. */
async function warmUp(token: string): Promise<void> {
  const task = await openTask(token);
  await measure(600, 8, async () => {
    await mintOurs(token, task);
  });
  await call('POST', `${house.url}/v1/tasks/${task}/complete?wait=60`, token, {});
  const clients = await house.floorClients(8);
  await mintFloor(clients, 100);
  await dropFloor(clients);
  await Promise.all(clients.map((client) => client.end()));
}

async function mintOurs(token: string, task: string): Promise<Record<string, unknown>> {
  const { status, body } = await call('POST', `${house.url}/v1/tasks/${task}/grants`, token, {
    entitlement: 'ledger-db/read-invoices',
  });
  if (status !== 201) throw new Error(`${status} ${JSON.stringify(body)}`);
  return body['credential'] as Record<string, unknown>;
}

async function openTask(token: string): Promise<string> {
  const { status, body } = await call('POST', `${house.url}/v1/tasks`, token, { request: await house.sign() });
  if (status !== 201) throw new Error(`${status} ${JSON.stringify(body)}`);
  return (body['task'] as { id: string }).id;
}

function mintFloor(clients: readonly pg.Client[], count: number): Promise<Measured> {
  return measure(count, clients.length, async (_, lane) => {
    const id = randomUUID();
    const handle = `mfy_${id.replaceAll('-', '')}`;
    const verifier = await scramVerifier(randomPassword(), 4096);
    const [until, mintBy] = [new Date(Date.now() + 300_000), new Date(Date.now() + 10_000)];
    await clients[lane]?.query({
      name: 'mint',
      text: 'SELECT role_oid, expires_at FROM mayfly.mint($1, $2, $3, $4, $5, $6, $7, $8, $9)',
      values: [house.broker.installation, handle, id, house.template, verifier, until, until, mintBy, 4],
    });
    floorHandles.push(handle);
  });
}

/** Both begin each round with as few live roles: the target counts them against its cap. */
async function dropFloor([client]: readonly pg.Client[]): Promise<void> {
  const handles = floorHandles.splice(0);
  const none = handles.map(() => null);
  const until = handles.map(() => new Date(Date.now() + 300_000));
  const id = house.broker.installation;
  await client?.query('SELECT outcome FROM mayfly.fence($1, $2::text[], $3::oid[], $4::timestamptz[], $5, $6)', [
    id,
    handles,
    none,
    until,
    20,
    false,
  ]);
  await client?.query('SELECT outcome FROM mayfly.drop($1, $2::text[], $3::oid[], $4, $5)', [
    id,
    handles,
    none,
    20,
    false,
  ]);
}

/** Every twentieth credential is used: what was measured must be a login that works. */
async function checkLogins(credentials: readonly Record<string, unknown>[]): Promise<void> {
  for (const credential of credentials.filter((_, index) => index % 20 === 0)) {
    const client = new pg.Client({ connectionString: String(credential['url']) });
    await client.connect();
    await client.query('SELECT count(*) FROM billing.invoices');
    await client.end();
  }
}
