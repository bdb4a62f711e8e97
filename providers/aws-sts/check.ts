import { GetCallerIdentityCommand } from '@aws-sdk/client-sts';
import { randomUUID } from 'node:crypto';
import { type CheckStep, ProviderError } from '../../src/provider.ts';
import { assume, sourceIdentityOf } from './assume.ts';
import { ask } from './clients.ts';
import { AwsError } from './errors.ts';
import { seeBoundary } from './boundary.ts';
import { playCanary, type Say } from './canary.ts';
import { handleOf } from './handle.ts';
import { allRoles, type AwsEntitlement } from './schema.ts';
import { named } from './derived.ts';
import { boundBy, sessionPolicy } from './session-policy.ts';
import { type Target, skewMillis } from './target.ts';

type Warn = (step: string, says: string) => void;

/** What the broker is, what the roles are, and a canary: mint, use, be refused, fence, verify, on each role of the entitlement. */
export async function check(
  target: Target,
  entitlement: { readonly name: string; readonly config: AwsEntitlement } | null,
  signal: AbortSignal,
): Promise<readonly CheckStep[]> {
  const steps: CheckStep[] = [];
  const say: Say = (step, ok, says) => void steps.push({ step, ok, says });
  const warn: Warn = (step, says) => void steps.push({ step, ok: true, warns: true, says });
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
    await attempt('role', () => checkRole(target, arn, entitlement?.config ?? null, say, warn, signal));
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

async function checkRole(
  target: Target,
  role: string,
  entitlement: AwsEntitlement | null,
  say: Say,
  warn: Warn,
  signal: AbortSignal,
): Promise<void> {
  const { boundary, maxSessionSeconds, uniqueId } = await target.identify(role, signal);
  const { permissions_boundary: wanted } = target.config;
  const longest = target.longestSeconds;
  const bounded = boundary !== null && (wanted === undefined || wanted === boundary);
  say(
    'boundary',
    bounded,
    bounded
      ? `the role ${role} (${uniqueId}) has ${boundary}`
      : `the role ${role} has ${boundary ?? 'no permissions boundary'}${wanted === undefined ? '' : `, not ${wanted}`}: who may write its policies could widen it`,
  );
  if (boundary !== null) await checkBoundary(target, boundary, entitlement, say, warn, signal);
  const long = maxSessionSeconds >= longest;
  say('session', long, `the role allows sessions of ${maxSessionSeconds} s; the target asks for ${longest} s at most`);
}

/** What the boundary says, beside what `target prepare` prints. */
async function checkBoundary(
  target: Target,
  boundary: string,
  entitlement: AwsEntitlement | null,
  say: Say,
  warn: Warn,
  signal: AbortSignal,
): Promise<void> {
  const seen = seeBoundary(await target.policy(boundary, signal), entitlement);
  const open = seen?.open ?? ['anything that can be read'];
  say(
    'never',
    open.length === 0,
    open.length === 0
      ? `${boundary} denies what no session may ever do`
      : `${boundary} does not deny, everywhere and under no condition: ${named(open)}. Write it as \`target prepare\` prints it`,
  );
  if (seen !== undefined && seen.missing.length > 0)
    say('bounds', false, `${boundary} does not allow ${named(seen.missing)}: write it as \`target prepare\` prints it`);
  if (seen?.wild === true) warn('bounds', `${boundary} allows all actions, or all but some: it bounds nothing else`);
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
  const wanted = {
    role,
    handle: handleOf(randomUUID()),
    policy,
    deadline,
    issued: Math.floor(target.clock.now() / 1000),
  };
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
