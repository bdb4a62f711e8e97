import { randomBytes } from 'node:crypto';
import { MayflyError } from '../domain/errors.ts';
import { Secret } from '../domain/secret.ts';
import { step } from '../domain/step.ts';
import { workloadId } from '../domain/task.ts';
import type { OperatorCaller, SignInCode } from '../identity/types.ts';
import { groupsOf, rolesOf } from '../identity/workload-token.ts';
import { deleteSession, findSession, insertSession } from '../store/operator-sessions.ts';
import type { BrokerDeps, CallContext } from './deps.ts';
import { operatorEvent } from './evidence.ts';

export interface BegunSession {
  /** For the browser's cookie. */
  readonly secret: Secret<string>;
  readonly expiresAt: Date;
}

/**
 * An operator signs in: the issuer's code becomes a session of ours.
 * @throws MayflyError `login_failed`, `operator_only`, `keys_unavailable`
 */
export async function beginSession(
  deps: BrokerDeps,
  sourceName: string,
  code: SignInCode,
  context: CallContext,
): Promise<BegunSession> {
  const source = deps.catalog.current().catalog.trust.operators.find(({ name }) => name === sourceName);
  if (source === undefined) throw new MayflyError('login_failed');
  const { subject, claims } = await deps.identity.signIn(source, code, new Date());
  const secret = randomBytes(32).toString('base64url');
  const expiresAt = await deps.db.transaction({}, async (tx) => {
    const operator = workloadId({ source: source.name, subject });
    tx.record(operatorEvent('operator.signed_in', deps.catalog, context, operator, { resource: 'none', payload: {} }));
    const session = { source: source.name, issuer: source.issuer, subject, claims };
    const ends = await insertSession(tx, secret, session, deps.sessionSeconds);
    step('begin-session.before');
    return ends;
  });
  step('begin-session.after');
  return { secret: new Secret(secret), expiresAt };
}

/** Said again, nothing happens. */
export async function endSession(deps: BrokerDeps, secret: string, context: CallContext): Promise<void> {
  await deps.db.transaction({}, async (tx) => {
    const ended = await deleteSession(tx, secret);
    if (ended === undefined) return;
    const operator = workloadId(ended);
    tx.record(operatorEvent('operator.signed_out', deps.catalog, context, operator, { resource: 'none', payload: {} }));
    step('end-session.before');
  });
  step('end-session.after');
}

/**
 * The operator whose session it is, with the roles that the catalog in force gives.
 * @throws MayflyError `session_ended`, `operator_only` when no role is left.
 */
export async function callerOfSession(deps: BrokerDeps, secret: string): Promise<OperatorCaller> {
  const session = await findSession(deps.db, secret);
  const { operators } = deps.catalog.current().catalog.trust;
  const source = operators.find(
    ({ name, issuer, login }) => name === session?.source && issuer === session.issuer && login !== undefined,
  );
  if (session === undefined || source === undefined) throw new MayflyError('session_ended');
  return {
    kind: 'operator',
    operator: workloadId(session),
    roles: rolesOf(session.claims, source),
    groups: groupsOf(session.claims, source),
    revision: deps.catalog.current().number,
    expiresAt: session.expiresAt,
  };
}
