import type { X509Certificate } from 'node:crypto';
import type { SpiffeX509Source, Trust } from '../../catalog/types.ts';
import { MayflyError } from '../../domain/errors.ts';
import { parseSpiffeId } from '../../domain/spiffe-id.ts';
import { type Certificate, keyThumbprintOf, readCertificate, usages } from '../certificates/certificate.ts';
import { hasBegun, isOver, leadsTo } from '../certificates/path.ts';
import type { KeySets } from '../key-sets.ts';
import type { KeySet } from '../key-source.ts';
import { TOKEN_CACHE_MS } from '../token-cache.ts';
import type { VerifyContext, WorkloadCaller } from '../types.ts';

/** How long a path is believed without following it again: as long as a token's signature. */
const KNOWN_MS = TOKEN_CACHE_MS;

interface Known {
  readonly caller: WorkloadCaller;
  readonly leaf: Certificate;
  readonly source: SpiffeX509Source;
  readonly trust: Trust;
  readonly set: KeySet;
  readonly at: number;
}

/** Believes the certificates that connections were made with. */
export class SpiffeX509 {
  readonly #keySets: KeySets;
  readonly #clock: () => number;
  /** By the certificate as the connection holds it: no longer than that. */
  readonly #known = new WeakMap<X509Certificate, Known>();

  constructor(keySets: KeySets, clock: () => number) {
    this.#keySets = keySets;
    this.#clock = clock;
  }

  /**
   * The workload whose X.509-SVID the connection was made with (SPIFFE X.509-SVID §5), and the key that is thereby proven. That it is
   * in the caller's hands, TLS has shown; whose it is, the bundle of the trust domain alone says that its one SPIFFE ID names.
   * @param shown The certificates of the connection, the caller's own first.
   * @throws MayflyError 401 with the failing step's code, or `keys_unavailable`.
   */
  async believe(
    shown: readonly [X509Certificate, ...X509Certificate[]],
    { trust, now }: VerifyContext,
  ): Promise<WorkloadCaller> {
    const [own] = shown;
    const before = this.#known.get(own);
    if (before !== undefined && this.#holds(before, trust)) {
      requireLive(before.leaf, now);
      return before.caller;
    }
    const [leaf, ...between] = [read(own), ...shown.slice(1).map(read)] as const;
    const { subject, trustDomain } = requireId(leaf);
    const source = trust.workloadSources.find(
      (each): each is SpiffeX509Source => each.kind === 'spiffe-x509' && each.trustDomain === trustDomain,
    );
    if (source === undefined) throw new MayflyError('certificate_issuer_unknown');
    const keyThumbprint = requireLeaf(leaf);
    requireLive(leaf, now);
    const found = await this.#keySets
      .of(source)
      .search(({ authorities = [] }) => leadsTo(authorities, leaf, between, now) || undefined);
    if (found === undefined) throw new MayflyError('certificate_untrusted');
    const workload = { source: source.name, subject };
    const caller = { kind: 'workload', workload, keyThumbprint, instance: null, expiresAt: leaf.notAfter } as const;
    this.#known.set(own, { caller, leaf, source, trust, set: found.set, at: this.#clock() });
    return caller;
  }

  #holds(before: Known, trust: Trust): boolean {
    return (
      before.trust === trust &&
      this.#clock() - before.at < KNOWN_MS &&
      this.#keySets.of(before.source).current() === before.set
    );
  }
}

function read({ raw }: X509Certificate): Certificate {
  try {
    return readCertificate(raw);
  } catch (cause) {
    throw new MayflyError('certificate_refused', 'It can not be read, or holds what must be understood and is not.', {
      cause,
    });
  }
}

function requireId({ uris }: Certificate): { readonly subject: string; readonly trustDomain: string } {
  const [subject, another] = uris;
  if (subject === undefined || another !== undefined) refuse('It has not exactly one URI among its names.');
  const id = parseSpiffeId(subject);
  if (id === undefined || id.path === '') refuse('Its URI is no SPIFFE ID with a path.');
  return { subject, trustDomain: id.trustDomain };
}

/** §4.1, §4.3, §4.4: one that may sign others identifies nobody. Answers the thumbprint of its key. */
function requireLeaf({ x509, isAuthority, keyUsage, forClients }: Certificate): string {
  if (isAuthority) refuse('It is an authority’s.');
  if (keyUsage?.critical !== true) refuse('It has no critical key usage.');
  if (keyUsage.bits.has(usages.keyCertSign) || keyUsage.bits.has(usages.cRLSign)) refuse('It may sign certificates.');
  if (!keyUsage.bits.has(usages.digitalSignature)) refuse('Its key is not for signatures.');
  if (!forClients) refuse('It is not for clients.');
  try {
    return keyThumbprintOf(x509);
  } catch (cause) {
    throw new MayflyError('certificate_refused', 'Its key is weak, or of a kind that is not used here.', { cause });
  }
}

function requireLive(leaf: Certificate, now: Date): void {
  if (!hasBegun(leaf, now)) throw new MayflyError('certificate_not_yet_valid');
  if (isOver(leaf, now)) throw new MayflyError('certificate_expired');
}

function refuse(why: string): never {
  throw new MayflyError('certificate_refused', why);
}
