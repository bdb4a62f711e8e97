import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import type { House } from '../support/house.ts';
import { startBenchHouse } from './lib/bench-house.ts';
import { spreadGrants, untilAll, warmUp } from './lib/grants.ts';
import { closeConnections } from './lib/http.ts';
import { COMMIT_TIMES, latenessRows, readLateness, watchFences } from './lib/lateness.ts';
import { seedOutstanding } from './lib/outstanding.ts';
import { report, type Row } from './lib/report.ts';

/**
 * What grants that are not due cost: lateness of those that are, memory of the broker and its start, with so many outstanding. The
 * ratios are to the first level. Start to ready has Node's own start and the compilation of TypeScript in it. Alarms stand in the store; `lateness` compares the queues.
 */
const { values } = parseArgs({
  options: {
    levels: { type: 'string', default: '0,100000,1000000' },
    seconds: { type: 'string', default: '30' },
    rate: { type: 'string', default: '100' },
    json: { type: 'string' },
  },
});
const levels = values.levels.split(',').map(Number);

const house = await startBenchHouse({ settings: COMMIT_TIMES });
try {
  await watchFences(house);
  const rows = [];
  for (const level of levels) {
    await seedOutstanding(house, level);
    rows.push(...(await measureLevel(level)));
  }
  report('outstanding', rows.map(withRatio));
} finally {
  closeConnections();
  await house.stop();
}

async function measureLevel(level: number): Promise<Row[]> {
  await house.broker.stop();
  const started = performance.now();
  house.broker = await house.restart();
  await untilReady(house);
  const ready = performance.now() - started;
  const atStart = await residentMegabytes(house);
  const token = await house.token();
  const mintMillis = await warmUp(house, token);
  const grants = await spreadGrants(house, token, {
    perSecond: Number(values.rate),
    seconds: Number(values.seconds),
    mintMillis,
  });
  await untilAll(house, grants, 'clean', 1_000);
  const name = `outstanding ${level}`;
  return [
    ...latenessRows(name, await readLateness(house, grants)),
    { case: `${name} start to ready`, value: ready, unit: 'ms' },
    { case: `${name} memory at start`, value: atStart, unit: 'MB' },
    { case: `${name} memory after`, value: await residentMegabytes(house), unit: 'MB' },
  ];
}

function withRatio(row: Row, index: number, rows: readonly Row[]): Row {
  const first = rows[index % (rows.length / levels.length)];
  return first === undefined || first === row ? row : { ...row, ratio: row.value / first.value, of: first.case };
}

/** Until the first whole sweep is over and all else answers. */
async function untilReady({ url }: House): Promise<void> {
  for (;;) {
    const answer = await fetch(`${url}/readyz`);
    await answer.arrayBuffer();
    if (answer.ok) return;
    await pause(5);
  }
}

async function residentMegabytes({ url }: House): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text();
  return Number(/^process_resident_memory_bytes (\d+)/m.exec(text)?.[1] ?? 0) / 1024 ** 2;
}
