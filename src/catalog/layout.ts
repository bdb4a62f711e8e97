/** What a file of the catalog is, told by its path alone. DESIGN §3, The catalog. */
export type FileKind =
  | 'trust'
  | 'purposes'
  | 'target'
  | 'entitlements'
  | 'policy'
  | 'policy-schema'
  | 'policy-tests'
  /** A JWKS; only where `trust.yaml` names it. */
  | 'key-set'
  | 'limits'
  | 'change-control'
  | 'webhooks'
  | 'entities';

/** Far above any catalog that people keep by hand, and small enough to check within a request. */
export const catalogLimits = { files: 2000, fileBytes: 256 * 1024, totalBytes: 8 * 1024 * 1024 } as const;

const segment = '[A-Za-z0-9][A-Za-z0-9._-]{0,99}';

const kinds: readonly (readonly [FileKind, RegExp])[] = [
  ['trust', /^trust\.yaml$/],
  ['purposes', /^purposes\.yaml$/],
  ['limits', /^limits\.yaml$/],
  ['change-control', /^catalog\.yaml$/],
  ['webhooks', /^webhooks\.yaml$/],
  ['entities', /^entities\.yaml$/],
  ['target', new RegExp(`^targets/${segment}\\.yaml$`)],
  ['entitlements', new RegExp(`^entitlements/${segment}\\.yaml$`)],
  ['policy-schema', /^policies\/schema\.cedarschema$/],
  ['policy-tests', new RegExp(`^policies/tests/${segment}\\.yaml$`)],
  ['policy', new RegExp(`^policies/${segment}\\.cedar$`)],
  ['key-set', new RegExp(`^(${segment}/){0,4}${segment}\\.json$`)],
];

/** The kind of file at this path, or undefined: the catalog has no such file. */
export function fileKind(path: string): FileKind | undefined {
  return kinds.find(([, pattern]) => pattern.test(path))?.[0];
}

/** `targets/ledger-db.yaml` → `ledger-db`. */
export function baseName(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1).replace(/\.[a-z]+$/, '');
}
