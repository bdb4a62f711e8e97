import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { findGoServer } from '../support/go-server.ts';
import { openbaoSources, startOpenbao } from '../support/openbao.ts';
import { type BenchHouse, startBenchHouse } from './lib/bench-house.ts';
import { holdGrants, untilAll, warmUp } from './lib/grants.ts';
import { call, closeConnections } from './lib/http.ts';
import { type Leases, openbaoLeases, type Statements } from './lib/openbao-leases.ts';
import { type Measured, measure, quantile, report, type Row } from './lib/report.ts';

/**
 * Mint, revoke and a storm of revocations, by Mayfly and by an OpenBao on the same target, in turns. OpenBao runs in dev
 * mode: its storage is memory, where ours is a durable Postgres. The ratios are ours to OpenBao's.
 */
const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '200' },
    storm: { type: 'string', default: '1000' },
    json: { type: 'string' },
  },
});
const count = Number(values.count);
const storm = Number(values.storm);

const steps: ((subject: Subject) => Promise<Row[]>)[] = [
  (subject) => mintAndRevoke(subject, 1, Math.ceil(count / 4)),
  (subject) => mintAndRevoke(subject, 8, count),
  measureStorm,
];
const binaries = await findGoServer(openbaoSources);
if (binaries !== undefined) await compare(binaries);

/** The three that are compared. */
interface Subject {
  readonly name: string;
  mint(): Promise<string>;
  revoke(id: string): Promise<void>;
  /** Ends all at once. Answers once that is decided. */
  endAll(): Promise<void>;
  /** How many of its roles may still log in. */
  alive(): Promise<number>;
  /** Waits until nothing is left to do. */
  idle(): Promise<void>;
}

async function compare(path: string): Promise<void> {
  const house = await startBenchHouse();
  const bao = await startOpenbao(path);
  try {
    const token = await house.token();
    await warmUp(house, token);
    const leases = await openbaoLeases(bao, house, house.server);
    const subjects = [
      openbao(house, 'default', leases('default')),
      openbao(house, 'bare', leases('bare')),
      await mayfly(house, token),
    ];
    const rows: Row[] = [];
    // In turns, so that a drift of the machine hits all.
    for (const step of steps) {
      const theirs: Row[][] = [];
      for (const subject of subjects) theirs.push(await step(subject));
      rows.push(...besideOurs(theirs));
    }
    report('openbao', rows);
  } finally {
    closeConnections();
    await bao.stop();
    await house.stop();
  }
}

/** The last are ours: once more for each of the others, with the ratio to it. */
function besideOurs(measured: readonly Row[][]): Row[] {
  const ours = measured.at(-1) ?? [];
  const theirs = measured.slice(0, -1);
  return ours.flatMap((row, index) => {
    const others = theirs.flatMap((rows) => rows[index] ?? []);
    return [...others, ...others.map((other) => ({ ...row, ratio: row.value / other.value, of: other.case }))];
  });
}

async function mintAndRevoke(subject: Subject, concurrency: number, some: number): Promise<Row[]> {
  const ids: string[] = [];
  const row = (what: string, measured: Measured): Row => ({
    case: `${what} c${concurrency} ${subject.name}`,
    value: measured.perSecond,
    unit: '/s',
    p50_ms: quantile(measured.millis, 0.5),
    p99_ms: quantile(measured.millis, 0.99),
  });
  const minted = await measure(some, concurrency, async () => {
    ids.push(await subject.mint());
  });
  const revoked = await measure(some, concurrency, async (index) => subject.revoke(ids[index] ?? ''));
  await subject.idle();
  return [row('mint', minted), row('revoke', revoked)];
}

/** All end at once, and one caller goes on minting meanwhile. What it mints is not counted as alive. */
async function measureStorm(subject: Subject): Promise<Row[]> {
  await measure(storm, 8, async () => {
    await subject.mint();
  });
  const millis: number[] = [];
  const started = performance.now();
  await subject.endAll();
  const over = new AbortController();
  const minting = (async () => {
    while (!over.signal.aborted) {
      const before = performance.now();
      await subject.mint();
      millis.push(performance.now() - before);
      await pause(20);
    }
  })();
  while ((await subject.alive()) > 0) await pause(20);
  const seconds = (performance.now() - started) / 1000;
  over.abort();
  await minting;
  await subject.idle();
  return [
    { case: `storm of ${storm} ${subject.name}`, value: storm / seconds, unit: '/s' },
    {
      case: `mint in a storm ${subject.name}`,
      value: quantile(millis, 0.95),
      unit: 'ms p95',
      p50_ms: quantile(millis, 0.5),
      p99_ms: quantile(millis, 0.99),
    },
  ];
}

async function mayfly(house: BenchHouse, token: string): Promise<Subject> {
  const task = async () => (await holdGrants(house, token, { count: 0 })).task;
  let current = await task();
  let ending: string[] = [];
  return {
    name: 'mayfly',
    mint: async () => {
      const path = `${house.url}/v1/tasks/${current}/grants`;
      const { status, body } = await call('POST', path, token, { entitlement: 'ledger-db/read-invoices' });
      if (status !== 201) throw new Error(`${status} ${JSON.stringify(body)}`);
      return (body['grant'] as { id: string }).id;
    },
    revoke: async (id) => {
      const { status } = await call('DELETE', `${house.url}/v1/grants/${id}?wait=60`, token);
      if (status !== 200) throw new Error(`a release answered ${status}`);
    },
    endAll: async () => {
      const ended = current;
      ending = await liveGrants(house, ended);
      current = await task();
      await call('POST', `${house.url}/v1/tasks/${ended}/complete`, token, {});
    },
    alive: () =>
      mayLogIn(
        house,
        ending.map((id) => `mfy_${id.replaceAll('-', '')}`),
      ),
    idle: async () => {
      await call('POST', `${house.url}/v1/tasks/${current}/complete`, token, {});
      const rows = await house.onStore<{ id: string }>('SELECT grant_id AS id FROM mayfly.revocations');
      current = await task();
      await untilAll(
        house,
        rows.map(({ id }) => id),
        'clean',
      );
    },
  };
}

async function liveGrants(house: BenchHouse, task: string): Promise<string[]> {
  const rows = await house.onStore<{ id: string }>(
    `SELECT id FROM mayfly.grants WHERE task_id = $1 AND state = 'active'`,
    [task.slice('task_'.length)],
  );
  return rows.map(({ id }) => id);
}

function openbao(house: BenchHouse, statements: Statements, leases: Leases): Subject {
  let ending: string[] = [];
  const roles = async () =>
    (
      await house.onTarget<{ rolname: string }>(
        'SELECT rolname FROM pg_roles WHERE rolcanlogin AND starts_with(rolname, $1)',
        [leases.prefix],
      )
    ).map(({ rolname }) => rolname);
  return {
    name: `openbao ${statements}`,
    mint: () => leases.mint(),
    revoke: (lease) => leases.revoke(lease),
    endAll: async () => {
      ending = await roles();
      await leases.revokeAll();
    },
    alive: () => mayLogIn(house, ending),
    idle: async () => {
      await leases.revokeAll();
      while ((await roles()).length > 0) await pause(100);
    },
  };
}

async function mayLogIn(house: BenchHouse, roles: readonly string[]): Promise<number> {
  const [row] = await house.onTarget<{ n: number }>(
    'SELECT count(*)::int AS n FROM pg_roles WHERE rolcanlogin AND rolname = ANY($1)',
    [roles],
  );
  return row?.n ?? 0;
}
