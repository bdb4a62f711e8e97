import type { WorkloadSource } from '../../catalog/types.ts';
import { createIdentity, type IdentityOptions } from '../index.ts';
import type { Caller, VerifyContext } from '../types.ts';
import { makeKey, signToken, type TestKey } from './keys.ts';
import { believe as believeIn, makeTrust, NOW, refusal, SECONDS } from './trust.ts';

type Claims = Readonly<Record<string, unknown>>;

/** Times for any token, valid now. */
export const times = { iat: SECONDS, nbf: SECONDS, exp: SECONDS + 600 };

/** Callers of one source beside those of the ordinary trust, under a clock that stands still. */
export interface SourceHarness {
  readonly key: TestKey;
  readonly context: VerifyContext;
  /** Whom the token stands for. A claim or header that is undefined is left out. */
  readonly believe: (claims: Claims, header?: Claims) => Promise<Caller>;
  /** The code by which it is refused, or `accepted`. */
  readonly ask: (claims: Claims, header?: Claims) => Promise<string>;
  /** The same for one and the same token, each time it is called. */
  readonly again: (claims: Claims) => () => Promise<string>;
}

/** @param define The source, whose keys are these. */
export function trusting(define: (key: TestKey) => WorkloadSource, options: IdentityOptions = {}): SourceHarness {
  const key = makeKey('source-1');
  const { trust, context } = makeTrust();
  const source = define(key);
  const ours = { ...context, trust: { ...trust, workloadSources: [...trust.workloadSources, source] }, now: NOW };
  const identity = createIdentity(options);
  const authenticate = (token: string) => believeIn(identity, `Bearer ${token}`, ours);
  const believe = (claims: Claims, header: Claims = {}) => authenticate(signToken(key, claims, header));
  return {
    key,
    context: ours,
    believe,
    ask: (claims, header) => refusal(believe(claims, header)),
    again(claims) {
      const token = signToken(key, claims);
      return () => refusal(authenticate(token));
    },
  };
}
