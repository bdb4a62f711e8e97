import { runMatrix } from '../support/matrix.ts';
import { plantedBugs } from './planted.ts';

/**
 * `npm run test:crash`: kills the broker at every step that it has, with alarms in the store and in Redis, and looks from outside at
 * what stayed behind.
 */
await runMatrix({
  name: 'test:crash',
  of: 'point',
  suite: 'test/crash/',
  backendVariable: 'MAYFLY_CRASH_BACKEND',
  concurrency: 8,
  plantedBugs,
  plantedEnv: { MAYFLY_CRASH_PATIENCE: '20' },
});
