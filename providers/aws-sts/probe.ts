import { GetRoleCommand } from '@aws-sdk/client-iam';
import { type Account, nameOf } from './account.ts';
import { assume } from './assume.ts';
import { ask, type AwsKeys, probingIam } from './clients.ts';
import { skewMillis } from './clock.ts';
import { AwsError } from './errors.ts';
import { listBucket } from './s3-probe.ts';
import type { Statement } from './schema.ts';
import { powerlessFrom } from './session-policy.ts';

/** A probe may do its one action and dies by its own deadline. Seconds. */
const probeSeconds = 600;
/** How long it is denied by name: as long as anybody may wait to see it refused. */
const deniedMillis = 120_000;

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
  const issued = Math.floor(target.clock.now() / 1000);
  const { keys } = await assume(target, { role, handle, policy, deadline, issued }, signal);
  return { handle, keys, diesAt: deadline.getTime() };
}

/** Until when a probe's entry stays in the fence. It guards nothing: what it denies may do one thing, and is nobody's. */
export function probeDeadline(now: number): number {
  return now + deniedMillis;
}

/** Whether AWS's own time shows that it lives that much longer at the least, so that no refusal is its own end. */
export function outlives({ clock }: Account, { diesAt }: Probe, millis: number): boolean {
  const now = clock.atMost();
  return now !== null && diesAt > now + millis + skewMillis;
}

/** By a connection of its own, which may reach another server than the one before. @throws AwsError for an answer that is neither. */
export async function isAllowed(target: Account, role: string, { keys }: Probe, signal: AbortSignal): Promise<boolean> {
  const { probe } = target.config;
  if (probe.action === 's3:ListBucket')
    return await listBucket(target.config, probe.bucket, keys, target.clock, signal);
  const iam = probingIam(target.config, keys, target.clock);
  try {
    await ask('probing', () => iam.send(new GetRoleCommand({ RoleName: nameOf(role) }), { abortSignal: signal }));
    return true;
  } catch (error) {
    if (!(error instanceof AwsError)) throw error;
    if (error.code.startsWith('AccessDenied')) return false;
    // Of its own session, not of the broker's.
    if (!error.code.startsWith('ExpiredToken')) throw error;
    throw new AwsError('retryable', `probing: the session of the probe has expired (${error.code})`, {
      ...{ code: error.code, refused: true, wholeTarget: false },
    });
  } finally {
    iam.destroy();
  }
}
