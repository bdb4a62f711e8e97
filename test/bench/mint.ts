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

const house = await startBenchHouse();
try {
  const token = await house.token();
  const rows: Row[] = [];
  for (const concurrency of [1, 8, 16] as const) {
    const clients = await house.floorClients(concurrency);
    const tasks = await Promise.all(Array.from({ length: concurrency }, async () => openTask(token)));
    const rounds: { floor: Measured[]; ours: Measured[] } = { floor: [], ours: [] };
    const credentials: Record<string, unknown>[] = [];
    await mintFloor(clients, 20);
    for (let round = 0; round < ROUNDS; round++) {
      rounds.floor.push(await mintFloor(clients, COUNT[concurrency]));
      rounds.ours.push(
        await measure(COUNT[concurrency], concurrency, async (_, lane) => {
          const { status, body } = await call('POST', `${house.url}/v1/tasks/${tasks[lane]}/grants`, token, {
            entitlement: 'ledger-db/read-invoices',
          });
          if (status !== 201) throw new Error(`${status} ${JSON.stringify(body)}`);
          credentials.push(body['credential'] as Record<string, unknown>);
        }),
      );
    }
    await checkLogins(credentials);
    const floor = joined(rounds.floor);
    const ours = joined(rounds.ours);
    rows.push({
      case: `mint c${concurrency}`,
      unit: 'grants/s',
      ...ours,
      ratio: ours.value / floor.value,
      of: `floor c${concurrency}`,
    });
    rows.push({ case: `floor c${concurrency}`, unit: 'roles/s', ...floor });
    await Promise.all(clients.map((client) => client.end()));
    for (const task of tasks) await call('POST', `${house.url}/v1/tasks/${task}/complete?wait=60`, token, {});
  }
  report('mint', rows);
} finally {
  closeConnections();
  await house.stop();
}

async function openTask(token: string): Promise<string> {
  const { status, body } = await call('POST', `${house.url}/v1/tasks`, token, { request: await house.sign() });
  if (status !== 201) throw new Error(`${status} ${JSON.stringify(body)}`);
  return (body['task'] as { id: string }).id;
}

function mintFloor(clients: readonly pg.Client[], count: number): Promise<Measured> {
  return measure(count, clients.length, async (_, lane) => {
    const id = randomUUID();
    const verifier = await scramVerifier(randomPassword(), 4096);
    const [until, mintBy] = [new Date(Date.now() + 300_000), new Date(Date.now() + 10_000)];
    await clients[lane]?.query({
      name: 'mint',
      text: 'SELECT role_oid, expires_at FROM mayfly.mint($1, $2, $3, $4, $5, $6, $7, $8, $9)',
      values: [
        house.broker.installation,
        `mfy_${id.replaceAll('-', '')}`,
        id,
        house.template,
        verifier,
        until,
        until,
        mintBy,
        4,
      ],
    });
  });
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
