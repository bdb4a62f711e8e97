/**
 * `mayfly/provider-contract`: one suite for every provider, against the real system behind it. docs/writing-a-provider.md says how a
 * provider of your own runs it; a {@link Driver} is all that it needs.
 */
export { type Case, type Contract, type Framework, providerContract, type Result, testProvider } from './contract.ts';
export type {
  Access,
  Attempt,
  Credential,
  Driver,
  Faults,
  Foreign,
  Held,
  Lie,
  OpenSession,
  Optional,
  Params,
  System,
  TestedEntitlement,
  Way,
} from './driver.ts';
export { type FaultyTcp, tcpFaults } from './tcp-faults.ts';
