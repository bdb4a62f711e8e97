import { type Guarantee, ProviderError } from '../../src/provider.ts';
import type { AwsEntitlement } from './schema.ts';
import { nameOf } from './account.ts';
import type { Target } from './target.ts';

const atItsEnd =
  'At its deadline AWS itself refuses every request of the credential, by the clock of AWS and to the second: the session policy says so.';

/** What is promised by what the target says. @throws ProviderError `misconfigured` where nothing may be issued on the role. */
export function guarantee(target: Target, { role }: AwsEntitlement): Guarantee {
  const { config } = target;
  const listed = config.roles.find(({ arn }) => arn === role);
  if (listed === undefined)
    throw new ProviderError('misconfigured', `the target does not list the role ${nameOf(role)}`);
  for (const { arn } of [listed, ...listed.clones]) {
    const { alarm } = target.fenceOf(arn);
    if (alarm !== undefined) throw new ProviderError('misconfigured', alarm);
  }
  const common = {
    native_expiry: true,
    enumerable: false,
    one_connection: false,
    min_ttl_seconds: 1,
    max_ttl_seconds: config.max_session_seconds,
  };
  if (config.fence === 'none')
    return {
      ...common,
      revocation: 'expiry-only',
      ends_sessions: false,
      says: `${atItsEnd} It can not be ended before: the broker may not write to the role.`,
    };
  return {
    ...common,
    revocation: 'propagating',
    propagation_seconds: config.propagation_seconds,
    ends_sessions: true,
    says:
      'An early end denies the session by a policy of its role. AWS spreads that within seconds, at times a minute or more ' +
      `(planned for: ${config.propagation_seconds} s), and it is called ended only once a probe that the same policy denies was refused. ${atItsEnd} ` +
      'Requests that AWS services make for the session may go on until then.',
  };
}
