import type { CaseOf } from './case.ts';
import { mintCases } from './mint.ts';

export const casesOf: readonly CaseOf[] = [...mintCases];
