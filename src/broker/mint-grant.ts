import type { AuditEvent } from '../domain/audit-event.ts';
import { MayflyError } from '../domain/errors.ts';
import type { Facts, Grant } from '../domain/grant.ts';
import { step } from '../domain/step.ts';
import type { Task } from '../domain/task.ts';
import { timed } from '../domain/within.ts';
import { type Minted, type MintRequest, ProviderError, type Secret } from '../provider.ts';
import { endGrants, type GrantWithRevocation } from '../store/grants.ts';
import type { Activation, Intent } from '../store/intents.ts';
import { keepLateFacts, type TakenUpAgain } from '../store/late-facts.ts';
import { decideAgain } from './decide-again.ts';
import type { BrokerDeps, CallContext, TargetAccess } from './deps.ts';
import { digestInForce, grantEvent } from './evidence.ts';

export interface Delivered {
  readonly grant: GrantWithRevocation;
  /** The one copy outside the target. */
  readonly credential: Secret<Readonly<Record<string, unknown>>>;
  readonly expiresAt: Date;
}

/** The store's clock as this process knows it. */
export interface StoreClock {
  /** Milliseconds that our wall clock is ahead of it, or less. */
  readonly aheadMillis: number;
  /** What it shows now, for the time of an event. */
  now(): Date;
}

/**
 * From `minting` to `active`, or to `revoking` with the obligation due now. Whatever goes wrong between, the obligation that
 * was committed with the intent finds it.
 */
export async function mintGrant(
  deps: BrokerDeps,
  access: TargetAccess,
  task: Task,
  intent: Intent,
  context: CallContext,
  storeClock: StoreClock,
): Promise<Delivered> {
  const { grant, revocation, mintBy } = intent;
  const digest = digestInForce(deps.catalog);
  const started = performance.now();
  const seconds = () => (performance.now() - started) / 1000;
  // Providers work by this machine's clock; what was decided is on the store's. Measured when the store was read, not now: a
  // machine that was suspended meanwhile must find its times passed, not moved on with it.
  const { aheadMillis } = storeClock;
  const here = (time: Date) => new Date(time.getTime() + aheadMillis);
  const failed = async (why: string, facts: Facts | null) =>
    await giveUp(deps, { task, grant, digest, context, why, facts });
  let answer: Promise<Minted> | undefined;
  let minted: Minted;
  try {
    const ref = { grantId: grant.id, handle: grant.handle, facts: null, deadline: here(grant.deadline) };
    const request: MintRequest = {
      grantId: grant.id,
      entitlement: grant.entitlement,
      config: access.config,
      params: grant.params,
      deadline: here(grant.deadline),
      notAfter: here(task.notAfter),
      mintBy: here(mintBy),
      ...(grant.perCall && { oneConnection: true }),
    };
    step('mint.before');
    minted = await timed(deps.mintSeconds * 1000, (signal) => {
      answer = access.session.mint(ref, request, signal);
      return answer;
    });
    step('mint.after');
  } catch (error) {
    deps.observer.minted(grant.target, seconds(), 'failed');
    await failed(error instanceof ProviderError ? error.errorClass : 'retryable', null);
    // One that was left behind may make it all the same.
    answer?.then(
      ({ facts }) => failed('too_late', facts),
      () => {},
    );
    throw mintProblem(error);
  }
  // A caller that is gone can not receive the secret: the credential is taken back rather than left to its deadline.
  if (context.gone.aborted) {
    deps.observer.minted(grant.target, seconds(), 'too_late');
    await failed('caller_gone', minted.facts);
    throw new MayflyError('target_unavailable', 'The caller was gone before the credential was made.');
  }
  const now = storeClock.now();
  const expiresAt = new Date(minted.expiresAt.getTime() - aheadMillis);
  const event = grantEvent('grant.activated', task, grant, digest, context, {
    action: 'issue',
    decision: 'permit',
    payload: { native_expiry: expiresAt.toISOString(), facts: minted.facts },
  });
  const outcome = await activate(deps, { grant, facts: minted.facts, event, now }).catch(async (error: unknown) => {
    // It may be active all the same, with nobody who holds its secret.
    await failed('not_recorded', minted.facts);
    throw error;
  });
  if (outcome === 'ended') {
    // Its task or its time ended while the target worked. Whether somebody ended the grant or not: it is not delivered.
    deps.observer.minted(grant.target, seconds(), 'too_late');
    await failed('too_late', minted.facts);
    throw new MayflyError(
      'task_ended',
      'The task or the grant ended while the credential was made; it was not delivered.',
    );
  }
  deps.observer.minted(grant.target, seconds(), 'ok');
  deps.changes.publish([task.id]);
  deps.living.remember({ ...grant, facts: minted.facts });
  deps.alarms.in(grant.target, grant.deadline.getTime() - now.getTime());
  return {
    grant: {
      grant: { ...grant, state: 'active', facts: minted.facts },
      revocation: { ...revocation, dueAt: grant.deadline, tryAt: grant.deadline },
    },
    credential: minted.secret,
    expiresAt,
  };
}

