import { parseArgs } from 'node:util';
import { redisAvailable, startRedis } from '../support/redis-server.ts';
import { startBenchHouse } from './lib/bench-house.ts';
import { spreadGrants, untilAll, warmUp } from './lib/grants.ts';
import { closeConnections } from './lib/http.ts';
import { COMMIT_TIMES, latenessRows, readLateness, watchFences } from './lib/lateness.ts';
import { report, type Row } from './lib/report.ts';

/**
 * From a deadline to its fence committed and to contained, with so many deadlines a second, on each queue of alarms. Everything is
 * minted before the first deadline and nothing is asked of the broker after it.
 */
const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '60' },
    rate: { type: 'string', default: '100' },
    backends: { type: 'string', default: 'postgres,redis' },
    json: { type: 'string' },
  },
});
const rows: Row[] = [];
for (const backend of values.backends.split(',')) {
  if (backend === 'redis' && !redisAvailable()) continue;
  rows.push(...(await measureBackend(backend)));
}
report('lateness', rows);

async function measureBackend(backend: string): Promise<Row[]> {
  const redis = backend === 'redis' ? await startRedis() : undefined;
  const house = await startBenchHouse({
    settings: COMMIT_TIMES,
    ...(redis === undefined ? {} : { env: { MAYFLY_REDIS_URL: redis.url } }),
  });
  try {
    await watchFences(house);
    const token = await house.token();
    const mintMillis = await warmUp(house, token);
    const grants = await spreadGrants(house, token, {
      perSecond: Number(values.rate),
      seconds: Number(values.seconds),
      mintMillis,
    });
    await untilAll(house, grants, 'clean', 1_000);
    return latenessRows(backend, await readLateness(house, grants));
  } finally {
    closeConnections();
    await house.stop();
    await redis?.stop();
  }
}
