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
/** The default, which every client takes, and the least: a random password needs no stretching, and pgjdbc is the only one to refuse. */
const USUAL = 4096;
const LOW = 1;

const floorHandles: string[] = [];
const house = await startBenchHouse();
try {
  const token = await house.token();
  const rows: Row[] = [];
  await warmUp(token);
  for (const concurrency of [1, 8, 16] as const) rows.push(...(await compare(token, concurrency, USUAL, '')));
  await house.broker.apply(withIterations(LOW));
  rows.push(...(await compare(token, 16, LOW, ' low iterations')));
  report('mint', rows);
} finally {
  closeConnections();
  await house.stop();
}

/** The rows of one case, the broker's and the floor's. */
async function compare(token: string, concurrency: 1 | 8 | 16, iterations: number, suffix: string): Promise<Row[]> {
  const clients = await house.floorClients(concurrency);
  const floors: Measured[] = [];
  const brokers: Measured[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    floors.push(await mintFloor(clients, COUNT[concurrency], iterations));
    await dropFloor(clients);
    const tasks = await Promise.all(Array.from({ length: concurrency }, async () => openTask(token)));
    const credentials: Record<string, unknown>[] = [];
    brokers.push(
      await measure(COUNT[concurrency], concurrency, async (_, lane) => {
        credentials.push(await mintOurs(token, tasks[lane] ?? ''));
      }),
    );
    await checkLogins(credentials);
    await checkIterations(credentials, iterations);
    for (const task of tasks) await call('POST', `${house.url}/v1/tasks/${task}/complete?wait=60`, token, {});
  }
  await Promise.all(clients.map((client) => client.end()));
  const floor = joined(floors);
  const ours = joined(brokers);
  const of = `floor c${concurrency}${suffix}`;
  return [
    { case: `mint c${concurrency}${suffix}`, unit: 'grants/s', ...ours, ratio: ours.value / floor.value, of },
    { case: of, unit: 'roles/s', ...floor },
  ];
}

/** The catalog with another `scram_iterations` on its target. */
function withIterations(iterations: number): Record<string, string> {
  const name = 'targets/ledger-db.yaml';
  const text = house.files[name]?.replace('sslmode: disable', `sslmode: disable, scram_iterations: ${iterations}`);
  if (text === undefined) throw new Error(`the catalog has no ${name}`);
  return { ...house.files, [name]: text };
}

/** What is measured is what was asked for. */
async function checkIterations(credentials: readonly Record<string, unknown>[], iterations: number): Promise<void> {
  const [row] = await house.onTarget<{ others: number }>(
    `SELECT count(*) FILTER (WHERE a.rolpassword NOT LIKE $2)::int AS others FROM pg_authid a WHERE a.rolname = ANY ($1)`,
    [credentials.map(({ username }) => username), `SCRAM-SHA-256$${iterations}:%`],
  );
  if (row?.others !== 0) throw new Error(`${row?.others} roles were not made with ${iterations} iterations`);
}

/** A broker that has just started still compiles its code: what is measured is one that runs. */
async function warmUp(token: string): Promise<void> {
  const task = await openTask(token);
  await measure(600, 8, async () => {
    await mintOurs(token, task);
  });
  await call('POST', `${house.url}/v1/tasks/${task}/complete?wait=60`, token, {});
  const clients = await house.floorClients(8);
  await mintFloor(clients, 100, USUAL);
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

function mintFloor(clients: readonly pg.Client[], count: number, iterations: number): Promise<Measured> {
  return measure(count, clients.length, async (_, lane) => {
    const id = randomUUID();
    const handle = `mfy_${id.replaceAll('-', '')}`;
    const verifier = await scramVerifier(randomPassword(), iterations);
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
