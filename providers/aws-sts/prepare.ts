import { type PreparedEntitlement, ProviderError } from '../../src/provider.ts';
import { grantTag } from './handle.ts';
import { allRoles, type AwsEntitlement, type AwsTarget, type Statement } from './schema.ts';
import { filled } from './session-policy.ts';
import { nameOf } from './account.ts';

export const prepareFormats = ['json', 'terraform'] as const;

interface TrustStatement {
  readonly Sid: string;
  readonly Effect: 'Allow';
  readonly Principal: Readonly<Record<string, string>>;
  readonly Action: readonly string[];
  readonly Condition: Readonly<Record<string, Readonly<Record<string, string | readonly string[]>>>>;
}

interface Policy {
  readonly Version: '2012-10-17';
  readonly Statement: readonly (Statement | TrustStatement)[];
}

/** What an administrator of the account is to make, for all roles of the target. It is printed, and never applied by us. */
interface Preparation {
  readonly boundaryArn: string;
  readonly trust: Policy;
  readonly boundary: Policy;
  readonly broker: Policy;
}

/** @throws ProviderError `misconfigured` for a format that is none. */
export async function script(
  target: AwsTarget,
  entitlements: readonly PreparedEntitlement<AwsEntitlement>[],
  _installation: string,
  _secret: unknown,
  _by: unknown,
  format = 'json',
): Promise<string> {
  const prepared = prepare(target, entitlements);
  if (format === 'terraform') return terraform(target, prepared);
  if (format !== 'json')
    throw new ProviderError('misconfigured', `there is no format ${format}: ${prepareFormats.join(', ')}`);
  const { trust, boundary, broker, boundaryArn } = prepared;
  const roles = allRoles(target).map(({ arn }) => arn);
  return JSON.stringify(
    {
      roles,
      role_trust_policy: trust,
      permissions_boundary: { arn: boundaryArn, policy: boundary },
      broker_role: brokerRole(target),
      broker_policy: broker,
    },
    null,
    2,
  );
}

function prepare(target: AwsTarget, entitlements: readonly PreparedEntitlement<AwsEntitlement>[]): Preparation {
  const roles = allRoles(target).map(({ arn }) => arn);
  const boundaryArn =
    target.permissions_boundary ?? `arn:${partition(target)}:iam::${target.account_id}:policy/mayfly-boundary`;
  const policy = (Statement: Policy['Statement']): Policy => ({ Version: '2012-10-17', Statement });
  const allowed = entitlements.flatMap(({ config }) => config.statements.filter(({ Effect }) => Effect === 'Allow'));
  const writes: readonly Statement[] = [
    {
      Sid: 'Read',
      Effect: 'Allow',
      Action: ['iam:GetRole', 'iam:ListRolePolicies', 'iam:GetRolePolicy'],
      Resource: [...roles],
    },
    {
      Sid: 'Fence',
      Effect: 'Allow',
      Action: ['iam:PutRolePolicy', 'iam:DeleteRolePolicy'],
      Resource: [...roles],
      // A policy that it writes can never give the role more than the boundary.
      Condition: { StringEquals: { 'iam:PermissionsBoundary': boundaryArn } },
    },
  ];
  return {
    boundaryArn,
    trust: policy([
      {
        Sid: 'Mayfly',
        Effect: 'Allow',
        Principal: { AWS: brokerRole(target) },
        Action: ['sts:AssumeRole', 'sts:SetSourceIdentity', 'sts:TagSession'],
        Condition: { StringLike: { [`aws:RequestTag/${grantTag}`]: '????????????' } },
      },
    ]),
    boundary: policy([
      ...allowed.map(widest),
      probing(target, roles),
      { Sid: 'Never', Effect: 'Deny', Action: never, Resource: '*' },
    ]),
    broker: policy([
      {
        Sid: 'Assume',
        Effect: 'Allow',
        Action: ['sts:AssumeRole', 'sts:SetSourceIdentity', 'sts:TagSession'],
        Resource: [...roles],
      },
      ...(target.fence === 'none' ? writes.slice(0, 1) : writes),
    ]),
  };
}

/** What no role of ours may ever do, whoever writes its policies. */
const never = [
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
  ...['sts:AssumeRole*', 'sts:GetFederationToken', 'sts:GetSessionToken'],
];

function probing({ probe }: AwsTarget, roles: readonly string[]): Statement {
  const bucket =
    probe.action === 's3:ListBucket' ? `arn:${roles[0]?.split(':')[1] ?? 'aws'}:s3:::${probe.bucket}` : undefined;
  return { Sid: 'Probe', Effect: 'Allow', Action: probe.action, Resource: bucket ?? [...roles] };
}

/** With any value for its params. */
function widest(statement: Statement): Statement {
  return { ...filled(statement, () => '*'), Sid: undefined };
}

function brokerRole(target: AwsTarget): string {
  return target.broker_role ?? `arn:${partition(target)}:iam::${target.account_id}:role/mayfly-broker`;
}

function partition({ roles }: AwsTarget): string {
  return roles[0]?.arn.split(':')[1] ?? 'aws';
}

function terraform(target: AwsTarget, { trust, boundary, broker, boundaryArn }: Preparation): string {
  const roles = allRoles(target).map(
    ({ arn }) => `resource "aws_iam_role" "${label(nameOf(arn))}" {
  name                 = "${nameOf(arn)}"
  max_session_duration = ${target.max_session_seconds}
  permissions_boundary = aws_iam_policy.mayfly_boundary.arn
  assume_role_policy   = ${heredoc(trust)}
}`,
  );
  return `# The permissions of the roles themselves are yours to give, in managed policies. Manage no inline policies of these roles
# (no \`inline_policy\`, no \`aws_iam_role_policies_exclusive\`): the next apply would take the fence away.

resource "aws_iam_policy" "mayfly_boundary" {
  name   = "${nameOf(boundaryArn)}"
  policy = ${heredoc(boundary)}
}

${roles.join('\n\n')}

resource "aws_iam_role_policy" "mayfly_broker" {
  name   = "mayfly-broker"
  role   = "${nameOf(brokerRole(target))}"
  policy = ${heredoc(broker)}
}
`;
}

/** Terraform would take IAM's own variables for its own. */
function heredoc(policy: Policy): string {
  return `<<-JSON\n${JSON.stringify(policy, null, 2).replaceAll('${', '$${').replaceAll('%{', '%%{')}\nJSON`;
}

function label(name: string): string {
  return name.replace(/[^A-Za-z0-9_-]/g, '_').replace(/^(?=[^A-Za-z_])/, '_');
}
