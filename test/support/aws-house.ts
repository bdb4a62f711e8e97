import type { AwsAccount, PolicyStatement } from './aws-account.ts';
import type { AwsStandIn } from './aws-stand-in/server.ts';

/** Of a catalog: the target `aws` with one role, whose broker's keys are secrets of the house, and one entitlement there. */
export function awsFilesOf(
  { id, region, endpoint }: Pick<AwsAccount, 'id' | 'region' | 'endpoint'>,
  role: string,
  entitlement: string,
  bucket: string,
): Readonly<Record<string, string>> {
  const connection = {
    ...{ account_id: id, region, roles: [{ arn: role }] },
    broker: { access_key_id: 'file:key', secret_access_key: 'file:secret', session_token: 'file:session' },
    endpoints: { sts: endpoint, iam: endpoint, s3: endpoint },
    probe: { action: 's3:ListBucket', bucket },
  };
  const common = { environment: 'demo', owner: 'finance', sensitivity: 'internal' };
  const statements = [{ Effect: 'Allow', Action: 's3:GetObject', Resource: `arn:aws:s3:::${bucket}/march` }];
  const read = {
    ...{ name: entitlement, target: 'aws', sensitivity: 'internal', actions: ['read'], max_ttl_seconds: 900 },
    provider: { role, statements },
  };
  return {
    'targets/aws.yaml': JSON.stringify({ name: 'aws', provider: 'aws-sts', connection, ...common }),
    'entitlements/aws.yaml': JSON.stringify([read]),
    'policies/aws.cedar': `@id("aws") permit (principal, action, resource == Mayfly::Entitlement::"${entitlement}");`,
  };
}

/** Gives a role another inline policy, `crowd`, that leaves so many characters of its quota. */
export function crowdOut(aws: AwsStandIn, role: string, left: number): void {
  const statement = (filling: string): PolicyStatement[] => [
    { Effect: 'Deny', Action: 'ec2:RunInstances', Resource: `arn:aws:ec2:*:*:instance/${filling}` },
  ];
  const others = [...aws.policies(role).values()].join('').replaceAll(/\s/g, '').length;
  const empty = JSON.stringify({ Version: '2012-10-17', Statement: statement('') }).length;
  aws.putPolicy(role, 'crowd', statement('x'.repeat(10_240 - left - others - empty)));
}
