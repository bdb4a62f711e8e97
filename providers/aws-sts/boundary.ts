import { z } from 'zod';
import { type PreparedEntitlement, ProviderError } from '../../src/provider.ts';
import { actionsOf, covers, isPlainDeny } from './derived.ts';
import type { AwsEntitlement, AwsTarget, Statement } from './schema.ts';
import { filled, placeholdersIn } from './session-policy.ts';

/** Characters of a managed policy that AWS takes; whitespace is not counted. */
const mostCharacters = 6_144;

/** What no role of ours may ever do, whoever writes its policies. */
export const never: readonly string[] = [
  ...[
    'Add',
    'Attach',
    'Create',
    'Delete',
    'Detach',
    'Pass',
    'Put',
    'Remove',
    'Set',
    'Tag',
    'Untag',
    'Update',
    'Upload',
  ].map((verb) => `iam:${verb}*`),
  ...['sts:*', 'signin:*'],
];

/** What the roles of a target may at most: what its entitlements allow with any params, the probe, and never a way to more. */
export function boundaryOf(
  target: AwsTarget,
  entitlements: readonly Pick<PreparedEntitlement<AwsEntitlement>, 'config'>[],
  roles: readonly string[],
): readonly Statement[] {
  const allowed = entitlements.flatMap(({ config }) => config.statements.filter(({ Effect }) => Effect === 'Allow'));
  // Several entitlements often differ by nothing but their params.
  const distinct = [...new Map(allowed.map(widest).map((one) => [JSON.stringify(one), one])).values()];
  return [...distinct, probing(target, roles), { Sid: 'Never', Effect: 'Deny', Action: [...never], Resource: '*' }];
}

/** @throws ProviderError `misconfigured` for more than a managed policy may have. */
export function requireSize(policy: object): void {
  const { length } = JSON.stringify(policy).replaceAll(/\s/g, '');
  if (length > mostCharacters)
    throw new ProviderError(
      'misconfigured',
      `the permissions boundary would have ${length} characters, and AWS takes ${mostCharacters}: divide the entitlements among several targets, each with roles and a boundary of its own`,
    );
}

function probing({ probe }: AwsTarget, roles: readonly string[]): Statement {
  const bucket =
    probe.action === 's3:ListBucket' ? `arn:${roles[0]?.split(':')[1] ?? 'aws'}:s3:::${probe.bucket}` : undefined;
  return { Sid: 'Probe', Effect: 'Allow', Action: probe.action, Resource: bucket ?? [...roles] };
}

const texts = z.union([z.string(), z.array(z.string())]).optional();
/** As anybody may have written it. */
const seenStatement = z.object({
  ...{ Effect: z.enum(['Allow', 'Deny']), Action: texts, NotAction: texts, Resource: texts, NotResource: texts },
  Condition: z.unknown().optional(),
});
type SeenStatement = z.infer<typeof seenStatement>;
const document = z.object({ Statement: z.union([seenStatement, z.array(seenStatement)]) });

type Conditions = NonNullable<Statement['Condition']>;

/** With any value for its params. What a wildcard can not stand for, no condition of the boundary asks for. */
function widest(statement: Statement): Statement {
  const conditions: Conditions = {};
  for (const [operator, keys] of Object.entries(statement.Condition ?? {})) {
    for (const [key, value] of Object.entries(keys)) {
      const bound = placeholdersIn(value).length > 0;
      const by = bound ? matching(operator) : operator;
      // A condition that is left out makes the boundary wider, and no grant: the session policy has it.
      if (by === undefined || conditions[by]?.[key] !== undefined) continue;
      conditions[by] = { ...conditions[by], [key]: value };
    }
  }
  const { Sid: _sid, Condition: _condition, ...rest } = statement;
  return filled({ ...rest, ...(Object.keys(conditions).length > 0 && { Condition: conditions }) }, () => '*');
}

/** The operator that reads wildcards; none for negations, and for what is no text. */
function matching(operator: string): string | undefined {
  const [, set = '', kind, , suffix = ''] =
    /^(For(?:All|Any)Values?:)?(String|Arn)(Equals|Like)(IfExists)?$/.exec(operator) ?? [];
  return kind === undefined ? undefined : `${set}${kind}Like${suffix}`;
}

export interface BoundarySeen {
  /** What it does not deny of that which no role may do. */
  readonly open: readonly string[];
  /** It allows all actions, or all but some: it bounds nothing else. */
  readonly wild: boolean;
  /** Actions of the entitlement that no Allow of it has. */
  readonly missing: readonly string[];
}

/** A boundary as it stands, beside what `target prepare` prints. Undefined for one that is no policy. */
export function seeBoundary(text: string, entitlement: AwsEntitlement | null): BoundarySeen | undefined {
  const statements = statementsIn(text);
  if (statements === undefined) return undefined;
  const denied = statements.filter(isPlainDeny).flatMap(actionsOf);
  const allows = statements.filter(({ Effect }) => Effect === 'Allow');
  const allowed = allows.flatMap(actionsOf);
  const open = allows.some(({ NotAction, NotResource }) => NotAction !== undefined || NotResource !== undefined);
  const needed = (entitlement?.statements ?? []).filter(({ Effect }) => Effect === 'Allow').flatMap(actionsOf);
  const lacks = (by: readonly string[], action: string) => !by.some((pattern) => covers(pattern, action));
  return {
    open: never.filter((action) => lacks(denied, action)),
    wild: open || allowed.some((action) => covers(action, '*')),
    missing: open ? [] : [...new Set(needed.filter((action) => lacks(allowed, action)))],
  };
}

function statementsIn(text: string): readonly SeenStatement[] | undefined {
  try {
    const read = document.safeParse(JSON.parse(text));
    return read.success ? [read.data.Statement].flat() : undefined;
  } catch {
    return undefined;
  }
}
