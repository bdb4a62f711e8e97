import { type Guarantee, ProviderError } from '../../src/provider.ts';
import type { AwsEntitlement, AwsTarget } from './schema.ts';
import { nameOf } from './account.ts';
import { derivesBy, named } from './derived.ts';
import { InlinePolicies } from './standing.ts';
import type { Target } from './target.ts';

const atItsEnd =
  'At its deadline AWS itself refuses every request of the credential, by the clock of AWS and to the second: the session policy says so.';

/**
 * What is promised by what the target says.
 * @throws ProviderError `misconfigured` where nothing may be issued on the role; `retryable` where it is full.
 */
export async function guarantee(target: Target, entitlement: AwsEntitlement, signal: AbortSignal): Promise<Guarantee> {
  const { config } = target;
  const { role } = entitlement;
  const listed = config.roles.find(({ arn }) => arn === role);
  if (listed === undefined)
    throw new ProviderError('misconfigured', `the target does not list the role ${nameOf(role)}`);
  for (const { arn } of [listed, ...listed.clones]) {
    const { alarm } = target.fenceOf(arn);
    if (alarm !== undefined) throw new ProviderError('misconfigured', alarm);
    if (config.fence !== 'none') await requireRoom(target, arn, signal);
  }
  const common = {
    native_expiry: true,
    enumerable: false,
    one_connection: false,
    min_ttl_seconds: 1,
    max_ttl_seconds: target.longestSeconds,
  };
  const derived = derivesBy(entitlement);
  const left = derived.length === 0 ? '' : ` What it obtains by ${named(derived)} does not end with it.`;
  if (config.fence === 'none')
    return {
      ...common,
      revocation: 'expiry-only',
      ends_sessions: false,
      says: `${atItsEnd} It can not be ended before: the broker may not write to the role.${left}`,
    };
  return {
    ...common,
    revocation: 'propagating',
    propagation_seconds: config.propagation_seconds,
    ends_sessions: true,
    says:
      'An early end denies the session by a policy of its role. AWS spreads that within seconds, at times a minute or more ' +
      `(planned for: ${config.propagation_seconds} s), and it is called ended only once a probe that the same policy denies was refused. ${asks(config)} ${atItsEnd} ` +
      `Requests that AWS services make for the session may go on until then.${left}`,
  };
}

/** What the proof is worth: one action at one place. */
function asks({ probe, region }: AwsTarget): string {
  if (probe.action === 's3:ListBucket') return `The probe asks S3 in ${region} for ${probe.action}.`;
  return `The probe asks IAM’s own endpoint for ${probe.action}, which may know of a write of IAM before other services do.`;
}

/** So old may be what is known of a role that is full. */
const rereadMillis = 5_000;

/** @throws ProviderError `retryable` while to end some of its grants might deny the whole role. */
async function requireRoom(target: Target, role: string, signal: AbortSignal): Promise<void> {
  const { clock, config } = target;
  const occupancy = target.occupancyOf(role);
  const fullness = () => occupancy.fullness(config.policy_characters, clock.now());
  if (fullness() === undefined) return;
  // Somebody may have made room meanwhile.
  if (occupancy.age > rereadMillis) occupancy.read((await new InlinePolicies(target, role).look(signal)).others, null);
  const full = fullness();
  if (full === undefined) return;
  throw new ProviderError(
    'retryable',
    `the role ${nameOf(role)} is full: ${full.held} grants live on it or ended a moment ago, and its fence can spare ${full.room}; clones of it, or shorter lives, make room`,
  );
}
