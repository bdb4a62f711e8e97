import type { JwksSource } from '../catalog/types.ts';
import { MayflyError } from '../domain/errors.ts';
import { readCertificate } from './certificates/certificate.ts';
import { fetchJwks } from './fetch-jwks.ts';
import type { KeySet, KeySource } from './key-source.ts';
import { RemoteKeys } from './remote-keys.ts';
import { readSpiffeBundle } from './spiffe-bundle.ts';
import { parseStrictJson } from './strict-json.ts';
import { vetKeys } from './vet-keys.ts';

/** What keys are looked up for: a task issuer, a workload source or a source of operators. */
export interface KeyOwner {
  readonly name: string;
  /** `spiffe-jwt`, `spiffe-x509`: its document is a SPIFFE bundle, not a plain JWKS. */
  readonly kind?: string;
  readonly dev: boolean;
  readonly jwks: JwksSource;
  readonly algorithms: readonly string[];
}

/** One line for the log, about keys. Holds names and reasons, never a key or a token. */
export type KeysEvent =
  | { readonly event: 'jwks_fetch_failed'; readonly source: string; readonly reason: string }
  /** Also when the document is the same as before. */
  | { readonly event: 'jwks_fetched'; readonly source: string }
  | { readonly event: 'jwks_loaded'; readonly source: string; readonly usable: number }
  | {
      readonly event: 'jwks_key_skipped';
      readonly source: string;
      readonly kid: string | null;
      readonly reason: string;
    };

export interface KeySetsOptions {
  readonly fetch: typeof globalThis.fetch;
  /** Monotonic milliseconds. */
  readonly clock: () => number;
  readonly log: (event: KeysEvent) => void;
  /** For the whole exchange with a JWKS URL. */
  readonly fetchTimeoutMs: number;
}

export interface KeySets {
  of(owner: KeyOwner): KeySource;
  /** Forgets the sources of all others: those of a catalog that is no longer in force. */
  keepOnly(owners: readonly KeyOwner[]): void;
  /** Ends the fetches under way; later ones fail. */
  close(): void;
}

/** Key sources, one for each distinct definition, kept across catalog revisions that do not change it. */
export function createKeySets(options: KeySetsOptions): KeySets {
  const sources = new Map<string, KeySource>();
  const closing = new AbortController();

  const vet = (owner: KeyOwner, document: unknown): KeySet => {
    const keys = vetKeys(document, owner.algorithms, (kid, reason) =>
      options.log({ event: 'jwks_key_skipped', source: owner.name, kid, reason }),
    );
    options.log({ event: 'jwks_loaded', source: owner.name, usable: keys.size });
    return { keys };
  };
  const readAuthorities = (owner: KeyOwner, authorities: readonly Buffer[]): KeySet => {
    const usable = authorities.flatMap((raw) => {
      try {
        return [readCertificate(raw)];
      } catch (error) {
        options.log({ event: 'jwks_key_skipped', source: owner.name, kid: null, reason: describe(error) });
        return [];
      }
    });
    options.log({ event: 'jwks_loaded', source: owner.name, usable: usable.length });
    return { keys: new Map(), authorities: usable };
  };
  /** The vetting of one source's documents, one after the other. */
  const vetter = (owner: KeyOwner): ((document: unknown) => KeySet) => {
    if (owner.kind !== 'spiffe-jwt' && owner.kind !== 'spiffe-x509') return (document) => vet(owner, document);
    let latest = 0;
    return (document) => {
      const { jwks, authorities, sequence = latest, freshMs } = readSpiffeBundle(document);
      // An old copy would bring back a key that was taken away.
      if (sequence < latest) throw new Error(`spiffe_sequence went back from ${latest} to ${sequence}`);
      const set = owner.kind === 'spiffe-x509' ? readAuthorities(owner, authorities) : vet(owner, jwks);
      latest = sequence;
      return { ...set, freshMs };
    };
  };
  const failed = (owner: KeyOwner, reason: unknown): void =>
    options.log({ event: 'jwks_fetch_failed', source: owner.name, reason: describe(reason) });

  const open = (owner: KeyOwner): KeySource => {
    const { jwks, dev } = owner;
    const vetted = vetter(owner);
    if ('url' in jwks) {
      return new RemoteKeys({
        read: () =>
          fetchJwks(jwks.url, { fetch: options.fetch, dev, timeoutMs: options.fetchTimeoutMs, signal: closing.signal }),
        vet: (text) => vetted(parseStrictJson(text)),
        clock: options.clock,
        fetched: () => options.log({ event: 'jwks_fetched', source: owner.name }),
        failed: (reason) => failed(owner, reason),
      });
    }
    if ('inline' in jwks)
      return inlineKeys(
        () => vetted(jwks.inline),
        (reason) => failed(owner, reason),
      );
    // The catalog reads key files when it is loaded and hands them on inline: nothing is read here later.
    failed(owner, new Error(`the catalog did not load ${jwks.file}`));
    return noKeys;
  };

  return {
    of(owner) {
      const id = sourceId(owner);
      const known = sources.get(id);
      if (known) return known;
      const opened = open(owner);
      sources.set(id, opened);
      return opened;
    },
    keepOnly(owners) {
      const wanted = new Set(owners.map(sourceId));
      for (const id of sources.keys()) if (!wanted.has(id)) sources.delete(id);
    },
    close() {
      closing.abort(new Error('the broker is closing'));
    },
  };
}

const ids = new WeakMap<KeyOwner, string>();

/** The definition as text: what is the same by content shares one source. */
function sourceId(owner: KeyOwner): string {
  const known = ids.get(owner);
  if (known !== undefined) return known;
  const id = JSON.stringify([owner.name, owner.kind, owner.dev, owner.jwks, owner.algorithms]);
  ids.set(owner, id);
  return id;
}

function inlineKeys(read: () => KeySet, failed: (reason: unknown) => void): KeySource {
  let set: KeySet;
  try {
    set = read();
  } catch (reason) {
    failed(reason);
    return noKeys;
  }
  return {
    current: () => set,
    search: (look) => {
      const found = look(set);
      return Promise.resolve(found === undefined ? undefined : { set, found });
    },
    ready: () => Promise.resolve(true),
  };
}

const noKeys: KeySource = {
  current: () => undefined,
  search: () => Promise.reject(new MayflyError('keys_unavailable')),
  ready: () => Promise.resolve(false),
};

/** undici says only "fetch failed"; why stands in the cause. */
function describe(reason: unknown): string {
  if (!(reason instanceof Error)) return 'unknown';
  return reason.cause instanceof Error ? `${reason.message}: ${reason.cause.message}` : reason.message;
}
