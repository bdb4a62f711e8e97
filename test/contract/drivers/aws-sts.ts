import { DeleteRolePolicyCommand, IAMClient, ListRolePoliciesCommand, PutRolePolicyCommand } from '@aws-sdk/client-iam';
import { ListBucketsCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { AssumeRoleCommand, STSClient } from '@aws-sdk/client-sts';
import { randomUUID } from 'node:crypto';
import { never } from '../../../providers/aws-sts/boundary.ts';
import { provider } from '../../../providers/aws-sts/index.ts';
import {
  accountOf,
  type AwsKeys,
  clientOf,
  documentOf,
  makeBroker,
  type PolicyStatement,
  tryToRead,
} from '../../support/aws-account.ts';
import { startMiniStack } from '../../support/ministack.ts';
import { type Access, type Attempt, type Credential, type Driver, tcpFaults } from '../provider/index.ts';

const BUCKET = 'reports';
const roleName = 'agent';
const brokerName = 'broker';
const march = 'aws/read-march';
const folder = 'aws/read-folder';

/** @param home Where MiniStack is. */
export function awsDriver(home: string): Driver {
  return { provider, start: () => start(home) };
}

async function start(home: string): ReturnType<Driver['start']> {
  const server = await startMiniStack(home);
  const account = accountOf(server);
  const port = Number(new URL(server.endpoint).port);
  const proxy = await tcpFaults(port);
  const faulty = `http://127.0.0.1:${proxy.port}`;
  const iam = new IAMClient(clientOf(server, server.root));
  await account.makeBucket(BUCKET, ['march', 'april', 'a/1', 'b/1']);
  const { arn: role } = await account.makeRole({
    name: roleName,
    policies: {
      own: [
        { Effect: 'Allow', Action: 's3:GetObject', Resource: `arn:aws:s3:::${BUCKET}/*` },
        { Effect: 'Allow', Action: 's3:ListBucket', Resource: `arn:aws:s3:::${BUCKET}` },
      ],
    },
    boundary: [
      { Effect: 'Allow', Action: 's3:*', Resource: '*' },
      { Effect: 'Deny', Action: [...never], Resource: '*' },
    ],
  });
  const rights: readonly PolicyStatement[] = [
    { Effect: 'Allow', Action: ['sts:AssumeRole', 'sts:SetSourceIdentity', 'sts:TagSession'], Resource: role },
    {
      Effect: 'Allow',
      Action: [
        ...['iam:GetRole', 'iam:ListRolePolicies', 'iam:GetRolePolicy', 'iam:PutRolePolicy', 'iam:DeleteRolePolicy'],
      ],
      Resource: role,
    },
    {
      Effect: 'Allow',
      Action: ['iam:GetPolicy', 'iam:GetPolicyVersion'],
      Resource: role.replace(/:role\/.*/, ':policy/*'),
    },
  ];
  const broker = await makeBroker(account, brokerName, rights);
  const own = { RoleName: brokerName, PolicyName: 'own' };

  const connection = {
    account_id: account.id,
    region: account.region,
    roles: [{ arn: role }],
    broker: { access_key_id: 'env:KEY', secret_access_key: 'env:SECRET', session_token: 'env:TOKEN' },
    endpoints: { sts: faulty, iam: faulty, s3: faulty },
    probe: { action: 's3:ListBucket', bucket: BUCKET },
    propagation_seconds: 10,
  };

  return {
    connection,
    installation: randomUUID(),
    secrets: {
      'env:KEY': broker.accessKeyId,
      'env:SECRET': broker.secretAccessKey,
      'env:TOKEN': broker.sessionToken ?? '',
    },
    entitlements: [
      { name: march, config: reads(role, 'march') },
      { name: folder, config: reads(role, '${folder}/*'), params: [{ folder: 'a' }, { folder: 'b' }] },
    ],
    use: async (credential, entitlement, params) =>
      await tried(account, credential, entitlement === march ? 'march' : `${String(params?.['folder'])}/1`),
    exceed: (credential, entitlement) => exceed(server, credential, entitlement === march ? 'april' : 'march', role),
    secretsOf: ({ secret_access_key: secret, session_token: token }) => [String(secret), String(token)],
    // STS keeps no list of sessions: what there is of one is what its keys may do, and that the cases try.
    look: async () => [],
    foreign: async () => {
      const theirs = { RoleName: roleName, PolicyName: 'mayfly-like-but-not-ours' };
      const document = documentOf([{ Effect: 'Deny', Action: 's3:DeleteObject', Resource: '*' }]);
      await iam.send(new PutRolePolicyCommand({ ...theirs, PolicyDocument: document }));
      return {
        harmed: async () => {
          const { PolicyNames = [] } = await iam.send(new ListRolePoliciesCommand({ RoleName: roleName }));
          return PolicyNames.includes(theirs.PolicyName) ? [] : ['its policy is gone'];
        },
      };
    },
    faults: {
      ...proxy,
      apart: async () => {
        const way = await tcpFaults(port);
        const at = `http://127.0.0.1:${way.port}`;
        return Object.assign(way, { connection: { ...connection, endpoints: { sts: at, iam: at, s3: at } } });
      },
    },
    rights: {
      lose: async () => void (await iam.send(new DeleteRolePolicyCommand(own))),
      restore: async () =>
        void (await iam.send(new PutRolePolicyCommand({ ...own, PolicyDocument: documentOf(rights) }))),
    },
    // AWS never goes down, and MiniStack keeps everything in memory: all connections end.
    restart: async () => proxy.lead(port),
    shortestLifeSeconds: 4,
    without: {
      open: 'each request to AWS stands by itself: there is no session to hold open',
      behind: 'it makes nothing elsewhere',
      'faults.lies': 'its answers are signed for by TLS alone: what stands between is tried with nonsense',
      replace: 'another account takes none of the keys of the broker',
    },
    stop: async () => {
      iam.destroy();
      await proxy.close();
      await server.stop();
    },
  };
}

function reads(role: string, key: string) {
  return { role, statements: [{ Effect: 'Allow', Action: 's3:GetObject', Resource: `arn:aws:s3:::${BUCKET}/${key}` }] };
}

function keysOf({ access_key_id: id, secret_access_key: secret, session_token: token }: Credential): AwsKeys {
  return { accessKeyId: String(id), secretAccessKey: String(secret), sessionToken: String(token) };
}

async function tried(
  account: { endpoint: string; region: string },
  credential: Credential,
  key: string,
): Promise<Access> {
  return accessOf(await tryToRead(account, keysOf(credential), BUCKET, key));
}

function accessOf(came: string): Access {
  if (came === 'read') return 'works';
  if (came.startsWith('AccessDenied')) return 'refused';
  throw new Error(`AWS answered ${came}`);
}

async function exceed(
  server: { endpoint: string; region: string },
  credential: Credential,
  key: string,
  RoleArn: string,
): Promise<readonly Attempt[]> {
  const client = clientOf(server, keysOf(credential));
  const [s3, iam, sts] = [new S3Client(client), new IAMClient(client), new STSClient(client)];
  const put = {
    RoleName: roleName,
    PolicyName: 'mine',
    PolicyDocument: documentOf([{ Effect: 'Allow', Action: '*', Resource: '*' }]),
  };
  const session = { RoleArn, RoleSessionName: 'another' };
  const attempts: readonly (readonly [string, () => Promise<unknown>])[] = [
    ['writing an object', () => s3.send(new PutObjectCommand({ Bucket: BUCKET, Key: 'march', Body: 'x' }))],
    ['listing all buckets', () => s3.send(new ListBucketsCommand({}))],
    ['giving the role more', () => iam.send(new PutRolePolicyCommand(put))],
    ['a session of the role without its policy', () => sts.send(new AssumeRoleCommand(session))],
  ];
  const came: Attempt[] = [{ what: `reading ${key}`, came: await tried(server, credential, key) }];
  for (const [what, attempt] of attempts) {
    const outcome = await attempt().then(
      () => 'read',
      (error: unknown) => (error instanceof Error ? error.name : 'unknown'),
    );
    came.push({ what, came: accessOf(outcome) });
  }
  return came;
}
