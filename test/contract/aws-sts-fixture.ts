import { randomUUID } from 'node:crypto';
import { never } from '../../providers/aws-sts/boundary.ts';
import { type AwsTarget, provider } from '../../providers/aws-sts/index.ts';
import { type FenceView, type MintRequest, type Ref, Secret, type Session } from '../../src/provider.ts';
import { type AwsAccount, type AwsKeys, makeBroker, type PolicyStatement, tryToRead } from '../support/aws-account.ts';

export const BUCKET = 'reports';
const BOUNDARY: readonly PolicyStatement[] = [
  { Effect: 'Allow', Action: ['s3:*', 'iam:GetRole'], Resource: '*' },
  { Effect: 'Deny', Action: [...never], Resource: '*' },
];
export const OWN: readonly PolicyStatement[] = [
  { Effect: 'Allow', Action: 's3:GetObject', Resource: `arn:aws:s3:::${BUCKET}/*` },
  { Effect: 'Allow', Action: 's3:ListBucket', Resource: `arn:aws:s3:::${BUCKET}` },
];

const installation = '0a1b2c3d-0000-4000-8000-000000000001';

/** An account with a bucket, roles that agents get and a broker that runs as a role. */
export interface AwsHouse {
  readonly account: AwsAccount;
  readonly roles: readonly string[];
  readonly broker: AwsKeys;
  readonly config: AwsTarget;
  readonly logged: Readonly<Record<string, unknown>>[];
  /** @param keys Of another broker. */
  open(over?: Readonly<Record<string, unknown>>, keys?: AwsKeys): Session<Entitlement>;
}

type Entitlement = ReturnType<typeof provider.entitlementSchema.parse>;

const FENCE = ['iam:GetRole', 'iam:ListRolePolicies', 'iam:GetRolePolicy', 'iam:PutRolePolicy', 'iam:DeleteRolePolicy'];
const ASSUME = ['sts:AssumeRole', 'sts:SetSourceIdentity', 'sts:TagSession'];

/** What a broker needs. */
export function rightsOn(roles: readonly string[]): readonly PolicyStatement[] {
  const boundaries = roles.map((role) => role.replace(/:role\/.*/, ':policy/*'));
  return [
    { Effect: 'Allow', Action: [...ASSUME, ...FENCE], Resource: roles },
    { Effect: 'Allow', Action: ['iam:GetPolicy', 'iam:GetPolicyVersion'], Resource: boundaries },
  ];
}

export async function furnish(
  account: AwsAccount,
  names: readonly string[] = ['agent'],
  prefix = '',
): Promise<AwsHouse> {
  await account.makeBucket(BUCKET, ['march', 'april', 'a/1', 'b/1']).catch(() => {});
  const roles: string[] = [];
  for (const name of names) {
    const { arn } = await account.makeRole({ name: prefix + name, policies: { own: OWN }, boundary: BOUNDARY });
    roles.push(arn);
  }
  const rights = rightsOn(roles);
  const broker = await makeBroker(account, `${prefix}broker`, rights);
  const logged: Readonly<Record<string, unknown>>[] = [];
  const raw = connectionOf(account, roles, {
    access_key_id: 'env:KEY',
    secret_access_key: 'env:SECRET',
    session_token: 'env:TOKEN',
  });
  return {
    ...{ account, roles, broker, logged },
    config: provider.targetSchema.parse(raw),
    open: (over = {}, keys = broker) => {
      const { session_token: _, ...longTerm } = raw.broker;
      const own = keys.sessionToken === undefined ? { broker: longTerm } : {};
      const secrets: Readonly<Record<string, string | undefined>> = {
        'env:KEY': keys.accessKeyId,
        'env:SECRET': keys.secretAccessKey,
        'env:TOKEN': keys.sessionToken,
      };
      return provider.connect(provider.targetSchema.parse({ ...raw, ...own, ...over }), {
        ...{ target: 'aws', installation },
        secret: (reference) => new Secret(secrets[reference] ?? ''),
        log: (event, message) => logged.push({ ...event, message }),
      });
    },
  };
}

function connectionOf<Broker>(account: AwsAccount, roles: readonly string[], broker: Broker) {
  const [arn, ...clones] = roles;
  const { endpoint } = account;
  return {
    account_id: account.id,
    region: account.region,
    roles: [{ arn, clones: clones.map((clone) => ({ arn: clone })) }],
    broker,
    endpoints: { sts: endpoint, iam: endpoint, s3: endpoint },
    probe: { action: 's3:ListBucket', bucket: BUCKET },
    propagation_seconds: 5,
  };
}

export function readsMarch(role: string): Entitlement {
  return provider.entitlementSchema.parse({
    role,
    statements: [{ Effect: 'Allow', Action: 's3:GetObject', Resource: `arn:aws:s3:::${BUCKET}/march` }],
  });
}

export interface MintedGrant {
  readonly ref: Ref;
  readonly keys: AwsKeys;
  readonly request: MintRequest<Entitlement>;
}

export async function mintGrant(
  session: Session<Entitlement>,
  config: Entitlement,
  { seconds = 600, params = {} }: { seconds?: number; params?: MintRequest['params'] } = {},
): Promise<MintedGrant> {
  const grantId = randomUUID();
  const deadline = new Date(Date.now() + seconds * 1000);
  const ref: Ref = { grantId, handle: session.reserve(grantId), facts: null, deadline };
  const request = {
    ...{ grantId, entitlement: 'aws/read', config, params, deadline, notAfter: deadline },
    mintBy: new Date(Date.now() + 10_000),
  };
  const { secret, facts } = await session.mint(ref, request, AbortSignal.timeout(20_000));
  return { ref: { ...ref, facts }, keys: keysOf(secret), request };
}

function keysOf(secret: Secret<Readonly<Record<string, unknown>>>): AwsKeys {
  const { access_key_id: id, secret_access_key: key, session_token: token } = secret.reveal();
  return { accessKeyId: String(id), secretAccessKey: String(key), sessionToken: String(token) };
}

let writers = BigInt(Date.now()) * 1000n;

export function viewOf(...live: readonly MintedGrant[]): FenceView {
  writers += 1n;
  return { live: live.map(({ ref }) => ref), writer: writers, at: new Date() };
}

export async function read({ account }: AwsHouse, { keys }: MintedGrant, key = 'march'): Promise<string> {
  return await tryToRead(account, keys, BUCKET, key);
}

export function patience(seconds = 20): AbortSignal {
  return AbortSignal.timeout(seconds * 1000);
}
