import { createHash } from 'node:crypto';
import {
  type Facts,
  type Minted,
  type MintRequest,
  ProviderError,
  type Ref,
  type Renewal,
  type Renewed,
  Secret,
  within,
} from '../../src/provider.ts';
import { type AssumedSession, assume } from './assume.ts';
import { handleOf } from './handle.ts';
import { hear } from './hear.ts';
import { issuedFact, issuedSecond } from './issued.ts';
import type { AwsEntitlement } from './schema.ts';
import { sessionPolicy } from './session-policy.ts';
import { nameOf } from './account.ts';
import type { Target } from './target.ts';

/**
 * A session of the entitlement's role, or of one of its clones. Its own policy ends it at the deadline, so that one that nobody
 * heard of dies by itself.
 * @throws ProviderError
 */
export async function mint(
  target: Target,
  ref: Ref,
  request: MintRequest<AwsEntitlement>,
  signal: AbortSignal,
): Promise<Minted> {
  if (ref.handle !== handleOf(ref.grantId))
    throw new ProviderError('misconfigured', 'the handle is not that of the grant');
  if (request.oneConnection === true)
    throw new ProviderError('misconfigured', 'AWS can not hold a session to one connection');
  const left = request.mintBy.getTime() - Date.now();
  if (left <= 0) throw new ProviderError('gone', 'minting: its time is over');
  const role = spread(target, request.config.role, ref.handle);
  // Its deadline is by AWS's clock.
  await hear(target, 'sts', within(left, signal));
  const deadline = wholeSecond(target.clock.toTarget(request.deadline));
  const policy = sessionPolicy(request.config.statements, request.params, deadline);
  const issued = Math.floor(target.clock.now() / 1000);
  const session = await assume(target, { role, handle: ref.handle, policy, deadline, issued }, within(left, signal));
  target.occupancyOf(role).minted(ref.handle, deadline.getTime(), target.clock.now());
  // A process that slept meanwhile: what it holds is not handed out, and dies at the deadline.
  if (Date.now() > request.mintBy.getTime()) throw new ProviderError('gone', 'minting: its time is over');
  const notAfter = target.clock.toTarget(request.notAfter).getTime();
  const facts = { ...factsOf(target, role, session, deadline, null), ...issuedFact(issued), not_after_ms: notAfter };
  return { secret: secretOf(target, session), expiresAt: endOf(target, session, deadline), facts };
}

/** A new session under the same identity: what denies one denies the other. @throws ProviderError `gone` when its end came. */
export async function renew(
  target: Target,
  ref: Ref,
  until: Date,
  signal: AbortSignal,
  granted: Renewal<AwsEntitlement> | undefined,
): Promise<Renewed> {
  const role = ref.facts?.['role_arn'];
  if (typeof role !== 'string' || granted === undefined)
    throw new ProviderError('misconfigured', 'renewing: nobody says what it was granted');
  await hear(target, 'sts', signal);
  if (target.isPowerless(ref)) throw new ProviderError('gone', 'renewing: its deadline is over');
  // A session that outlives its entry in the fence would be let in again.
  if (target.fenceOf(role).names(ref.handle)) throw new ProviderError('gone', 'renewing: it was ended');
  const notAfter = ref.facts?.['not_after_ms'];
  const asked = target.clock.toTarget(until).getTime();
  const deadline = wholeSecond(new Date(typeof notAfter === 'number' ? Math.min(asked, notAfter) : asked));
  const policy = sessionPolicy(granted.config.statements, granted.params, deadline);
  // Before it is asked for: its answer may be lost, and it lives all the same.
  remember(target, ref.handle, deadline);
  // That of its mint: one cut holds all its sessions.
  const issued = issuedSecond(ref.facts) ?? Math.floor(target.clock.now() / 1000);
  const session = await assume(target, { role, handle: ref.handle, policy, deadline, issued }, signal);
  target.occupancyOf(role).minted(ref.handle, deadline.getTime(), target.clock.now());
  const facts = { ...ref.facts, ...factsOf(target, role, session, deadline, ref.facts) };
  return { secret: secretOf(target, session), expiresAt: endOf(target, session, deadline), facts };
}

const remembered = 20_000;

function remember({ renewedUntil, clock }: Target, handle: string, deadline: Date): void {
  renewedUntil.set(handle, Math.max(deadline.getTime(), renewedUntil.get(handle) ?? 0));
  if (renewedUntil.size < remembered) return;
  const now = clock.now() - 60_000;
  for (const [one, until] of renewedUntil) if (until < now) renewedUntil.delete(one);
}

/** The same role or clone for the same grant. @throws ProviderError `misconfigured` for a role that the target does not list. */
function spread({ config }: Target, arn: string, handle: string): string {
  const role = config.roles.find((one) => one.arn === arn);
  if (role === undefined) throw new ProviderError('misconfigured', `the target does not list the role ${nameOf(arn)}`);
  const all = [role.arn, ...role.clones.map((clone) => clone.arn)];
  const bytes = createHash('sha256').update(handle).digest();
  return all[bytes.readUInt32BE(0) % all.length] ?? role.arn;
}

/** @throws ProviderError `misconfigured` when another account or role answered than was asked for. */
function factsOf(target: Target, role: string, session: AssumedSession, deadline: Date, before: Facts | null): Facts {
  const { config } = target;
  const pinned = config.roles.flatMap((one) => [one, ...one.clones]).find(({ arn }) => arn === role)?.unique_id;
  const expected = before?.['role_unique_id'] ?? pinned ?? session.roleUniqueId;
  if (session.accountId !== config.account_id || expected !== session.roleUniqueId)
    throw new ProviderError(
      'misconfigured',
      `assuming the role: ${session.roleUniqueId} of account ${session.accountId} answered, not ${String(expected)} of ${config.account_id}`,
    );
  const until = before?.['deadline_ms'];
  return {
    account_id: session.accountId,
    role_arn: role,
    role_unique_id: session.roleUniqueId,
    session_arn: session.sessionArn,
    // The latest of any of its sessions.
    deadline_ms: Math.max(deadline.getTime(), typeof until === 'number' ? until : 0),
    sts_expiration: session.expiration.toISOString(),
    packed_policy_percent: session.packed,
    session_token_percent: session.tokenUsed,
  };
}

function endOf({ clock }: Target, { expiration }: AssumedSession, deadline: Date): Date {
  return clock.fromTarget(expiration < deadline ? expiration : deadline);
}

function secretOf({ config }: Target, { keys }: AssumedSession): Secret<Readonly<Record<string, unknown>>> {
  return new Secret({
    access_key_id: keys.accessKeyId,
    secret_access_key: keys.secretAccessKey,
    session_token: keys.sessionToken,
    region: config.region,
  });
}

function wholeSecond(time: Date): Date {
  return new Date(Math.floor(time.getTime() / 1000) * 1000);
}
