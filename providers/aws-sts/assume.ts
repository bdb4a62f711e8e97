import { AssumeRoleCommand } from '@aws-sdk/client-sts';
import { ProviderError } from '../../src/provider.ts';
import { ask, type AwsKeys } from './clients.ts';
import { grantTag } from './handle.ts';
import { issuedTag } from './issued.ts';
import type { Account } from './account.ts';

/** STS gives no session a shorter life. */
const leastSeconds = 900;

interface Wanted {
  readonly role: string;
  readonly handle: string;
  readonly policy: string;
  /** By AWS's clock. */
  readonly deadline: Date;
  /** When its grant was minted, in seconds of AWS's clock. */
  readonly issued: number;
}

export interface AssumedSession {
  readonly keys: AwsKeys & { readonly sessionToken: string };
  readonly accountId: string;
  readonly roleUniqueId: string;
  readonly sessionArn: string;
  /** When STS ends it, deadline or not. */
  readonly expiration: Date;
  /** Percent of what policy and tags may be packed to, and of the session token's size; null where STS does not say. */
  readonly packed: number | null;
  readonly tokenUsed: number | null;
}

/** The source identity that a session of the broker has by itself: then it can set no other. Null: none. */
export async function sourceIdentityOf(target: Account, wanted: Wanted, signal: AbortSignal): Promise<string | null> {
  const command = new AssumeRoleCommand({
    RoleArn: wanted.role,
    RoleSessionName: `mayfly-${wanted.handle}`,
    Tags: tagsOf(wanted),
    Policy: wanted.policy,
    DurationSeconds: leastSeconds,
  });
  try {
    return (await target.clients.sts.send(command, { abortSignal: signal })).SourceIdentity ?? null;
  } catch {
    return null;
  }
}

function tagsOf({ handle, issued }: Wanted) {
  return [
    { Key: grantTag, Value: handle },
    { Key: issuedTag, Value: String(issued) },
  ];
}

/** A session that bears the handle in its SourceIdentity and, for what is derived from it too, handle and time in tags. @throws AwsError */
export async function assume(target: Account, wanted: Wanted, signal: AbortSignal): Promise<AssumedSession> {
  const { role, handle, policy, deadline } = wanted;
  const { clock } = target;
  const began = clock.now();
  const seconds = Math.max(leastSeconds, Math.ceil((deadline.getTime() - began) / 1000));
  const command = new AssumeRoleCommand({
    RoleArn: role,
    RoleSessionName: `mayfly-${handle}`,
    SourceIdentity: handle,
    Tags: tagsOf(wanted),
    TransitiveTagKeys: [grantTag, issuedTag],
    Policy: policy,
    DurationSeconds: Math.min(seconds, target.longestSeconds),
  });
  const answer = await ask('assuming the role', () => target.clients.sts.send(command, { abortSignal: signal }));
  const { AccessKeyId, SecretAccessKey, SessionToken, Expiration } = answer.Credentials ?? {};
  const [roleUniqueId] = answer.AssumedRoleUser?.AssumedRoleId?.split(':') ?? [];
  const sessionArn = answer.AssumedRoleUser?.Arn ?? '';
  if (
    AccessKeyId === undefined ||
    SecretAccessKey === undefined ||
    SessionToken === undefined ||
    Expiration === undefined ||
    roleUniqueId === undefined
  )
    throw new ProviderError('retryable', 'assuming the role: the answer is incomplete');
  return {
    keys: { accessKeyId: AccessKeyId, secretAccessKey: SecretAccessKey, sessionToken: SessionToken },
    accountId: sessionArn.split(':')[4] ?? '',
    ...{ roleUniqueId, sessionArn, expiration: Expiration },
    // Said to be replaced by the other, and told by every server; over a hundred of either STS refuses.
    packed: percentOf(answer, 'PackedPolicySize'),
    tokenUsed: answer.SessionTokenUtilization ?? null,
  };
}

function percentOf(answer: object, key: string): number | null {
  const value: unknown = Reflect.get(answer, key);
  return typeof value === 'number' ? value : null;
}
