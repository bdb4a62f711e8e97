import { GetRoleCommand } from '@aws-sdk/client-iam';
import { GetCallerIdentityCommand } from '@aws-sdk/client-sts';
import { ProviderError } from '../../src/provider.ts';
import { type Account, nameOf } from './account.ts';

/** One that hangs must leave time for the other. Milliseconds. */
const eachMillis = 3_000;
/** An answer that contradicts those before it is asked for once more. */
const tries = 2;

/**
 * Sees to it that AWS has said lately what time it is. A refusal says it as well, so that no permission is needed.
 * @param first Whom the caller needs anyway; the other is asked where that one says nothing. @throws ProviderError `retryable`
 */
export async function hear(account: Account, first: 'iam' | 'sts', signal: AbortSignal): Promise<void> {
  const { clock, clients, config } = account;
  const [role] = config.roles;
  const name = { RoleName: nameOf(role?.arn ?? '') };
  const ask = {
    sts: async (abortSignal: AbortSignal) => await clients.sts.send(new GetCallerIdentityCommand({}), { abortSignal }),
    iam: async (abortSignal: AbortSignal) => await clients.iam.send(new GetRoleCommand(name), { abortSignal }),
  };
  for (const who of first === 'iam' ? (['iam', 'sts'] as const) : (['sts', 'iam'] as const)) {
    for (let left = tries; left > 0 && !clock.isKnown && !signal.aborted; left -= 1) {
      // What it says is in its headers, whatever else it answers.
      await ask[who](AbortSignal.any([signal, AbortSignal.timeout(eachMillis)])).catch(() => {});
    }
  }
  if (!clock.isKnown) throw new ProviderError('retryable', 'asking AWS for its time: no answer', { wholeTarget: true });
}
