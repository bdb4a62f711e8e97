import { type PreparedEntitlement, ProviderError } from '../../src/provider.ts';
import { boundaryOf, requireSize } from './boundary.ts';
import { allRoles, type AwsEntitlement, type AwsTarget, type Statement } from './schema.ts';
import { type TrustStatement, trustOf } from './trust.ts';
import { chainedSeconds, nameOf } from './account.ts';

export const prepareFormats = ['json', 'terraform'] as const;

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
  const boundary = policy(boundaryOf(target, entitlements, roles));
  requireSize(boundary);
  const writes: readonly Statement[] = [
    {
      Sid: 'Read',
      Effect: 'Allow',
      Action: ['iam:GetRole', 'iam:ListRolePolicies', 'iam:GetRolePolicy'],
      Resource: [...roles],
    },
    // So that `check` can say whether the boundary is one.
    { Sid: 'Bounded', Effect: 'Allow', Action: ['iam:GetPolicy', 'iam:GetPolicyVersion'], Resource: boundaryArn },
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
    trust: policy([...trustOf({ AWS: brokerRole(target) })]),
    boundary,
    broker: policy([
      {
        Sid: 'Assume',
        Effect: 'Allow',
        Action: ['sts:AssumeRole', 'sts:SetSourceIdentity', 'sts:TagSession'],
        Resource: [...roles],
      },
      ...writes.filter(({ Sid }) => target.fence !== 'none' || Sid !== 'Fence'),
    ]),
  };
}

function brokerRole(target: AwsTarget): string {
  return target.broker_role ?? `arn:${partition(target)}:iam::${target.account_id}:role/mayfly-broker`;
}

function partition({ roles }: AwsTarget): string {
  return roles[0]?.arn.split(':')[1] ?? 'aws';
}

function terraform(target: AwsTarget, { trust, boundary, broker, boundaryArn }: Preparation): string {
  const labels = new Set<string>();
  const roles = allRoles(target).map(
    ({ arn }) => `resource "aws_iam_role" "${label(nameOf(arn), labels)}" {
  name                 = "${nameOf(arn)}"
  path                 = "${pathOf(arn)}"
  max_session_duration = ${Math.max(chainedSeconds, target.max_session_seconds)}
  permissions_boundary = aws_iam_policy.mayfly_boundary.arn
  assume_role_policy   = ${heredoc(trust)}
}`,
  );
  return `# The permissions of the roles themselves are yours to give, in managed policies. Manage no inline policies of these roles
# (no \`inline_policy\`, no \`aws_iam_role_policies_exclusive\`): the next apply would take the fence away.

resource "aws_iam_policy" "mayfly_boundary" {
  name   = "${nameOf(boundaryArn)}"
  path   = "${pathOf(boundaryArn)}"
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

/** That of its ARN: a role of that name elsewhere is another one. */
function pathOf(arn: string): string {
  return arn.slice(arn.indexOf('/'), arn.lastIndexOf('/') + 1);
}

/** @param taken Two names may differ by nothing that a label can have. */
function label(name: string, taken: Set<string>): string {
  const plain = name.replace(/[^A-Za-z0-9_-]/g, '_').replace(/^(?=[^A-Za-z_])/, '_');
  let free = plain;
  for (let number = 2; taken.has(free); number += 1) free = `${plain}_${number}`;
  taken.add(free);
  return free;
}
