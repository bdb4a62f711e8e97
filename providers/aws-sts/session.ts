import type { ConnectContext, Session } from '../../src/provider.ts';
import { check } from './check.ts';
import { fence } from './fence.ts';
import { guarantee } from './guarantee.ts';
import { handleOf } from './handle.ts';
import { mint, renew } from './mint.ts';
import { reap } from './reap.ts';
import type { AwsEntitlement, AwsTarget } from './schema.ts';
import { Target } from './target.ts';
import { verify } from './verify.ts';

/** Work on the roles of one AWS account. Opening it touches no network. */
export function connect(config: AwsTarget, context: ConnectContext): Session<AwsEntitlement> {
  const target = new Target(config, context);
  return {
    oneDocument: true,
    guarantee: (entitlement, signal) => guarantee(target, entitlement, signal),
    reserve: handleOf,
    mint: (ref, request, signal) => mint(target, ref, request, signal),
    renew: (ref, until, signal, granted) => renew(target, ref, until, signal, granted),
    fence: (refs, signal, view) => fence(target, refs, view, signal),
    verify: (refs, signal) => verify(target, refs, signal),
    reap: (refs, signal, view) => reap(target, refs, view, signal),
    check: (entitlement, signal) => check(target, entitlement, signal),
    close: async () => target.close(),
  };
}
