import { GetRoleCommand } from '@aws-sdk/client-iam';
import { setTimeout as sleep } from 'node:timers/promises';
import { ProviderError } from '../../src/provider.ts';
import { assume } from './assume.ts';
import { ask, type AwsKeys, probingIam } from './clients.ts';
import { AwsError } from './errors.ts';
import { listBucket } from './s3-probe.ts';
import type { Statement } from './schema.ts';
import { powerlessFrom } from './session-policy.ts';
import { type Account, nameOf } from './account.ts';

/** A probe may do its one action and dies by its own deadline. Seconds. */
const probeSeconds = 150;
/** So many refusals in a row, of requests that different servers may answer. */
const refusals = 3;
const pauseMillis = 150;

export interface Probe {
  readonly handle: string;
  readonly keys: AwsKeys;
  /** By AWS's clock, in milliseconds. */
  readonly diesAt: number;
}

/** A session of the role that may do nothing but the probe's action. @throws AwsError */
export async function sendProbe(target: Account, role: string, handle: string, signal: AbortSignal): Promise<Probe> {
  const { probe } = target.config;
  const partition = role.split(':')[1] ?? 'aws';
  const resource = probe.action === 's3:ListBucket' ? `arn:${partition}:s3:::${probe.bucket}` : role;
  const deadline = new Date(Math.floor(target.clock.now() / 1000 + probeSeconds) * 1000);
  const allow: Statement = { Effect: 'Allow', Action: probe.action, Resource: resource };
  const policy = JSON.stringify({ Version: '2012-10-17', Statement: [allow, powerlessFrom(deadline)] });
  const { keys } = await assume(target, { role, handle, policy, deadline }, signal);
  return { handle, keys, diesAt: deadline.getTime() };
}

export function probeDeadline(now: number): number {
  return now + probeSeconds * 1000 + 10_000;
}

/**
 * Asks as the denied one until it was refused three times in a row, then once as its sibling, which must be let through: so that it
 * was the fence that refused.
 * @returns Whether it was seen before the signal. @throws ProviderError where the sibling is refused: then nothing is proven.
 */
export async function isRefused(
  target: Account,
  role: string,
  denied: Probe,
  sibling: () => Promise<Probe>,
  signal: AbortSignal,
): Promise<boolean> {
  try {
    for (let inARow = 0; !signal.aborted; ) {
      inARow = (await isAllowed(target, role, denied, signal)) ? 0 : inARow + 1;
      if (inARow >= refusals) {
        if (await isAllowed(target, role, await sibling(), signal)) return true;
        throw new ProviderError(
          'misconfigured',
          `the role does not allow the probe its action ${target.config.probe.action}: a refusal proves nothing`,
        );
      }
      await sleep(pauseMillis, undefined, { signal });
    }
  } catch (error) {
    // Its time was over in the midst of a request.
    if (!signal.aborted) throw error;
  }
  return false;
}

/** @throws AwsError for an answer that is neither. */
export async function isAllowed(target: Account, role: string, { keys }: Probe, signal: AbortSignal): Promise<boolean> {
  const { probe } = target.config;
  if (probe.action === 's3:ListBucket')
    return await listBucket(target.config, probe.bucket, keys, target.clock, signal);
  const iam = probingIam(target.config, keys);
  try {
    await ask('probing', () => iam.send(new GetRoleCommand({ RoleName: nameOf(role) }), { abortSignal: signal }));
    return true;
  } catch (error) {
    if (error instanceof AwsError && error.code.startsWith('AccessDenied')) return false;
    throw error;
  } finally {
    iam.destroy();
  }
}
