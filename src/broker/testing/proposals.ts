import { OneAtATime, type Proposals } from '../proposals.ts';

/** No catalog is valid. */
export function noProposals(): Proposals {
  return {
    check: () => ({ catalog: null, faults: [], policyTests: [] }),
    turn: new OneAtATime(),
    maxDriftShare: 10,
    keys: null,
    published: async () => {},
  };
}
