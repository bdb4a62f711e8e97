import type { ConnectContext, Found, Session } from '../../src/provider.ts';
import { check } from './check.ts';
import { ends } from './ends.ts';
import { fence } from './fence.ts';
import { guarantee } from './guarantee.ts';
import { handleOf, toFacts } from './handle.ts';
import { inspect } from './inspect.ts';
import { factsShown } from './lost.ts';
import { mint } from './mint.ts';
import { reap } from './reap.ts';
import { renew } from './renew.ts';
import type { VaultEntitlement, VaultTarget } from './schema.ts';
import { Target } from './target.ts';
import { verify } from './verify.ts';

/** Work on one Vault target. Opening it touches no network. */
export function connect(config: VaultTarget, context: ConnectContext): Session<VaultEntitlement> {
  const target = new Target(config, context);
  return {
    guarantee: (entitlement, signal) => guarantee(target, entitlement, signal),
    reserve: handleOf,
    mint: (ref, request, signal) => mint(target, ref, request, signal),
    renew: (ref, until, signal) => renew(target, ref, until, signal),
    fence: (refs, signal) => fence(target, refs, signal),
    verify: (refs, signal) => verify(target, refs, signal),
    reap: (refs, signal) => reap(target, refs, signal),
    inspect: (grants, signal) => inspect(target, grants, signal),
    ends: (refs, signal) => ends(target, refs, signal),
    list: (signal, after) => list(target, signal, after),
    hold: async (signal, beat) => (await target.record?.hold(target.issuing, signal, beat)) ?? null,
    check: (entitlement, signal) => check(target, entitlement, signal),
    close: async () => target.close(),
  };
}

const listedAtOnce = 500;

/** In order of their handles, a page of them behind `after`. */
async function list(target: Target, signal: AbortSignal, after: string | undefined): Promise<readonly Found[]> {
  const { cluster_id: clusterId } = await target.revoking.health(signal);
  const tokens = await target.inventory.read(signal);
  const found = tokens
    .filter(({ handle }) => after === undefined || handle > after)
    .sort((a, b) => (a.handle < b.handle ? -1 : 1))
    .map((one) => ({
      ...{ handle: one.handle, grantId: one.grantId, installation: one.mark.mayfly_installation },
      facts: toFacts(one.grantId, { ...EMPTY, ...factsShown(one, clusterId) }),
    }));
  return after === undefined ? found : found.slice(0, listedAtOnce);
}

const EMPTY = {
  wrapping_accessor: undefined,
  path: undefined,
  lease_id: undefined,
  native_expiry: undefined,
  lease_paths: undefined,
};
