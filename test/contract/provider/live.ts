import type { Guarantee, Minted, MintRequest, Ref, Session } from '../../../src/provider.ts';
import type { Credential, Params, TestedEntitlement } from './driver.ts';

/** What a case measured. */
export interface Measured {
  /** From the end asked for to the first refusal. Milliseconds. */
  readonly lateMillis?: number;
  /** How many things of ended credentials were found in the system. */
  readonly leftBehind?: number;
}

/** A catalog's entitlement after the provider's own schema, and what is promised of it. */
export interface Tested extends Omit<TestedEntitlement, 'config'> {
  readonly config: unknown;
  readonly guarantee: Guarantee;
}

/** One credential, and what it was made by. */
export interface Live {
  readonly ref: Ref;
  readonly minted: Minted;
  readonly credential: Credential;
  readonly entitlement: Tested;
  readonly params: Params;
}

export interface Wish {
  readonly entitlement?: Tested;
  readonly params?: Params;
  /** Until the deadline. Default: a minute, as far as the guarantee allows. */
  readonly lifeMillis?: number;
  readonly ref?: Ref;
  readonly changes?: Partial<MintRequest>;
  readonly session?: Session;
  readonly signal?: AbortSignal;
}

/** How much is looked at. */
export interface Extent {
  /** The cases about the mechanism look at the first entitlement only: quick, and no proof that a provider conforms. */
  readonly bounded?: boolean;
}
