import { runMatrix } from '../support/matrix.ts';
import { plantedBugs } from './planted.ts';

/**
 * `npm run test:faults`: breaks what the broker stands on, with alarms in the store and in Redis, and looks from outside at what stayed
 * behind.
 */
await runMatrix({
  name: 'test:faults',
  of: 'fault',
  suite: 'test/faults/faults.test.ts',
  backendVariable: 'MAYFLY_FAULT_BACKEND',
  concurrency: 4,
  plantedBugs,
  env: { MAYFLY_CRASH_PATIENCE: '60' },
  plantedEnv: { MAYFLY_CRASH_PATIENCE: '25' },
  options: { outage: { says: 'how many seconds Redis is gone; default: 30', variable: 'MAYFLY_FAULT_OUTAGE' } },
});
