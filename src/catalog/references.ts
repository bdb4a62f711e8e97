/**
 * The rules of secret references (`env:NAME`, `file:path`), the same when the catalog is checked and when the
 * reference is resolved. DESIGN §3: they reach only what belongs to their own target.
 */
export type Reference =
  | { readonly kind: 'env'; readonly name: string }
  | { readonly kind: 'file'; readonly path: string };

/** Webhooks are owners of secrets too. No target's name begins so: neither reaches the other's. */
const WEBHOOKS = '_webhooks/';

/** As which owner a webhook reaches its secrets, in a folder or by variables of its own. */
export function webhookOwner(name: string): string {
  return `${WEBHOOKS}${name}`;
}

/** `ledger-db` → `MAYFLY_TARGET_LEDGER_DB_`; of the webhook `oncall` `MAYFLY_WEBHOOKS_ONCALL_`. */
function envPrefix(owner: string): string {
  const [kind, name] = owner.startsWith(WEBHOOKS) ? ['WEBHOOKS', owner.slice(WEBHOOKS.length)] : ['TARGET', owner];
  return `MAYFLY_${kind}_${name.toUpperCase().replaceAll('-', '_')}_`;
}

function isReference(text: string): boolean {
  return /^(env|file):/.test(text);
}

/** The reference that a target may use, or the sentence that says why it may not. */
export function parseReference(
  target: string,
  text: string,
): Reference | { readonly kind: 'refused'; readonly why: string } {
  const refused = (why: string) => ({ kind: 'refused', why }) as const;
  if (text.startsWith('env:')) {
    const name = text.slice('env:'.length);
    const prefix = envPrefix(target);
    return /^[A-Z][A-Z0-9_]*$/.test(name) && name.startsWith(prefix) && name.length > prefix.length
      ? { kind: 'env', name }
      : refused(`may only name variables that begin with ${prefix}`);
  }
  if (text.startsWith('file:')) {
    const path = text.slice('file:'.length);
    const segments = path.split('/');
    const plain = segments.every((segment) => /^[A-Za-z0-9_.-]{1,100}$/.test(segment) && !/^\.+$/.test(segment));
    return plain && segments.length <= 8
      ? { kind: 'file', path }
      : refused(`must be a path below the secrets folder of ${target}, without \`..\``);
  }
  return refused('must be a reference: `env:NAME` or `file:path`');
}

/**
 * Of two targets `ledger` and `ledger-db`, the prefix of the first also fits the variables of the second. The
 * variable belongs to the target with the longer name.
 */
export function envOwner(name: string, targets: Iterable<string>): string | undefined {
  return [...targets].filter((target) => name.startsWith(envPrefix(target))).sort((a, b) => b.length - a.length)[0];
}

const secretName =
  /(^|_)(password|passwd|pwd|passphrase|secret|secrets|token|api_key|apikey|private_key|secret_key|access_key|credential|credentials)$/i;

const privateKeyBlock = /-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----/;

/** Offset of a private key written into a file, or -1. No file of a catalog has a reason to hold one. */
export function privateKeyOffset(text: string): number {
  return text.search(privateKeyBlock);
}

export interface Suspicion {
  readonly path: readonly PropertyKey[];
  readonly why: string;
}

/**
 * Looks through a `connection` or `provider` section for secrets in clear and for references that reach too far,
 * whatever the provider's own schema lets through.
 */
export function* suspiciousValues(
  target: string,
  targets: ReadonlySet<string>,
  value: unknown,
  path: readonly PropertyKey[],
): Iterable<Suspicion> {
  if (typeof value === 'string') {
    const field = path.findLast((key) => typeof key === 'string');
    if (isReference(value)) {
      const reference = parseReference(target, value);
      if (reference.kind === 'refused') yield { path, why: reference.why };
      else if (reference.kind === 'env') {
        const owner = envOwner(reference.name, targets);
        if (owner !== undefined && owner !== target)
          yield { path, why: `that variable belongs to the target ${owner}` };
      }
    } else if (typeof field === 'string' && secretName.test(field)) {
      yield { path, why: 'looks like a secret in clear: write `env:NAME` or `file:path`' };
    } else if (/^[a-z][a-z0-9+.-]*:\/\/[^/?#@\s]*:[^/?#@\s]+@/i.test(value)) {
      yield { path, why: 'holds a password in a URL: write it as a reference in a field of its own' };
    }
  } else if (typeof value === 'object' && value !== null) {
    for (const [key, member] of Object.entries(value)) {
      yield* suspiciousValues(target, targets, member, [...path, Array.isArray(value) ? Number(key) : key]);
    }
  }
}
