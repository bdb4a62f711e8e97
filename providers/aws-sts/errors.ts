import { type ErrorClass, ProviderError } from '../../src/provider.ts';

/** A refusal or failure of AWS, by its code and request id alone: its messages quote ARNs, policies and sometimes keys. */
export class AwsError extends ProviderError {
  readonly code: string;
  /** AWS answered and did nothing. Otherwise what was asked may still come to pass. */
  readonly refused: boolean;

  constructor(
    errorClass: ErrorClass,
    message: string,
    { code, refused, wholeTarget }: { code: string; refused: boolean; wholeTarget: boolean },
  ) {
    super(errorClass, message, { wholeTarget });
    this.name = 'AwsError';
    this.code = code;
    this.refused = refused;
  }
}

interface Meaning {
  readonly is: ErrorClass;
  readonly says: string;
  readonly whole?: true;
}

/** Of somebody on the way who waited no longer: what was asked may be done all the same. */
const gaveUp: ReadonlySet<number> = new Set([408, 425, 499]);
const throttled: Meaning = { is: 'retryable', says: 'it is throttled', whole: true };
const notOurs: Meaning = { is: 'denied', says: 'it does not accept the credentials of the broker', whole: true };

/** Codes without the ending `Exception`, which some of the services write and others do not. */
const meanings: Readonly<Record<string, Meaning>> = {
  AccessDenied: { is: 'denied', says: 'the broker lacks a permission' },
  UnauthorizedOperation: { is: 'denied', says: 'the broker lacks a permission' },
  InvalidClientTokenId: notOurs,
  UnrecognizedClient: notOurs,
  SignatureDoesNotMatch: notOurs,
  InvalidAccessKeyId: notOurs,
  IncompleteSignature: notOurs,
  MissingAuthenticationToken: notOurs,
  OptInRequired: notOurs,
  ExpiredToken: { is: 'retryable', says: 'the credentials of the broker have expired', whole: true },
  RequestExpired: { is: 'misconfigured', says: 'the clock of the broker is wrong', whole: true },
  CredentialsProviderError: { is: 'misconfigured', says: 'the broker has no credentials', whole: true },
  Throttling: throttled,
  ThrottledException: throttled,
  RequestLimitExceeded: throttled,
  TooManyRequests: throttled,
  SlowDown: throttled,
  LimitExceeded: { is: 'retryable', says: 'a quota of the role is full' },
  ConcurrentModification: { is: 'retryable', says: 'somebody else is changing the role' },
  NoSuchEntity: { is: 'misconfigured', says: 'the role or the policy is not there' },
  UnmodifiableEntity: { is: 'misconfigured', says: 'the role belongs to a service and can not be changed' },
  MalformedPolicyDocument: { is: 'misconfigured', says: 'it does not take the policy' },
  PackedPolicyTooLarge: { is: 'misconfigured', says: 'the session policy and tags together are too large once packed' },
  RegionDisabled: { is: 'misconfigured', says: 'STS is switched off in the region', whole: true },
  ValidationError: { is: 'misconfigured', says: 'it does not take a value' },
};

/** Any failure of a call as one of the four classes. What nobody foresaw is retryable, never success, and may have been done. */
export function classify(error: unknown, doing: string): AwsError {
  if (error instanceof AwsError) return error;
  if (error instanceof ProviderError) {
    const { errorClass, message, wholeTarget } = error;
    return new AwsError(errorClass, message, { code: 'Broker', refused: true, wholeTarget });
  }
  const name = error instanceof Error ? error.name : '';
  const { httpStatusCode: status, requestId } = metadataOf(error);
  const code = /^[A-Za-z][A-Za-z0-9.]{0,63}$/.test(name) ? name : 'Unknown';
  const meaning = meanings[code] ?? meanings[code.replace(/Exception$/, '')];
  // An error of a connection has the status of no answer.
  const answered = status !== undefined && status >= 400 && status < 500 && !gaveUp.has(status);
  const refused = (answered && !code.startsWith('RequestTimeout')) || code === 'CredentialsProviderError';
  if (meaning !== undefined && refused)
    return new AwsError(meaning.is, `${doing}: ${meaning.says} (${tag(code, requestId)})`, {
      ...{ code, refused, wholeTarget: meaning.whole === true },
    });
  if (refused)
    return new AwsError('misconfigured', `${doing}: it was refused (${tag(code, requestId)})`, {
      ...{ code, refused, wholeTarget: false },
    });
  const says = status === undefined ? 'no answer' : `it failed with ${status}`;
  return new AwsError('retryable', `${doing}: ${says} (${tag(code, requestId)})`, {
    ...{ code, refused: false, wholeTarget: true },
  });
}

function tag(code: string, requestId: string | undefined): string {
  return requestId === undefined ? code : `${code}, request ${requestId}`;
}

function metadataOf(error: unknown): { readonly httpStatusCode?: number; readonly requestId?: string } {
  const metadata = member(error, '$metadata');
  const [status, id] = [member(metadata, 'httpStatusCode'), member(metadata, 'requestId')];
  return {
    ...(typeof status === 'number' && { httpStatusCode: status }),
    ...(typeof id === 'string' && /^[\w-]{1,64}$/.test(id) && { requestId: id }),
  };
}

function member(value: unknown, key: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, key) : undefined;
}
