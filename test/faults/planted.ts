import type { PlantedBug } from '../contract/planted/list.ts';
import { plantedBugs as ofCrashes } from '../crash/planted.ts';

/** The bugs of the crash harness that a fault brings to light too, and the case that must notice each. */
const cases: Readonly<Record<string, string>> = {
  'no intent is committed before the mint': 'store: lost while a mint is under way',
  'no sweeper': 'two replicas, one asleep with a claim',
  'fence skipped': 'store: crashed',
  '`verify` is always true': 'asleep after a fence, which is undone',
  'containment is written without the number of its claim': 'two replicas, one asleep with a claim',
};

/** Run with alarms in the store by `npm run test:faults -- --planted`. */
export const plantedBugs: readonly PlantedBug[] = Object.entries(cases).map(([name, noticed]) => {
  const bug = ofCrashes.find((one) => one.name === name);
  if (bug === undefined) throw new Error(`there is no such bug: ${name}`);
  return { ...bug, suites: ['test/faults/faults.test.ts'], cases: noticed };
});
