import { spawnSync } from 'node:child_process';
import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { parse } from 'yaml';
import { z } from 'zod';
import { startCli } from '../support/cli.ts';
import { type House, startHouse } from '../support/house.ts';
import type { PostgresServer } from '../support/postgres-servers.ts';
import { startStandby } from '../support/postgres-standby.ts';

const TARGET = 'targets/ledger-db.yaml';
const psql = findPsql();

/** A missing one is said aloud on a laptop and fails in CI. */
function findPsql(): boolean {
  if (spawnSync('psql', ['--version']).status === 0) return true;
  const says = 'psql was not found in PATH (on Debian: postgresql-client-15)';
  if (process.env['CI'] === 'true') throw new Error(says);
  console.warn(`\n*** SKIPPED: ${says}: the CronJob is not run ***\n`);
  return false;
}

const containerSchema = z.object({
  name: z.string(),
  command: z.array(z.string()),
  env: z.array(
    z.union([
      z.strictObject({ name: z.string(), value: z.string() }),
      z.strictObject({
        name: z.literal('PGPASSWORD'),
        valueFrom: z.strictObject({ secretKeyRef: z.strictObject({ name: z.string(), key: z.string() }) }),
      }),
    ]),
  ),
});
const manifestSchema = z.object({
  apiVersion: z.literal('batch/v1'),
  kind: z.literal('CronJob'),
  metadata: z.object({ name: z.string() }),
  spec: z.object({
    schedule: z.literal('* * * * *'),
    jobTemplate: z.object({
      spec: z.object({ template: z.object({ spec: z.object({ containers: z.array(containerSchema) }) }) }),
    }),
  }),
});
type Manifest = z.infer<typeof manifestSchema>;

let house: House;
let standby: PostgresServer;
beforeAll(async () => {
  house = await startHouse();
  standby = await startStandby(house.targetServer, { name: 'replica-1' });
  const text = house.files[TARGET] ?? '';
  const listed = `sslmode: disable, standbys: [{ name: replica-1, host: 127.0.0.1, port: ${standby.port} }]`;
  await house.broker.apply({ ...house.files, [TARGET]: text.replace('sslmode: disable', listed) });
});
afterAll(async () => {
  await standby?.stop();
  await house?.stop();
});

async function printed(): Promise<Manifest> {
  const env = { MAYFLY_DATABASE_URL: house.store.runtimeUrl.reveal() };
  const args = ['target', 'prepare', 'ledger-db', '--expire-cronjob'];
  const { code, stdout, stderr } = await startCli(args, { env }).ended;
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  expect(stdout).not.toContain(house.targetPassword);
  return manifestSchema.parse(parse(stdout));
}

/** As the kubelet would: that command with that environment and nothing else of the job's; the password from its secret. */
function run(
  { command, env }: z.infer<typeof containerSchema>,
  password: string,
): { code: number | null; says: string } {
  const [program = '', ...args] = command;
  const variables = env.map((one) => [one.name, 'value' in one ? one.value : password]);
  const { PATH = '' } = process.env;
  const ended = spawnSync(program, args, { env: { PATH, ...Object.fromEntries(variables) }, encoding: 'utf8' });
  return { code: ended.status, says: `${ended.stdout}${ended.stderr}` };
}

async function session(port: number, credential: Readonly<Record<string, unknown>>): Promise<pg.Client> {
  const url = new URL(String(credential['url']));
  url.port = String(port);
  const client = new pg.Client({ connectionString: url.toString() });
  client.on('error', () => {});
  await client.connect();
  return client;
}

const works = (client: pg.Client): Promise<boolean> =>
  client.query('SELECT 1').then(
    () => true,
    () => false,
  );

test.skipIf(!psql)(
  'the CronJob that the command prints ends open sessions past their deadline on primary and standby, with the broker down',
  async () => {
    const client = house.client();
    const issue = async () => {
      const { task } = await client.openTask(await house.sign());
      return await client.issue(task.id, { entitlement: 'ledger-db/read-invoices', ttl_seconds: 300 });
    };
    const [lapsing, living] = [await issue(), await issue()];
    const [handle, other] = [lapsing, living].map(({ credential }) => String(credential['username']));
    const arrived = async () => {
      const there = new pg.Client({ connectionString: standby.superuserUrl() });
      await there.connect();
      const { rowCount } = await there.query('SELECT FROM pg_roles WHERE rolname = ANY ($1)', [[handle, other]]);
      await there.end();
      return rowCount;
    };
    await expect.poll(arrived, { timeout: 60_000 }).toBe(2);
    const ports = [house.targetServer.port, standby.port];
    const ending = await Promise.all(ports.map((port) => session(port, lapsing.credential)));
    const staying = await Promise.all(ports.map((port) => session(port, living.credential)));
    const manifest = await printed();
    await house.broker.stop();

    const { containers } = manifest.spec.jobTemplate.spec.template.spec;
    expect(containers.map(({ name }) => name)).toEqual(['expire', 'expire-standby-1']);
    const login = containers[0]?.env.flatMap((one) => (one.name === 'PGUSER' && 'value' in one ? one.value : []))[0];
    await house.onTarget(`ALTER ROLE ${login} PASSWORD 'known'`);
    await house.onTarget(`ALTER ROLE ${handle} VALID UNTIL '2020-01-01'`);
    const [primary, afar] = containers;
    if (primary === undefined || afar === undefined) throw new Error('no containers');
    expect(run(primary, 'known')).toMatchObject({ code: 0, says: expect.stringContaining('"cut": 1') });
    // The end must have been replayed there.
    await expect
      .poll(() => run(afar, 'known'), { timeout: 60_000 })
      .toMatchObject({ code: 0, says: expect.stringContaining('"ended": 1') });
    for (const each of ending) await expect.poll(() => works(each)).toBe(false);
    expect(await Promise.all(staying.map(works))).toEqual([true, true]);
    await Promise.all([...ending, ...staying].map((each) => each.end()));
    // A failure is one to Kubernetes as well.
    expect(run(afar, 'wrong').code).not.toBe(0);
  },
);
