import { parseArgs } from 'node:util';
import { startBenchHouse } from './lib/bench-house.ts';
import { warmUp } from './lib/grants.ts';
import { closeConnections } from './lib/http.ts';
import { report, type Row } from './lib/report.ts';
import { grantsOfOneMoment, untilMoment, watchStorm } from './lib/storm.ts';

/**
 * The same storm with one, two and four brokers on one store: what they bring to each other. The ratios are to one. All of them, the
 * store and the target share this machine: with fewer cores than brokers there is little to gain, and what is shown is that they do
 * not stand in each other's way.
 */
const { values } = parseArgs({
  options: {
    workers: { type: 'string', default: '1,2,4' },
    count: { type: 'string', default: '3000' },
    /** Seconds until each storm: within them the grants must have been made. */
    setup: { type: 'string', default: '60' },
    json: { type: 'string' },
  },
});
const count = Number(values.count);
const rows: Row[] = [];
const house = await startBenchHouse();
try {
  const token = await house.token();
  await warmUp(house, token);
  let running = 1;
  for (const workers of values.workers.split(',').map(Number)) {
    for (; running < workers; running++) await house.startReplica();
    const due = await grantsOfOneMoment(house, token, { count, seconds: Number(values.setup) });
    await untilMoment(due);
    const { contained, clean, p50, p99 } = await watchStorm(house, due, count);
    const [first] = rows;
    const perSecond = count / contained;
    rows.push({
      ...{ case: `workers ${workers} contained`, value: perSecond, unit: 'grants/s', p50_ms: p50, p99_ms: p99 },
      ...(first === undefined ? {} : { ratio: perSecond / first.value, of: first.case }),
    });
    rows.push({ case: `workers ${workers} all clean`, value: clean, unit: 's' });
  }
  report('workers', rows);
} finally {
  closeConnections();
  await house.stop();
}
