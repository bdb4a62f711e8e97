import pg from 'pg';
import { type ErrorClass, ProviderError } from '../../src/provider.ts';

/** The connection broke: a call that may be repeated may be repeated on another one. */
export class ConnectionLost extends ProviderError {
  constructor(message: string) {
    super('retryable', message, { wholeTarget: true });
    this.name = 'ConnectionLost';
  }
}

/** The target's lock table is full: nothing can be written until somebody's locks are gone. */
export class OutOfSharedMemory extends ProviderError {
  constructor(message: string) {
    super('retryable', message);
    this.name = 'OutOfSharedMemory';
  }
}

/** Refusals of the definer functions (definer.sql). Their texts are ours and hold no secret. */
const refusals: Readonly<Record<string, ErrorClass>> = {
  MF001: 'misconfigured',
  MF002: 'retryable',
  MF003: 'gone',
  MF004: 'misconfigured',
  MF005: 'misconfigured',
  MF006: 'retryable',
  MF007: 'misconfigured',
  MF008: 'gone',
  MF009: 'gone',
  MF020: 'misconfigured',
  MF021: 'misconfigured',
};

/** SQLSTATE, or its class of two characters → what it means for us. The longer one wins. */
const states: Readonly<Record<string, readonly [ErrorClass, string]>> = {
  '0A': ['misconfigured', 'it lacks a feature that is needed'],
  '22': ['misconfigured', 'it did not understand a value'],
  '23': ['misconfigured', 'a constraint of its registry was violated'],
  '25006': ['misconfigured', 'it is read-only: a standby?'],
  '28': ['denied', 'it does not accept the login of the broker'],
  '3D': ['misconfigured', 'the database does not exist'],
  '3F': ['misconfigured', 'it is not prepared (mayfly target prepare)'],
  '42': ['misconfigured', 'it is not prepared, or for another version (mayfly target prepare)'],
  '42501': ['denied', 'the broker lacks a permission'],
  '2BP01': ['retryable', 'other objects depend on the role'],
  '53': ['retryable', 'it is short of a resource'],
  '55P03': ['retryable', 'a lock was not to be had in time'],
  '57014': ['retryable', 'the statement took too long'],
  '57P': ['retryable', 'it is starting, stopping or was told to end the session'],
};

const tlsFailure = /^(ERR_TLS|CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO|HOSTNAME_MISMATCH|ERR_SSL|EPROTO)/;

/** What a SQLSTATE means, for errors thrown and for those that a function reports per ref. */
export function classifyState(state: string, doing: string): ProviderError {
  const known = [state, state.slice(0, 3), state.slice(0, 2)].map((key) => states[key]).find((found) => found);
  const [errorClass, says] = known ?? ['retryable', 'it failed'];
  const message = `${doing}: ${says} (SQLSTATE ${state})`;
  if (state === '53200') return new OutOfSharedMemory(message);
  // No login, no database, no resources, no server.
  return new ProviderError(errorClass, message, { wholeTarget: /^(28|3D|53|57P)/.test(state) });
}

/**
 * Any failure as one of the four classes. Driver messages, details and contexts are dropped, and no `cause` is kept:
 * they may quote statements and parameters. What nobody foresaw is retryable, never success.
 */
export function classify(error: unknown, doing: string): ProviderError {
  if (error instanceof ProviderError) {
    return error;
  }
  if (error instanceof pg.DatabaseError && error.code !== undefined) {
    const refusal = refusals[error.code];
    if (refusal !== undefined) {
      return new ProviderError(refusal, `${doing}: ${error.message} (${error.code})`);
    }
    // It knows nothing of our settings, or another client of the pool has used the names of our statements.
    if (error.message.startsWith('unsupported startup parameter') || /^(26000|42P05)$/.test(error.code)) {
      return poolerBetween(doing);
    }
    // A pooler has no other code for a wrong password.
    if (error.code === '08P01' && error.message.endsWith('authentication failed')) {
      return classifyState('28P01', doing);
    }
    // The session is over with these, whatever the statement was.
    return /^(57P0[1-5]|08)/.test(error.code)
      ? new ConnectionLost(`${doing}: the target ended the session (SQLSTATE ${error.code})`)
      : classifyState(error.code, doing);
  }
  const code = error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
  if (code !== undefined && tlsFailure.test(code)) {
    return new ProviderError('misconfigured', `${doing}: the target cannot be trusted over TLS (${code})`, {
      wholeTarget: true,
    });
  }
  if (error instanceof Error && error.message.includes('does not support SSL')) {
    return new ProviderError('misconfigured', `${doing}: the target offers no TLS`, { wholeTarget: true });
  }
  return new ConnectionLost(`${doing}: the connection failed${code === undefined ? '' : ` (${code})`}`);
}

/**
 * The broker's own connections must be direct: behind a pooler a fence and the lock that it waits for may meet in one
 * session, timeouts are not kept, and what is asked of a session is answered by another.
 */
export function poolerBetween(doing = 'reading the target'): ProviderError {
  return new ProviderError(
    'misconfigured',
    `${doing}: a pooler answers; the broker must connect to the server directly`,
    { wholeTarget: true },
  );
}

/** The broker's own signal ended the call: nothing is known of its effect. */
export function givenUp(doing: string): ProviderError {
  return new ProviderError('retryable', `${doing}: given up, the target did not answer in time`, { wholeTarget: true });
}
