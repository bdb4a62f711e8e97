import type { AwsEntitlement, Statement } from './schema.ts';

/**
 * Actions by which a session obtains what lives on without it: credentials, tokens, and sessions of services that ask IAM when they begin and
 * never again. No deny on the role follows those. As the service authorization reference names them (read, not tried); never all of them.
 */
const vending: readonly string[] = [
  ...['s3:GetDataAccess', 's3express:CreateSession', 'lakeformation:GetDataAccess'],
  ...['lakeformation:GetTemporaryGlueTableCredentials', 'lakeformation:GetTemporaryGluePartitionCredentials'],
  ...['redshift:GetClusterCredentials', 'redshift:GetClusterCredentialsWithIAM', 'redshift-serverless:GetCredentials'],
  ...['cognito-identity:GetCredentialsForIdentity', 'cognito-identity:GetOpenIdToken'],
  ...['cognito-identity:GetOpenIdTokenForDeveloperIdentity', 'rolesanywhere:CreateSession'],
  ...['codeartifact:GetAuthorizationToken', 'ecr:GetAuthorizationToken', 'ecr-public:GetAuthorizationToken'],
  ...['sso:GetRoleCredentials', 'sso-oauth:CreateTokenWithIAM', 'iot:AssumeRoleWithCertificate', 'iot:Connect'],
  ...['rds-db:connect', 'dsql:DbConnect', 'dsql:DbConnectAdmin', 'elasticache:Connect', 'memorydb:Connect'],
  ...['ssm:StartSession', 'ec2-instance-connect:SendSSHPublicKey', 'ecs:ExecuteCommand'],
  ...['sagemaker:CreatePresignedDomainUrl', 'sagemaker:CreatePresignedNotebookInstanceUrl'],
  ...['airflow:CreateWebLoginToken', 'airflow:CreateCliToken', 'datazone:GetEnvironmentCredentials'],
  ...['elasticmapreduce:GetClusterSessionCredentials', 'emr-containers:GetManagedEndpointSessionCredentials'],
];

/** Whether a pattern of IAM's covers all that a name or another pattern does. Case does not count. */
export function covers(pattern: string, other: string): boolean {
  const source = pattern
    .replace(/[.+^${}()|[\]\\]/g, '\\$&')
    .replaceAll('*', '.*')
    .replaceAll('?', '.');
  return new RegExp(`^${source}$`, 'i').test(other);
}

/** What of that the entitlement reaches, as it names it; what it denies itself, everywhere and under no condition, is not reached. */
export function derivesBy({ statements }: Pick<AwsEntitlement, 'statements'>): readonly string[] {
  const allowed = statements.filter(({ Effect }) => Effect === 'Allow').flatMap(actionsOf);
  const denied = statements.filter(isPlainDeny).flatMap(actionsOf);
  const reached = (by: readonly string[], action: string) => by.some((pattern) => covers(pattern, action));
  return vending.filter((action) => reached(allowed, action) && !reached(denied, action));
}

/** What of a statement is looked at, whoever wrote it. */
interface Sort extends Pick<Statement, 'Effect' | 'Action' | 'Resource'> {
  readonly Condition?: unknown;
}

/** A Deny of its actions, everywhere and under no condition. */
export function isPlainDeny({ Effect, Resource, Condition }: Sort): boolean {
  return Effect === 'Deny' && Condition === undefined && [Resource ?? []].flat().includes('*');
}

export function actionsOf({ Action }: Sort): readonly string[] {
  return [Action ?? []].flat();
}

/** What is wrong with how wide an entitlement is: sentences for `catalog check`. */
export function widthFaults(config: AwsEntitlement): readonly string[] {
  const allows = config.statements.filter(({ Effect }) => Effect === 'Allow');
  const derived = derivesBy(config);
  return [
    ...(allows.some((one) => actionsOf(one).some((action) => covers(action, '*') || /^[*?]+:/.test(action)))
      ? ['an Allow names all actions of all services: name those that are needed']
      : []),
    ...(allows.some(({ NotAction }) => NotAction !== undefined)
      ? ['an Allow with NotAction allows whatever AWS adds one day: name actions']
      : []),
    ...(allows.some(({ NotResource }) => NotResource !== undefined)
      ? ['an Allow with NotResource allows whatever is made one day: name resources']
      : []),
    ...(derived.length > 0 && !config.derives_credentials
      ? [
          `by ${named(derived)} a session obtains what does not end with it: name other actions, deny these, or accept it by derives_credentials: true`,
        ]
      : []),
    ...(derived.length === 0 && config.derives_credentials
      ? ['derives_credentials accepts what the statements do not allow: take it away']
      : []),
  ];
}

/** The first of them, and how many more. */
export function named(actions: readonly string[]): string {
  const [first = '', second, third, ...more] = actions;
  const few = [first, second, third].filter((one) => one !== undefined).join(', ');
  return more.length === 0 ? few : `${few} and ${more.length} more`;
}
