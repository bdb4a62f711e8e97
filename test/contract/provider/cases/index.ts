import { abortCases } from './abort.ts';
import type { CaseOf } from './case.ts';
import { checkCases } from './check.ts';
import { crashCases } from './crash.ts';
import { faultCases } from './faults.ts';
import { fenceCases } from './fence.ts';
import { foreignCases } from './foreign.ts';
import { guaranteeCases } from './guarantee.ts';
import { lastCases } from './last.ts';
import { lieCases } from './lies.ts';
import { listCases } from './list.ts';
import { mintCases } from './mint.ts';
import { raceCases } from './race.ts';
import { reapCases } from './reap.ts';
import { renewCases } from './renew.ts';
import { restartCases } from './restart.ts';
import { rightsCases } from './rights.ts';
import { schemaCases } from './schema.ts';
import { secretCases } from './secrets.ts';
import { verifyCases } from './verify.ts';

/** In the order of a life; secrets come last, since they are looked for in all that was heard before. */
export const casesOf: readonly CaseOf[] = [
  ...schemaCases,
  ...guaranteeCases,
  ...mintCases,
  ...renewCases,
  ...crashCases,
  ...fenceCases,
  ...raceCases,
  ...verifyCases,
  ...reapCases,
  ...listCases,
  ...foreignCases,
  ...checkCases,
  ...abortCases,
  ...faultCases,
  ...lieCases,
  ...rightsCases,
  ...restartCases,
  ...secretCases,
  ...lastCases,
];
