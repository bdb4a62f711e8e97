import type { MintedBody } from '../../client/index.ts';
import { serveAwsKeys } from './aws-endpoint.ts';
import { type AwsKeys, expirationOf, readAwsKeys } from './aws-keys.ts';
import { environmentWithout, type Handover } from './handover.ts';
import { makePrivateFolder } from './private-folder.ts';

/**
 * Where an SDK looks before it asks an endpoint (keys, profiles, web identities, roles to assume), and what it would show to services
 * that take tokens. Settings of another sort (`AWS_CA_BUNDLE`, `AWS_ENDPOINT_URL`, `AWS_RETRY_MODE`) are the caller's to give.
 */
const MISLEADING = /^AWS_.*(KEY|SECRET|TOKEN|CREDENTIAL|PROFILE|ROLE|CONTAINER|ACCOUNT)/;

/**
 * AWS keys by an endpoint that the SDK in the child asks, so that it has the renewed ones.
 * @param inEnvironment in `AWS_ACCESS_KEY_ID` and its kin too: those are never renewed, and SDKs look at them first.
 * @param askedAt When they were asked for, by `performance.now()`.
 */
export async function handOverAws(
  first: AwsKeys,
  grant: MintedBody,
  inEnvironment: boolean,
  askedAt: number,
): Promise<Handover> {
  let keys: AwsKeys | undefined = first;
  // The broker's clock, and rather ahead than behind: it showed this time only after it was asked.
  const brokerTime = () => Date.parse(grant.created_at) + performance.now() - askedAt;
  const endpoint = await serveAwsKeys(() => (keys !== undefined && brokerTime() < keys.endsAt ? keys : undefined));
  const folder = makePrivateFolder();
  const none = folder.write('aws-none', '');
  const env: NodeJS.ProcessEnv = {
    ...environmentWithout(MISLEADING),
    AWS_CONTAINER_CREDENTIALS_FULL_URI: endpoint.url,
    // Not in a variable: those are shown by `docker inspect`, in crash reports and to every grandchild. Without a line's end, which is no part of it.
    AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: folder.write('aws-token', endpoint.token),
    // SDKs read profiles before they ask, and where the endpoint says no some ask the machine for its own role.
    AWS_CONFIG_FILE: none,
    AWS_SHARED_CREDENTIALS_FILE: none,
    BOTO_CONFIG: none,
    AWS_EC2_METADATA_DISABLED: 'true',
    ...(first.region !== undefined && { AWS_REGION: first.region, AWS_DEFAULT_REGION: first.region }),
    ...(inEnvironment && inVariables(first)),
  };
  return {
    env,
    renewed: ({ grant: { deadline }, credential }) => {
      if (credential !== undefined) keys = readAwsKeys({ grant: { deadline }, credential });
      else if (keys !== undefined) keys = { ...keys, endsAt: Date.parse(deadline) };
    },
    ended: () => {
      keys = undefined;
    },
    remove: () => {
      endpoint.close();
      folder.remove();
    },
  };
}

function inVariables(keys: AwsKeys): NodeJS.ProcessEnv {
  return {
    AWS_ACCESS_KEY_ID: keys.accessKeyId,
    AWS_SECRET_ACCESS_KEY: keys.secretAccessKey,
    AWS_SESSION_TOKEN: keys.sessionToken,
    AWS_CREDENTIAL_EXPIRATION: expirationOf(keys),
  };
}
