/** A SPIFFE ID taken apart (SPIFFE-ID §2): `spiffe://<trust domain><path>`. */
export interface SpiffeId {
  readonly trustDomain: string;
  /** Empty for the trust domain itself, else `/a/b`. */
  readonly path: string;
}

const GRAMMAR = /^spiffe:\/\/([a-z0-9._-]{1,255})((?:\/[A-Za-z0-9._-]+)*)$/;
/** SPIFFE-ID §2.3. */
const MAX_CHARS = 2048;

/**
 * Reads a SPIFFE ID in its only spelling: nothing is decoded, folded or resolved, so what has two spellings
 * elsewhere (`%61`, `//`, `..`, `:443`) is no id here.
 */
export function parseSpiffeId(text: string): SpiffeId | undefined {
  const [, trustDomain, path] = text.length > MAX_CHARS ? [] : (GRAMMAR.exec(text) ?? []);
  if (trustDomain === undefined || path === undefined) return undefined;
  return path.split('/').some((segment) => segment === '.' || segment === '..') ? undefined : { trustDomain, path };
}
