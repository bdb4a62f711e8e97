import { randomBytes } from 'node:crypto';
import { ProviderError, Secret, type Provider } from '../../src/provider.ts';
import { syntheticProvider } from './synthetic/provider.ts';
import { SyntheticTarget } from './synthetic/target.ts';

/** A target in the memory of the test whose credentials have the shape of AWS's; each renewal makes new ones. */
export interface AwsShaped {
  readonly provider: Provider;
  /** Every secret that it ever gave out. */
  readonly secrets: string[];
  /** What its credentials say of their region. */
  region: string | undefined;
  /** Makes renewals fail as if the target did not answer. */
  down: boolean;
}

/** For MAYFLY_PROVIDERS, and for the catalog: one target and one entitlement. */
export const AWS_PROVIDERS = 'postgres,synthetic';
export const READ_BUCKET = 'aws/read-bucket';
export const awsFiles = {
  'targets/aws.yaml':
    '{ name: aws, provider: synthetic, connection: { system: aws }, environment: demo, owner: team-finance, sensitivity: internal }',
  'entitlements/aws.yaml': `[{ name: ${READ_BUCKET}, target: aws, sensitivity: internal, actions: [read], max_ttl_seconds: 900, provider: {} }]`,
  'policies/aws.cedar': `@id("aws") permit (principal, action, resource == Mayfly::Entitlement::"${READ_BUCKET}");`,
};

export function awsShaped(): AwsShaped {
  const target = new SyntheticTarget('handles');
  const synthetic = syntheticProvider(new Map([['aws', target]]));
  const aws: AwsShaped = {
    region: 'eu-central-1',
    down: false,
    secrets: [],
    provider: {
      ...synthetic,
      connect: (connection, context) => {
        const session = synthetic.connect(synthetic.targetSchema.parse(connection), context);
        const mint = session.mint.bind(session);
        return Object.assign(session, {
          mint: async (...asked: Parameters<typeof mint>) => ({ ...(await mint(...asked)), secret: makeKeys(aws) }),
          renew: async (ref: Parameters<typeof mint>[0], until: Date) => {
            if (aws.down) throw new ProviderError('retryable', 'It does not answer.');
            const identity = { handle: ref.handle, grantId: ref.grantId, installation: context.installation };
            target.system.make({ ...identity, endsAt: until.getTime() }, Number.POSITIVE_INFINITY);
            return { secret: makeKeys(aws), expiresAt: until, facts: ref.facts ?? {} };
          },
        });
      },
    },
  };
  return aws;
}

function makeKeys(aws: AwsShaped): Secret<Readonly<Record<string, unknown>>> {
  const id = `ASIA${randomBytes(8).toString('hex').toUpperCase()}`;
  const secret = randomBytes(20).toString('base64url');
  const token = randomBytes(60).toString('base64url');
  aws.secrets.push(secret, token);
  return new Secret({
    access_key_id: id,
    secret_access_key: secret,
    session_token: token,
    // STS gives no session a shorter life.
    expiration: new Date(Date.now() + 900_000).toISOString(),
    ...(aws.region !== undefined && { region: aws.region }),
  });
}
