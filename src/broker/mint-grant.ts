import { MayflyError } from '../domain/errors.ts';
import type { Grant } from '../domain/grant.ts';
import type { Task } from '../domain/task.ts';
import { type Minted, ProviderError, type Secret } from '../provider.ts';
import { endGrants, type GrantWithRevocation } from '../store/grants.ts';
import type { Intent } from '../store/intents.ts';
import type { BrokerDeps, CallContext, TargetAccess } from './deps.ts';
import { digestInForce, grantEvent } from './evidence.ts';

export interface Delivered {
  readonly grant: GrantWithRevocation;
  /** The one copy outside the target. */
  readonly credential: Secret<Readonly<Record<string, unknown>>>;
  readonly expiresAt: Date;
}

/**
 * From `minting` to `active`, or to `revoking` with the obligation due now. Whatever goes wrong between, the obligation that
 * was committed with the intent finds it.
 * @param storeClock What the store's clock shows now, for the time of an event.
 */
export async function mintGrant(
  deps: BrokerDeps,
  access: TargetAccess,
  task: Task,
  intent: Intent,
  context: CallContext,
  storeClock: () => Date,
): Promise<Delivered> {
  const { grant, revocation, mintBy } = intent;
  const digest = digestInForce(deps.catalog);
  const started = performance.now();
  const seconds = () => (performance.now() - started) / 1000;
  let minted: Minted;
  try {
    minted = await access.session.mint(
      { grantId: grant.id, handle: grant.handle, facts: null, deadline: grant.deadline },
      {
        grantId: grant.id,
        entitlement: grant.entitlement,
        config: access.config,
        params: grant.params,
        deadline: grant.deadline,
        notAfter: task.notAfter,
        mintBy,
      },
      AbortSignal.timeout(deps.mintSeconds * 1000),
    );
  } catch (error) {
    deps.observer.minted(grant.target, seconds(), 'failed');
    await giveUp(deps, task, grant, digest, context, error instanceof ProviderError ? error.errorClass : 'retryable');
    throw mintProblem(error);
  }
  // A caller that is gone can not receive the secret: the credential is taken back rather than left to its deadline.
  if (context.gone.aborted) {
    deps.observer.minted(grant.target, seconds(), 'too_late');
    await giveUp(deps, task, grant, digest, context, 'caller_gone');
    throw new MayflyError('target_unavailable', 'The caller was gone before the credential was made.');
  }
  const now = storeClock();
  const event = grantEvent('grant.activated', task, grant, digest, context, {
    action: 'issue',
    decision: 'permit',
    payload: { native_expiry: minted.expiresAt.toISOString(), facts: minted.facts },
  });
  if ((await deps.issuing.activate({ grant, facts: minted.facts, event, now })) === 'ended') {
    // Its task or its time ended while the target worked; the end already made the obligation due.
    deps.observer.minted(grant.target, seconds(), 'too_late');
    deps.alarms.now(grant.target);
    throw new MayflyError(
      'task_ended',
      'The task or the grant ended while the credential was made; it was not delivered.',
    );
  }
  deps.observer.minted(grant.target, seconds(), 'ok');
  deps.changes.publish([task.id]);
  deps.alarms.in(grant.target, grant.deadline.getTime() - now.getTime());
  return {
    grant: {
      grant: { ...grant, state: 'active', facts: minted.facts },
      revocation: { ...revocation, dueAt: grant.deadline, tryAt: grant.deadline },
    },
    credential: minted.secret,
    expiresAt: minted.expiresAt,
  };
}

/** Ends a grant whose mint failed or came to nothing: it may have had an effect in the target all the same. */
async function giveUp(
  deps: BrokerDeps,
  task: Task,
  grant: Grant,
  digest: string,
  context: CallContext,
  why: string,
): Promise<void> {
  await deps.db
    .transaction({}, async (tx) => {
      const ended = await endGrants(tx, { grantIds: [grant.id] }, 'mint_failed');
      if (ended.length > 0)
        tx.record(
          grantEvent('grant.mint_failed', task, grant, digest, context, { cause: 'mint_failed', payload: { why } }),
        );
      tx.changed(task.id);
    })
    .catch((error: unknown) => {
      // The store is gone: the intent stands there, and its obligation falls due by itself.
      deps.log({ grant_id: grant.id, error }, 'a failed mint could not be recorded');
    });
  deps.alarms.now(grant.target);
}

function mintProblem(error: unknown): MayflyError {
  const errorClass = error instanceof ProviderError ? error.errorClass : 'retryable';
  return new MayflyError(errorClass === 'retryable' ? 'target_unavailable' : 'target_refused', undefined, {
    cause: error,
  });
}
