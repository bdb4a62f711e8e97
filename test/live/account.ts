import { randomUUID } from 'node:crypto';
import { type AwsEntitlement, provider } from '../../providers/aws-sts/index.ts';
import { type FenceView, type MintRequest, type Ref, Secret, type Session } from '../../src/provider.ts';
import { type AwsKeys, tryToRead } from '../support/aws-account.ts';

/** A grant in the live account, as the broker has it, and what its agent has. */
export interface LiveGrant {
  readonly ref: Ref;
  readonly keys: AwsKeys;
}

/** The account that the environment names; the broker's own keys are those that the SDK finds. */
export interface LiveAccount {
  /** For clients of the SDK. */
  readonly settings: { readonly region: string; readonly endpoint?: string };
  readonly role: string;
  readonly bucket: string;
  /** Eight hex digits that its fences bear. */
  readonly mark: string;
  readonly propagationSeconds: number;
  open(over?: Readonly<Record<string, unknown>>): Session<AwsEntitlement>;
  readonly entitlement: AwsEntitlement;
  mint(session: Session<AwsEntitlement>, seconds: number): Promise<LiveGrant>;
  view(...live: readonly LiveGrant[]): FenceView;
  /** `read`, or the name of the error. */
  read(grant: LiveGrant, key?: string): Promise<string>;
}

export function liveAccount(env: Readonly<Record<string, string | undefined>>): LiveAccount {
  const named = (name: string) => {
    const value = env[name];
    if (value === undefined || value === '') throw new Error(`${name} is not set (providers/aws-sts/LIVE.md)`);
    return value;
  };
  const [region, role, bucket] = [named('AWS_REGION'), named('MAYFLY_AWS_ROLE'), named('MAYFLY_AWS_BUCKET')];
  const endpoint = env['MAYFLY_AWS_ENDPOINT'];
  const propagationSeconds = Number(env['MAYFLY_AWS_PROPAGATION_SECONDS'] ?? '60');
  const boundary = env['MAYFLY_AWS_BOUNDARY'];
  const installation = randomUUID();
  const settings = { region, ...(endpoint !== undefined && { endpoint }) };
  const connection = {
    account_id: role.split(':')[4],
    region,
    roles: [{ arn: role }],
    probe: { action: 's3:ListBucket', bucket },
    propagation_seconds: propagationSeconds,
    ...(boundary !== undefined && { permissions_boundary: boundary }),
    ...(endpoint !== undefined && { endpoints: { sts: endpoint, iam: endpoint, s3: endpoint } }),
  };
  const entitlement = provider.entitlementSchema.parse({
    role,
    statements: [{ Effect: 'Allow', Action: 's3:GetObject', Resource: `arn:aws:s3:::${bucket}/march` }],
  });
  let writers = BigInt(Date.now()) * 1000n;
  return {
    ...{ settings, role, bucket, entitlement, propagationSeconds },
    mark: installation.slice(0, 8),
    open: (over = {}) =>
      provider.connect(provider.targetSchema.parse({ ...connection, ...over }), {
        ...{ target: 'aws-live', installation },
        secret: () => new Secret(''),
        log: (event, message) => console.log(message, event),
      }),
    mint: async (session, seconds) => {
      const grantId = randomUUID();
      const deadline = new Date(Date.now() + seconds * 1000);
      const ref: Ref = { grantId, handle: session.reserve(grantId), facts: null, deadline };
      const request: MintRequest<AwsEntitlement> = {
        ...{ grantId, entitlement: 'live/read-march', config: entitlement, params: {}, deadline, notAfter: deadline },
        mintBy: new Date(Date.now() + 10_000),
      };
      const { secret, facts } = await session.mint(ref, request, AbortSignal.timeout(20_000));
      const { access_key_id: id, secret_access_key: key, session_token: token } = secret.reveal();
      const keys = { accessKeyId: String(id), secretAccessKey: String(key), sessionToken: String(token) };
      return { ref: { ...ref, facts }, keys };
    },
    view: (...live) => {
      writers += 1n;
      return { live: live.map(({ ref }) => ref), writer: writers, at: new Date() };
    },
    read: async ({ keys }, key = 'march') => await tryToRead(settings, keys, bucket, key),
  };
}
