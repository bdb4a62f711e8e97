import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import pg from 'pg';
import { randomPassword, scramVerifier } from '../../providers/postgres/scram.ts';
import { makeTarget, prepareTarget } from '../support/house.ts';
import { startBenchHouse } from './lib/bench-house.ts';
import { call, closeConnections } from './lib/http.ts';
import { quantile, report, type Row } from './lib/report.ts';
import { grantsOfOneMoment, issue, untilMoment, watchStorm } from './lib/storm.ts';

/**
 * `--count` grants on one target with one deadline. The times are the store's: from that instant to contained and to
 * clean. Meanwhile one caller issues on that target and one on another, and the same before, when nothing else happens. The floors
 * are raw SQL of a superuser on roles without a password: fence, three sweeps for sessions, drop, look; one by one and 50 at once.
 */
const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '10000' },
    /** Seconds until the storm: within them the grants must have been made. */
    setup: { type: 'string', default: '200' },
    json: { type: 'string' },
  },
});
const COUNT = Number(values.count);
const BATCH = 50;
/** Asks per second of each of the two callers. */
const ASK_MILLIS = 40;
const IDLE_ASKS = 100;

const OTHER_PASSWORD = randomPassword();
let otherDatabase = '';
const house = await startBenchHouse({
  also: async (server) => {
    otherDatabase = await makeTarget(server);
    return {
      env: { MAYFLY_TARGET_OTHER_DB_PASSWORD: OTHER_PASSWORD },
      files: {
        'targets/other-db.yaml': `
name: other-db
provider: postgres
connection: { host: 127.0.0.1, port: ${server.port}, database: ${otherDatabase}, user: ${otherDatabase}_broker,
  password: "env:MAYFLY_TARGET_OTHER_DB_PASSWORD", sslmode: disable }
environment: demo
owner: team-finance
sensitivity: confidential
labels: {}
`,
        'entitlements/other-db.yaml': `
- name: other-db/read-invoices
  target: other-db
  sensitivity: confidential
  actions: [read]
  max_ttl_seconds: 600
  provider: { template: mayfly_t_${otherDatabase}, privileges: [{ schema: billing, tables: [invoices], grant: [SELECT] }], max_live: 50000 }
`,
        'policies/other.cedar': `
@id("other") @max_ttl("10m")
permit (principal is Mayfly::Task, action, resource == Mayfly::Entitlement::"other-db/read-invoices");
`,
      },
    };
  },
});
try {
  await prepareTarget(house.server, house.files, house.broker.installation, OTHER_PASSWORD, 'other-db');
  const token = await house.token();
  const floors = { one: await floor(100, 1), batched: await floor(2000, BATCH) };

  const due = await grantsOfOneMoment(house, token, { count: COUNT, seconds: Number(values.setup) });
  const idle = await askBoth(token, (asked) => asked < IDLE_ASKS);
  await untilMoment(due);
  let over = false;
  const [busy, storm] = await Promise.all([
    askBoth(token, () => !over),
    watchStorm(house, due, COUNT).finally(() => {
      over = true;
    }),
  ]);
  const floorRows = [
    { case: 'raw SQL, one by one', value: floors.one, unit: 'roles/s' },
    { case: 'raw SQL, 50 at once', value: floors.batched, unit: 'roles/s' },
  ];
  const rate = (seconds: number) => ({ value: COUNT / seconds, unit: 'grants/s' });
  const of = 'raw SQL, 50 at once';
  const rows: Row[] = [
    { case: 'all contained', value: storm.contained, unit: 's', p50_ms: storm.p50, p99_ms: storm.p99 },
    { case: 'contained rate', ...rate(storm.contained), ratio: COUNT / storm.contained / floors.batched, of },
    {
      case: 'contained rate beside one by one',
      ...rate(storm.contained),
      ratio: COUNT / storm.contained / floors.one,
      of: 'raw SQL, one by one',
    },
    { case: 'lateness, longest', value: storm.longest, unit: 'ms' },
    { case: 'all clean', value: storm.clean, unit: 's' },
    { case: 'clean rate', ...rate(storm.clean), ratio: COUNT / storm.clean / floors.batched, of },
    ...floorRows,
    ...issuing('this target', idle.here, busy.here),
    ...issuing('another target', idle.there, busy.there),
  ];
  report('storm', rows);
} finally {
  closeConnections();
  await house.stop();
}

function issuing(where: string, idle: readonly number[], busy: readonly number[]): Row[] {
  const row = (name: string, millis: readonly number[]) => ({
    case: `issuing p95, ${where}, ${name}`,
    value: quantile(millis, 0.95),
    unit: 'ms',
    p50_ms: quantile(millis, 0.5),
    p99_ms: quantile(millis, 0.99),
  });
  const before = row('idle', idle);
  const during = row('in the storm', busy);
  return [before, { ...during, ratio: during.value / before.value, of: before.case }];
}

/** Milliseconds of asks on either target, one after another, while `goOn` says so. */
async function askBoth(token: string, goOn: (asked: number) => boolean): Promise<Record<'here' | 'there', number[]>> {
  const ask = async (target: string) => {
    const request = await house.sign({ entitlements: [`${target}/read-invoices`] });
    const opened = await call('POST', `${house.url}/v1/tasks`, token, { request });
    const { id } = opened.body['task'] as { id: string };
    const millis: number[] = [];
    while (goOn(millis.length)) {
      const before = performance.now();
      await issue(house, token, id, target);
      millis.push(performance.now() - before);
      await pause(ASK_MILLIS);
    }
    return millis;
  };
  const [here, there] = await Promise.all([ask('ledger-db'), ask('other-db')]);
  return { here, there };
}

/** Roles gone per second by plain SQL over one connection. */
async function floor(count: number, batch: number): Promise<number> {
  const client = new pg.Client({ connectionString: house.server.superuserUrl(house.targetDatabase) });
  await client.connect();
  try {
    const template = house.template;
    const verifier = await scramVerifier(randomPassword(), 1);
    const roles = Array.from({ length: count }, (_, n) => `floor_${batch}_${n}`);
    for (let from = 0; from < count; from += 500)
      await client.query(
        roles
          .slice(from, from + 500)
          .map((role) => `CREATE ROLE ${role} LOGIN PASSWORD '${verifier}' IN ROLE ${template};`)
          .join(''),
      );
    const began = performance.now();
    for (let from = 0; from < count; from += batch) {
      const some = roles.slice(from, from + batch);
      const { rows } = await client.query<{ oids: number[] }>(
        'SELECT array_agg(oid) AS oids FROM pg_authid WHERE rolname = ANY($1)',
        [some],
      );
      const oids = rows[0]?.oids ?? [];
      await client.query(
        `BEGIN; REVOKE ${template} FROM ${some.join(', ')};
         ${some.map((role) => `ALTER ROLE ${role} NOLOGIN PASSWORD NULL CONNECTION LIMIT 0;`).join('')} COMMIT;`,
      );
      for (let sweep = 0; sweep < 3; sweep += 1) {
        if (sweep > 0) await pause(15);
        await client.query('SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usesysid = ANY($1)', [
          oids,
        ]);
      }
      await client.query(`DROP ROLE ${some.join(', ')}`);
      await client.query('SELECT 1 FROM pg_authid WHERE oid = ANY($1) OR rolname = ANY($2)', [oids, some]);
    }
    return (count / (performance.now() - began)) * 1000;
  } finally {
    await client.end();
  }
}
