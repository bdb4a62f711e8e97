import {
  CreateAccessKeyCommand,
  CreatePolicyCommand,
  CreateRoleCommand,
  CreateUserCommand,
  DeleteRoleCommand,
  DeleteRolePolicyCommand,
  IAMClient,
  ListRolePoliciesCommand,
  PutRolePolicyCommand,
  PutUserPolicyCommand,
} from '@aws-sdk/client-iam';
import { CreateBucketCommand, GetObjectCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { AssumeRoleCommand, type AssumeRoleCommandInput, STSClient } from '@aws-sdk/client-sts';

/** What signs requests: of a user or root without a token, of a role session with one. */
export interface AwsKeys {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string;
}

export interface PolicyStatement {
  readonly Sid?: string;
  readonly Effect: 'Allow' | 'Deny';
  readonly Principal?: '*' | Readonly<Record<string, string | readonly string[]>>;
  readonly Action: string | readonly string[];
  readonly Resource?: string | readonly string[];
  readonly Condition?: Readonly<Record<string, Readonly<Record<string, string | readonly string[]>>>>;
}

export interface Role {
  /** Without a path: test servers drop it. */
  readonly name: string;
  /** Who may assume it. The default is everybody of the account who may `sts:AssumeRole`, with tags and a source identity. */
  readonly trust?: readonly PolicyStatement[];
  /** Its inline policies. */
  readonly policies?: Readonly<Record<string, readonly PolicyStatement[]>>;
  /** Of its permissions boundary, a managed policy `<name>-boundary`. */
  readonly boundary?: readonly PolicyStatement[];
  /** The longest session. The default is an hour. */
  readonly maxSeconds?: number;
}

/** What of an account a test prepares and tries: of MiniStack by its root, of the stand-in in this process. */
export interface AwsAccount {
  readonly endpoint: string;
  readonly region: string;
  /** Twelve digits. */
  readonly id: string;
  makeRole(role: Role): Promise<{ readonly arn: string }>;
  /** With its policies. */
  removeRole(name: string): Promise<void>;
  /** Its long-term keys: what a broker must not run as. */
  makeUser(name: string, policy: readonly PolicyStatement[]): Promise<AwsKeys>;
  /** With that object in it. */
  makeBucket(name: string, objects?: readonly string[]): Promise<void>;
}

/** Where an account is; without an endpoint it is one of AWS itself. */
interface Place {
  readonly endpoint?: string;
  readonly region: string;
}

/** For a client of the SDK: `new STSClient(clientOf(account, keys))`. It asks once and does not retry. */
export function clientOf({ endpoint, region }: Place, credentials: AwsKeys) {
  const own = endpoint === undefined ? {} : { endpoint, forcePathStyle: true };
  return { region, credentials: { ...credentials }, maxAttempts: 1, ...own };
}

/** The account that those keys, of its root, may prepare. */
export function accountOf(server: {
  readonly endpoint: string;
  readonly region: string;
  readonly account: string;
  readonly root: AwsKeys;
}): AwsAccount {
  const iam = new IAMClient(clientOf(server, server.root));
  const s3 = new S3Client(clientOf(server, server.root));
  return {
    endpoint: server.endpoint,
    region: server.region,
    id: server.account,
    async makeRole({
      name: RoleName,
      trust = trustOfAccount(server.account),
      policies = {},
      boundary,
      maxSeconds = 3600,
    }) {
      const limits = boundary === undefined ? {} : { PermissionsBoundary: await makeBoundary(iam, RoleName, boundary) };
      const made = await iam.send(
        new CreateRoleCommand({
          RoleName,
          AssumeRolePolicyDocument: documentOf(trust),
          MaxSessionDuration: maxSeconds,
          ...limits,
        }),
      );
      for (const [PolicyName, statements] of Object.entries(policies)) {
        await iam.send(new PutRolePolicyCommand({ RoleName, PolicyName, PolicyDocument: documentOf(statements) }));
      }
      return { arn: made.Role?.Arn ?? '' };
    },
    async removeRole(RoleName) {
      const { PolicyNames = [] } = await iam.send(new ListRolePoliciesCommand({ RoleName }));
      for (const PolicyName of PolicyNames) await iam.send(new DeleteRolePolicyCommand({ RoleName, PolicyName }));
      await iam.send(new DeleteRoleCommand({ RoleName }));
    },
    async makeUser(UserName, policy) {
      await iam.send(new CreateUserCommand({ UserName }));
      const own = { UserName, PolicyName: 'own', PolicyDocument: documentOf(policy) };
      await iam.send(new PutUserPolicyCommand(own));
      const { AccessKey } = await iam.send(new CreateAccessKeyCommand({ UserName }));
      return { accessKeyId: AccessKey?.AccessKeyId ?? '', secretAccessKey: AccessKey?.SecretAccessKey ?? '' };
    },
    async makeBucket(Bucket, objects = []) {
      await s3.send(new CreateBucketCommand({ Bucket }));
      for (const Key of objects) await s3.send(new PutObjectCommand({ Bucket, Key, Body: Key }));
    },
  };
}

export function trustOfAccount(account: string): readonly PolicyStatement[] {
  const Action = ['sts:AssumeRole', 'sts:SetSourceIdentity', 'sts:TagSession'];
  return [{ Effect: 'Allow', Principal: { AWS: `arn:aws:iam::${account}:root` }, Action }];
}

export function documentOf(statements: readonly PolicyStatement[]): string {
  return JSON.stringify({ Version: '2012-10-17', Statement: statements });
}

async function makeBoundary(iam: IAMClient, role: string, statements: readonly PolicyStatement[]): Promise<string> {
  const asked = { PolicyName: `${role}-boundary`, PolicyDocument: documentOf(statements) };
  const { Policy } = await iam.send(new CreatePolicyCommand(asked));
  return Policy?.Arn ?? '';
}

/**
 * Keys of a principal as a broker should be: a session of a role of that name with that policy, assumed by a user who may only that.
 */
export async function makeBroker(account: AwsAccount, name: string, policy: readonly PolicyStatement[]) {
  const { arn } = await account.makeRole({ name, policies: { own: policy } });
  const user = await account.makeUser(`${name}-starter`, [
    { Effect: 'Allow', Action: 'sts:AssumeRole', Resource: arn },
  ]);
  return await assume(account, user, { RoleArn: arn, RoleSessionName: 'broker' });
}

/** Keys of a new session. Throws what the SDK throws. */
export async function assume(account: Place, by: AwsKeys, input: AssumeRoleCommandInput): Promise<AwsKeys> {
  const { Credentials } = await new STSClient(clientOf(account, by)).send(new AssumeRoleCommand(input));
  return {
    accessKeyId: Credentials?.AccessKeyId ?? '',
    secretAccessKey: Credentials?.SecretAccessKey ?? '',
    sessionToken: Credentials?.SessionToken ?? '',
  };
}

/** Keys that a session derives from its own by `GetScopedCredentials`, of which the SDK knows nothing yet; for a server that checks no signature. */
export async function deriveFrom(account: Place, { accessKeyId, sessionToken }: AwsKeys): Promise<AwsKeys> {
  const now = new Date().toISOString().replaceAll(/[-:]|\.\d+/g, '');
  const answer = await fetch(account.endpoint ?? '', {
    method: 'POST',
    headers: {
      'content-type': 'application/x-www-form-urlencoded',
      authorization: `AWS4-HMAC-SHA256 Credential=${accessKeyId}/${now.slice(0, 8)}/${account.region}/sts/aws4_request, SignedHeaders=host, Signature=none`,
      'x-amz-date': now,
      'x-amz-security-token': sessionToken ?? '',
    },
    body: 'Action=GetScopedCredentials&Version=2011-06-15',
  });
  const body = await answer.text();
  const element = (name: string) => new RegExp(`<${name}>([^<]*)</${name}>`).exec(body)?.[1] ?? '';
  if (!answer.ok) throw Object.assign(new Error(body), { name: element('Code') });
  return {
    accessKeyId: element('AccessKeyId'),
    secretAccessKey: element('SecretAccessKey'),
    sessionToken: element('SessionToken'),
  };
}

/** Reads an object with those keys: `read`, or the name of the error that AWS gives (`AccessDenied`, `ExpiredToken`, …). */
export async function tryToRead(account: Place, keys: AwsKeys, Bucket: string, Key: string): Promise<string> {
  try {
    const { Body } = await new S3Client(clientOf(account, keys)).send(new GetObjectCommand({ Bucket, Key }));
    await Body?.transformToByteArray();
    return 'read';
  } catch (error) {
    if (error instanceof Error && '$metadata' in error) return error.name;
    throw error;
  }
}