/** How often something may come between that has it decided again. */
const MOST_DECIDED_AGAIN = 10;

/**
 * What a signal or a phase had decided again while the target worked is decided first, and may end by that.
 * @throws MayflyError `denied_by_policy` where policy can not say.
 */
async function activate(deps: BrokerDeps, activation: Activation): Promise<'done' | 'ended'> {
  for (let tries = 0; tries < MOST_DECIDED_AGAIN; tries++) {
    step('activate.before');
    const outcome = await deps.issuing.activate(activation);
    step('activate.after');
    if (outcome !== 'undecided') return outcome;
    const { outcome: decided } = await decideAgain(deps, { only: activation.grant.id });
    if (decided === 'failed') throw new MayflyError('denied_by_policy');
    if (decided === 'stale') await deps.catalog.refresh();
  }
  throw new MayflyError('store_unavailable', 'What the grant was decided on changed again and again.');
}

/** While the store is away, a grant that may be active with nobody holding its secret is ended when it comes back. */
const GIVE_UP_TRIES = 30;
const GIVE_UP_MILLIS = 1_000;

interface Failed {
  readonly task: Task;
  readonly grant: Grant;
  readonly digest: string;
  readonly context: CallContext;
  readonly why: string;
  /** Of what was made all the same, where it is known. */
  readonly facts: Facts | null;
}

/** Ends a grant whose mint failed or came to nothing: it may have had an effect in the target all the same. */
async function giveUp(deps: BrokerDeps, failed: Failed, tries = GIVE_UP_TRIES): Promise<void> {
  const { task, grant, digest, context, why, facts } = failed;
  try {
    await deps.db.transaction({}, async (tx) => {
      const ended = await endGrants(tx, { grantIds: [grant.id] }, 'mint_failed');
      const again = facts === null ? undefined : await keepLateFacts(tx, grant.id, facts);
      const tell = (type: 'grant.mint_failed' | 'revocation.reopened', payload: AuditEvent['payload']) =>
        tx.record(grantEvent(type, task, grant, digest, context, { cause: 'mint_failed', payload }));
      if (ended.length > 0) tell('grant.mint_failed', { why });
      if (again !== undefined) tell('revocation.reopened', { why, ...told(again) });
      tx.changed(task.id);
      step('give-up.before');
    });
    step('give-up.after');
  } catch (error) {
    deps.log({ grant_id: grant.id, error }, 'a failed mint could not be recorded');
    if (tries > 1) {
      // Not waited for: the caller gets its answer. An intent that never became active falls due by itself.
      setTimeout(() => void giveUp(deps, failed, tries - 1), GIVE_UP_MILLIS).unref();
    }
  }
  deps.alarms.now(grant.target);
}

function told({ containedAt, cleanAt, writtenOffAt }: TakenUpAgain): AuditEvent['payload'] {
  const at = (time: Date | null) => time?.toISOString() ?? null;
  return { contained_at: at(containedAt), clean_at: at(cleanAt), written_off_at: at(writtenOffAt) };
}

function mintProblem(error: unknown): MayflyError {
  const errorClass = error instanceof ProviderError ? error.errorClass : 'retryable';
  return new MayflyError(errorClass === 'retryable' ? 'target_unavailable' : 'target_refused', undefined, {
    cause: error,
  });
}
