import { isDeepStrictEqual } from 'node:util';
import { uncontrolled } from './change-control.ts';
import type { Catalog } from './types.ts';

export type ChangedKind =
  | 'task_issuer'
  | 'workload_source'
  | 'operators'
  | 'tool_gateway'
  | 'signal_source'
  | 'webhook'
  | 'target'
  | 'entitlement'
  | 'purpose'
  | 'toxic'
  | 'limit'
  | 'policy'
  | 'policy_schema'
  | 'entity'
  | 'change_control';

export interface FieldChange {
  /** As in the file: `max_ttl_seconds`, `connection.host`. */
  readonly path: string;
  /** Undefined where the field was or is absent. */
  readonly before?: unknown;
  readonly after?: unknown;
}

export interface CatalogChange {
  readonly kind: ChangedKind;
  readonly name: string;
  readonly change: 'added' | 'removed' | 'changed';
  /** Empty unless `changed`. */
  readonly fields: readonly FieldChange[];
}

/** What one catalog changes against another. Holds no secrets, since catalogs hold none. */
export interface CatalogDiff {
  /** Digest of the catalog in force, or null when there is none yet. */
  readonly from: string | null;
  readonly to: string;
  readonly changes: readonly CatalogChange[];
}

type Named = ReadonlyMap<string, object>;

/** Compares meaning, not text: comments, order, policy tests and where a policy stands are no change. */
export function diffCatalogs(active: Catalog | null, next: Catalog): CatalogDiff {
  const before = active === null ? undefined : parts(active);
  const changes = [...parts(next)].flatMap(([kind, named]) => compare(kind, before?.get(kind) ?? new Map(), named));
  return { from: active?.digest ?? null, to: next.digest, changes };
}

function parts(catalog: Catalog): ReadonlyMap<ChangedKind, Named> {
  const { trust, policySet, changeControl } = catalog;
  const byName = (list: readonly { readonly name: string }[]): Named => new Map(list.map((item) => [item.name, item]));
  const policies = policySet.policies.map(({ id, text }): [string, object] => [id, { text }]);
  return new Map<ChangedKind, Named>([
    ['task_issuer', byName([...trust.taskIssuers, ...trust.tokenIssuers])],
    ['workload_source', byName(trust.workloadSources)],
    ['operators', byName(trust.operators)],
    ['tool_gateway', byName(catalog.toolGateways)],
    ['signal_source', byName(catalog.signalSources)],
    ['webhook', byName(catalog.webhooks)],
    ['target', catalog.targets],
    ['entitlement', catalog.entitlements],
    ['purpose', catalog.purposes],
    ['toxic', byName(catalog.limits.toxic)],
    ['limit', byName(catalog.limits.atMost)],
    ['policy', new Map(policies)],
    ['policy_schema', policySet.schema.trim() === '' ? new Map() : new Map([['schema', { text: policySet.schema }]])],
    [
      'change_control',
      isDeepStrictEqual(changeControl, uncontrolled) ? new Map() : new Map([['catalog.yaml', changeControl]]),
    ],
    ['entity', new Map(policySet.entities.map((entity) => [`${entity.type}::${entity.id}`, entity]))],
  ]);
}

function compare(kind: ChangedKind, before: Named, after: Named): readonly CatalogChange[] {
  const names = [...new Set([...before.keys(), ...after.keys()])].sort();
  return names.flatMap((name): readonly CatalogChange[] => {
    const [old, now] = [before.get(name), after.get(name)];
    if (old === undefined) return [{ kind, name, change: 'added', fields: [] }];
    if (now === undefined) return [{ kind, name, change: 'removed', fields: [] }];
    const fields = fieldChanges(old, now, '');
    return fields.length === 0 ? [] : [{ kind, name, change: 'changed', fields }];
  });
}

function fieldChanges(before: object, after: object, base: string): readonly FieldChange[] {
  const old = new Map<string, unknown>(Object.entries(before));
  const now = new Map<string, unknown>(Object.entries(after));
  return [...new Set([...old.keys(), ...now.keys()])].flatMap((key): readonly FieldChange[] => {
    const [a, b] = [old.get(key), now.get(key)];
    if (isDeepStrictEqual(a, b)) return [];
    // Only the definitions' own members were renamed when they were read; below them keys are the author's.
    const path = base === '' ? key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`) : `${base}.${key}`;
    if (isRecord(a) && isRecord(b)) return fieldChanges(a, b, path);
    return [{ path, ...(a === undefined ? {} : { before: a }), ...(b === undefined ? {} : { after: b }) }];
  });
}

function isRecord(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

const kindWords: Readonly<Record<ChangedKind, string>> = {
  task_issuer: 'task issuer',
  workload_source: 'workload source',
  operators: 'operators',
  tool_gateway: 'tool gateway',
  signal_source: 'signal source',
  webhook: 'webhook',
  target: 'target',
  entitlement: 'entitlement',
  purpose: 'purpose',
  toxic: 'toxic combination',
  limit: 'limit',
  policy: 'policy',
  policy_schema: 'policy schema',
  entity: 'entity',
  change_control: 'change control',
};

/** The diff for people, one line for each thing and one for each field. */
export function renderDiff(diff: CatalogDiff): string {
  if (diff.from === diff.to) return 'Nothing changes.\n';
  if (diff.changes.length === 0) return 'Only comments, order or policy tests change.\n';
  const signs = { added: '+', removed: '-', changed: '~' } as const;
  const lines = diff.changes.flatMap(({ kind, name, change, fields }) => [
    `${signs[change]} ${kindWords[kind]} ${name}`,
    ...fields.flatMap((field) => renderField(field)),
  ]);
  return `${lines.join('\n')}\n`;
}

function renderField({ path, before, after }: FieldChange): readonly string[] {
  if (typeof before === 'string' && typeof after === 'string' && `${before}${after}`.includes('\n')) {
    const quoted = (sign: string, text: string): string[] =>
      text
        .trimEnd()
        .split('\n')
        .map((line) => `    ${sign} ${line}`);
    return [`    ${path}:`, ...quoted('-', before), ...quoted('+', after)];
  }
  const show = (value: unknown): string => (value === undefined ? '(none)' : JSON.stringify(value));
  return [`    ${path}: ${show(before)} → ${show(after)}`];
}
