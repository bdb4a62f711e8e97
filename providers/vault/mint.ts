import { type Minted, type MintRequest, ProviderError, type Ref } from '../../src/provider.ts';
import { leaseEnd } from './guarantee.ts';
import { assertHandle } from './handle.ts';
import { Minting } from './minting.ts';
import { assertBound, bindPath } from './path.ts';
import { orLeft } from './patience.ts';
import type { VaultEntitlement } from './schema.ts';
import type { Target } from './target.ts';

/**
 * Makes the grant's own token, and with it reads what was granted. The token ends by itself at the deadline, and bears the grant in
 * its metadata from the very first; before it is made there is a note of it. A caller that gives up leaves it to go on until it is
 * known what came of it, and to end that.
 * @throws ProviderError `gone` when the end came first.
 */
export async function mint(
  target: Target,
  ref: Ref,
  request: MintRequest<VaultEntitlement>,
  signal: AbortSignal,
): Promise<Minted> {
  assertHandle(ref, target.place);
  const { config } = request;
  const path = pathOf(config, request.params);
  if (request.oneConnection === true)
    throw new ProviderError('misconfigured', 'nothing here holds a credential to one connection');
  target.record?.assertForward();
  const expires = config.mode === 'dynamic' && path !== null && (await leaseEnd(target, path, signal)) === 'expires';
  if (signal.aborted) throw new ProviderError('retryable', 'minting: it was given up before it began');
  target.mintsOnce(ref.handle);
  const minting = new Minting(target, ref, request, path, expires);
  return await orLeft(minting.run(), 'minting', AbortSignal.any([signal, minting.slow]), () => minting.leave());
}

/** Where the secret is, or null for who gets the token itself. @throws ProviderError for params that are not bound. */
function pathOf(config: VaultEntitlement, params: MintRequest['params']): string | null {
  switch (config.mode) {
    case 'dynamic':
      return bindPath(config.path, params);
    case 'kv':
      return `${config.mount}/${config.version === 2 ? 'data/' : ''}${bindPath(config.path, params)}`;
    default:
      // A policy is the same for all who have it: it can bind nothing that one request says.
      assertBound([], params);
      return null;
  }
}
