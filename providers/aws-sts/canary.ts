import { AssumeRoleCommand } from '@aws-sdk/client-sts';
import { randomBytes } from 'node:crypto';
import { assume } from './assume.ts';
import { ask, canarySts } from './clients.ts';
import { AwsError } from './errors.ts';
import { randomHandle } from './handle.ts';
import { isAllowed, type Probe, sendProbe } from './probe.ts';
import { RoleFence } from './role-fence.ts';
import type { Statement } from './schema.ts';
import { neverInSession, powerlessFrom } from './session-policy.ts';
import { type Target, skewMillis } from './target.ts';

export type Say = (step: string, ok: boolean, says: string) => void;

const fenceMillis = 30_000;

/** One life on a role: used, ended by its own deadline, kept from what is never allowed, and ended early. */
export async function playCanary(target: Target, role: string, say: Say, signal: AbortSignal): Promise<void> {
  const { probe, fence: how } = target.config;
  const canary = await sendProbe(target, role, randomHandle(), signal);
  const used = await isAllowed(target, role, canary, signal);
  say('use', used, `the role ${used ? 'allows' : 'refuses'} ${probe.action}, by which early ends are proven`);
  if (!used) return;
  await tryDeadline(target, role, say, signal);
  await tryNever(target, role, say, signal);
  if (how !== 'none') await tryFence(target, role, canary, say, signal);
}

/** A session that is past its own deadline: it was refused by nothing else. */
async function tryDeadline(target: Target, role: string, say: Say, signal: AbortSignal): Promise<void> {
  const late = await session(target, role, [powerlessFrom(new Date(target.clock.now() - 10_000))], signal);
  const refused = !(await isAllowed(target, role, late, signal));
  say('deadline', refused, `a session past the deadline of its own policy is ${refused ? 'refused' : 'let through'}`);
}

/** A session that carries what each grant's does. */
async function tryNever(target: Target, role: string, say: Say, signal: AbortSignal): Promise<void> {
  const bounded = await session(target, role, [neverInSession], signal);
  const sts = canarySts(target.config, bounded.keys);
  const next = { RoleArn: role, RoleSessionName: 'mayfly-canary', DurationSeconds: 900 };
  const assumed = await asks(async () => await sts.send(new AssumeRoleCommand(next), { abortSignal: signal }));
  sts.destroy();
  // Where the probe is IAM's, it is seen to be this Deny that refuses; else the role may not have allowed it anyway.
  const read = target.config.probe.action === 'iam:GetRole' && (await isAllowed(target, role, bounded, signal));
  const ok = !assumed && !read;
  say('never', ok, ok ? 'a session gets no other one, and no word with IAM' : 'a session got what it is never to get');
}

async function asks(call: () => Promise<unknown>): Promise<boolean> {
  try {
    await ask('assuming the role again', call);
    return true;
  } catch (error) {
    if (error instanceof AwsError && error.code.startsWith('AccessDenied')) return false;
    throw error;
  }
}

/** A session that may do what a probe does, but for these denials. */
async function session(
  target: Target,
  role: string,
  denials: readonly Statement[],
  signal: AbortSignal,
): Promise<Probe> {
  const { probe } = target.config;
  const bucket = `arn:${role.split(':')[1] ?? 'aws'}:s3:::${probe.action === 's3:ListBucket' ? probe.bucket : ''}`;
  const allow = { Effect: 'Allow', Action: probe.action, Resource: probe.action === 's3:ListBucket' ? bucket : role };
  const now = target.clock.now();
  const deadline = new Date(Math.floor(now / 1000 + 60) * 1000);
  const policy = JSON.stringify({
    Version: '2012-10-17',
    Statement: [allow, ...denials, powerlessFrom(deadline)],
  });
  const handle = randomHandle();
  const { keys } = await assume(target, { role, handle, policy, deadline, issued: Math.floor(now / 1000) }, signal);
  return { handle, keys, diesAt: deadline.getTime() };
}

async function tryFence(target: Target, role: string, canary: Probe, say: Say, signal: AbortSignal): Promise<void> {
  const fence = new RoleFence(target, role, true);
  // No grant is denied by it. Far below the numbers of writers, which are times: it is nobody's, and no writer has to pass it.
  const view = { live: [], at: new Date(), writer: BigInt(`0x${randomBytes(5).toString('hex')}`) + 1n };
  const ended = [{ handle: canary.handle, until: canary.diesAt + skewMillis, issuedBy: null }];
  try {
    const { policy } = await fence.deny(ended, [], view, signal);
    say('fence', true, `${policy} was written to the role, and reads back`);
    const began = performance.now();
    let proof: Awaited<ReturnType<typeof fence.prove>> = null;
    while (proof === null && !signal.aborted && performance.now() - began < fenceMillis)
      proof = await fence.prove(signal);
    const seconds = Math.round((performance.now() - began) / 100) / 10;
    say(
      'verify',
      proof !== null,
      proof === null
        ? `no probe was refused within ${seconds} s`
        : `a probe that its tag alone denies was refused after ${seconds} s, and its sibling let through`,
    );
  } finally {
    await fence.withdraw(AbortSignal.timeout(5_000));
  }
  if (fence.alarm !== undefined) say('foreign', false, fence.alarm);
}
