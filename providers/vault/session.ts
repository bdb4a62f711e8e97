import type { Beat, ConnectContext, Found, Holder, Session } from '../../src/provider.ts';
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
    reserve: (grantId) => handleOf(grantId, target.place),
    mint: async (ref, request, signal) => await mint(await target.pinned('issuing', signal), ref, request, signal),
    renew: async (ref, until, signal) => await renew(await target.pinned('issuing', signal), ref, until, signal),
    fence: (refs, signal) => target.atOneNode('revoking', signal, (there) => fence(there, refs, signal), false),
    verify: (refs, signal) => target.atOneNode('revoking', signal, (there) => verify(there, refs, signal)),
    reap: (refs, signal) => target.atOneNode('revoking', signal, (there) => reap(there, refs, signal)),
    inspect: (grants, signal) => target.atOneNode('issuing', signal, (there) => inspect(there, grants, signal)),
    ends: (refs, signal) => target.atOneNode('revoking', signal, (there) => ends(there, refs, signal)),
    list: (signal, after) => target.atOneNode('revoking', signal, (there) => list(there, signal, after)),
    hold: (signal, beat) => hold(target, signal, beat),
    check: (entitlement, signal) => check(target, entitlement, signal),
    close: async () => target.close(),
  };
}

/** What a standby has copied of the record may be older than what stood there before. */
async function hold(target: Target, signal: AbortSignal, beat: Beat | undefined): Promise<Holder | null> {
  if (target.record === null) return null;
  const { issuing } = await target.pinned('issuing', signal);
  return await target.record.hold(issuing, signal, beat);
}

const listedAtOnce = 500;

/** In order of their handles, a page of them behind `after`. */
async function list(target: Target, signal: AbortSignal, after: string | undefined): Promise<readonly Found[]> {
  const { cluster_id: clusterId } = await target.revoking.health(signal);
  const tokens = await target.inventory.read(signal, target.revoking);
  const found = tokens
    .filter(({ handle }) => after === undefined || handle > after)
    .sort((a, b) => (a.handle < b.handle ? -1 : 1))
    .map((one) => ({
      ...{ handle: one.handle, grantId: one.grantId, installation: one.mark.mayfly_installation },
      facts: toFacts(one.grantId, factsShown(target, one, clusterId)),
    }));
  const strays = target.inventory.strays.filter(({ handle }) => after === undefined || handle > after);
  return after === undefined ? [...found, ...strays] : [...found, ...strays].slice(0, listedAtOnce);
}
