import { GetCallerIdentityCommand } from '@aws-sdk/client-sts';
import { randomUUID } from 'node:crypto';
import { type CheckStep, ProviderError } from '../../src/provider.ts';
import { assume, sourceIdentityOf } from './assume.ts';
import { ask } from './clients.ts';
import { AwsError } from './errors.ts';
import { handleOf, randomHandle } from './handle.ts';
import { isAllowed, sendProbe } from './probe.ts';
import { RoleFence } from './role-fence.ts';
import { allRoles, type AwsEntitlement } from './schema.ts';
import { boundBy, sessionPolicy } from './session-policy.ts';
import { type Target, skewMillis } from './target.ts';

type Say = (step: string, ok: boolean, says: string) => void;

/** What the broker is, what the roles are, and a canary: mint, use, be refused, fence, verify, on each role of the entitlement. */
export async function check(
  target: Target,
  entitlement: { readonly name: string; readonly config: AwsEntitlement } | null,
  signal: AbortSignal,
): Promise<readonly CheckStep[]> {
  const steps: CheckStep[] = [];
  const say: Say = (step, ok, says) => void steps.push({ step, ok, says });
  const attempt = async (step: string, work: () => Promise<void>) => {
    try {
      await work();
    } catch (error) {
      say(step, false, error instanceof ProviderError ? error.message : 'AWS did not answer in time');
    }
  };
  await attempt('broker', () => checkBroker(target, say, signal));
  const listed = target.config.roles.filter(({ arn }) => entitlement === null || arn === entitlement.config.role);
  if (listed.length === 0) say('role', false, 'the target does not list the role of the entitlement');
  for (const { arn } of allRoles({ roles: listed })) {
    await attempt('role', () => checkRole(target, arn, say, signal));
    if (entitlement !== null) await attempt('mint', () => checkMint(target, arn, entitlement.config, say, signal));
    await attempt('canary', () => playCanary(target, arn, say, signal));
  }
  return steps;
}

async function checkBroker(target: Target, say: Say, signal: AbortSignal): Promise<void> {
  const { sts } = target.clients;
  const { Arn = '' } = await ask('asking who the broker is', () =>
    sts.send(new GetCallerIdentityCommand({}), { abortSignal: signal }),
  );
  const isSession = /^arn:[a-z-]+:sts::\d{12}:assumed-role\//.test(Arn);
  say(
    'broker',
    isSession,
    isSession
      ? `it runs as ${Arn}`
      : `it runs as ${Arn}: with long-term keys its sessions could be exchanged for 12 hours of console; run it as a role`,
  );
  const seconds = Math.round((target.clock.offset ?? 0) / 100) / 10;
  const near = Math.abs(seconds) * 1000 <= skewMillis;
  say('clock', near, near ? 'within 5 s of AWS’s' : `AWS’s clock is ${seconds} s from the broker’s: set the broker’s`);
}

async function checkRole(target: Target, role: string, say: Say, signal: AbortSignal): Promise<void> {
  const { boundary, maxSessionSeconds, uniqueId } = await target.identify(role, signal);
  const { permissions_boundary: wanted, max_session_seconds: longest } = target.config;
  const bounded = boundary !== null && (wanted === undefined || wanted === boundary);
  say(
    'boundary',
    bounded,
    bounded
      ? `the role ${role} (${uniqueId}) has ${boundary}`
      : `the role ${role} has ${boundary ?? 'no permissions boundary'}${wanted === undefined ? '' : `, not ${wanted}`}: who may write its policies could widen it`,
  );
  const long = maxSessionSeconds >= longest;
  say('session', long, `the role allows sessions of ${maxSessionSeconds} s; the target asks for ${longest} s at most`);
}

/** The entitlement's own session policy, as STS packs it. The values of its params are none that anybody has. */
async function checkMint(
  target: Target,
  role: string,
  { statements }: AwsEntitlement,
  say: Say,
  signal: AbortSignal,
): Promise<void> {
  const params = Object.fromEntries(boundBy(statements).map((name) => [name, 'mayfly-canary']));
  const deadline = new Date(Math.floor(target.clock.now() / 1000 + 30) * 1000);
  const policy = sessionPolicy(statements, params, deadline);
  const wanted = { role, handle: handleOf(randomUUID()), policy, deadline };
  try {
    const { packed } = await assume(target, wanted, signal);
    say(
      'mint',
      true,
      `a session was made; its policy and tags take ${packed ?? 'an unknown number of'} % of what STS packs`,
    );
  } catch (error) {
    const refused = error instanceof AwsError && error.code.startsWith('AccessDenied');
    const own = refused ? await sourceIdentityOf(target, wanted, signal) : null;
    if (own === null) throw error;
    say(
      'mint',
      false,
      `the broker’s own session carries the source identity ${own}: then it can give its sessions none`,
    );
  }
}

async function playCanary(target: Target, role: string, say: Say, signal: AbortSignal): Promise<void> {
  const { probe, fence: how } = target.config;
  const canary = await sendProbe(target, role, randomHandle(), signal);
  const used = await isAllowed(target, role, canary, signal);
  say('use', used, `the role ${used ? 'allows' : 'refuses'} ${probe.action}, by which early ends are proven`);
  if (how === 'none' || !used) return;
  const fence = new RoleFence(target, role, true);
  // No grant is denied by it, and no other writer has its number: in it is the time.
  const view = {
    live: [],
    at: new Date(),
    writer: BigInt(Date.now()) * 1000n + BigInt(Math.floor(Math.random() * 1000)),
  };
  const ended = [{ handle: canary.handle, until: canary.diesAt + skewMillis, issuedBy: null }];
  try {
    const { policy } = await fence.deny(ended, [], view, signal);
    say('fence', true, `${policy} was written to the role, and reads back`);
    const began = performance.now();
    let proof: Awaited<ReturnType<typeof fence.prove>> = null;
    while (proof === null && !signal.aborted && performance.now() - began < 30_000) proof = await fence.prove(signal);
    const seconds = Math.round((performance.now() - began) / 100) / 10;
    say(
      'verify',
      proof !== null,
      proof === null
        ? `no probe was refused within ${seconds} s`
        : `a denied probe was refused after ${seconds} s, and its sibling let through`,
    );
  } finally {
    await fence.withdraw(AbortSignal.timeout(5_000));
  }
  if (fence.alarm !== undefined) say('foreign', false, fence.alarm);
}
