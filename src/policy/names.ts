import { type SignalKind, signalKinds, signalValues } from '../domain/signal.ts';
import type { PolicyJson } from './cedar.ts';
import { UNKNOWN } from './signals.ts';

/** Every name that a policy may use for something of the catalog. */
export interface Vocabulary {
  readonly entitlements: ReadonlySet<string>;
  readonly targets: ReadonlySet<string>;
  readonly workloadSources: ReadonlySet<string>;
  readonly purposes: ReadonlySet<string>;
  readonly phases: ReadonlySet<string>;
  readonly issuers: ReadonlySet<string>;
  readonly sensitivities: ReadonlySet<string>;
  readonly dataClasses: ReadonlySet<string>;
  readonly guarantees: ReadonlySet<string>;
  readonly signalSources: ReadonlySet<string>;
}

export interface NameFault {
  /** The text that names nothing, as it stands in the policy. */
  readonly literal: string;
  readonly message: string;
}

/**
 * Finds names that exist nowhere in the catalog. Cedar's validator knows types, not names: a misspelt entitlement
 * makes a permit useless and, worse, a forbid toothless, without a word. Looks at entity literals, and at what the
 * attributes with a closed set of values are compared with.
 */
export function nameFaults(policy: PolicyJson, vocabulary: Vocabulary): readonly NameFault[] {
  const faults: NameFault[] = [];
  const ours = concernsOurs(policy);
  walk(policy, (node) => {
    const entity = entityOf(node);
    if (entity !== undefined) faults.push(...entityFaults(entity.type, entity.id, vocabulary));
    if (ours) faults.push(...comparisonFaults(node, vocabulary));
  });
  return faults;
}

/** Every entity that a policy names. */
export function entitiesOf(policy: PolicyJson): readonly { type: string; id: string }[] {
  const found: { type: string; id: string }[] = [];
  walk(policy, (node) => {
    const entity = entityOf(node);
    if (entity !== undefined) found.push(entity);
  });
  return found;
}

type Node = Readonly<Record<string, unknown>>;

function isNode(value: unknown): value is Node {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function walk(value: unknown, visit: (node: Node) => void): void {
  if (Array.isArray(value)) for (const item of value) walk(item, visit);
  else if (isNode(value)) {
    visit(value);
    for (const member of Object.values(value)) walk(member, visit);
  }
}

/** Attributes are told by name alone, so a policy about another principal type is left to Cedar. */
function concernsOurs(policy: PolicyJson): boolean {
  const { principal } = policy;
  const type = principal.op === 'is' ? principal.entity_type : principal.op === '==' ? 'Mayfly::Task' : undefined;
  return type === undefined || type === 'Mayfly::Task';
}

function entityOf(node: Node): { type: string; id: string } | undefined {
  const { type, id } = node;
  return typeof type === 'string' && typeof id === 'string' ? { type, id } : undefined;
}

function entityFaults(type: string, id: string, vocabulary: Vocabulary): readonly NameFault[] {
  switch (type) {
    case 'Mayfly::Entitlement':
      return vocabulary.entitlements.has(id) ? [] : [{ literal: id, message: `there is no entitlement ${id}` }];
    case 'Mayfly::Target':
      return vocabulary.targets.has(id) ? [] : [{ literal: id, message: `there is no target ${id}` }];
    case 'Mayfly::Workload': {
      const source = id.slice(0, Math.max(0, id.indexOf(':')));
      return vocabulary.workloadSources.has(source)
        ? []
        : [{ literal: id, message: `there is no workload source for ${id}: write <source>:<subject>` }];
    }
    default:
      return [];
  }
}

function comparisonFaults(node: Node, vocabulary: Vocabulary): readonly NameFault[] {
  return Object.entries(node).flatMap(([operator, operands]) => {
    if (!isNode(operands) || !['==', '!=', 'contains', 'containsAny', 'containsAll'].includes(operator)) return [];
    const { left, right } = operands;
    const known = knownValues(left, vocabulary) ?? knownValues(right, vocabulary);
    if (known === undefined) return [];
    return [...literals(left), ...literals(right)]
      .filter((literal) => !known.values.has(literal))
      .map((literal) => ({ literal, message: `no ${known.of} is called "${literal}"` }));
  });
}

function knownValues(
  expression: unknown,
  vocabulary: Vocabulary,
): { readonly of: string; readonly values: ReadonlySet<string> } | undefined {
  const access = isNode(expression) ? expression['.'] : undefined;
  if (!isNode(access)) return undefined;
  const root = isNode(access['left']) ? access['left']['Var'] : undefined;
  switch (access['attr']) {
    case 'purpose':
      return root === 'principal' ? { of: 'purpose', values: vocabulary.purposes } : undefined;
    case 'phase':
      return root === 'principal' ? { of: 'phase', values: vocabulary.phases } : undefined;
    case 'issuer':
      return root === 'principal' ? { of: 'task issuer', values: vocabulary.issuers } : undefined;
    case 'guarantee':
      return root === 'context' ? { of: 'guarantee', values: vocabulary.guarantees } : undefined;
    case 'risk':
      return { of: 'level of risk', values: valuesOf('workload_risk') };
    case 'device':
      return root === 'context' ? { of: 'state of a device', values: valuesOf('device') } : undefined;
    case 'user':
      return root === 'context' ? { of: 'state of a user', values: valuesOf('user') } : undefined;
    case 'stale_sources':
      return { of: 'signal source', values: vocabulary.signalSources };
    case 'stale_kinds':
      return { of: 'kind of signal', values: new Set<string>(signalKinds) };
    case 'data_classes':
      return { of: 'data class', values: vocabulary.dataClasses };
    case 'sensitivity':
      return { of: 'sensitivity', values: vocabulary.sensitivities };
    default:
      return undefined;
  }
}

function valuesOf(kind: SignalKind): ReadonlySet<string> {
  return new Set<string>([...signalValues[kind], UNKNOWN]);
}

/** The text of `"a"`, and of each item of `["a", "b"]`. */
function literals(expression: unknown): readonly string[] {
  if (!isNode(expression)) return [];
  if (typeof expression['Value'] === 'string') return [expression['Value']];
  const set: unknown = expression['Set'] ?? expression['Value'];
  return Array.isArray(set) ? set.flatMap((item: unknown) => (typeof item === 'string' ? [item] : literals(item))) : [];
}
