import { deflateRawSync } from 'node:zlib';
import { arnOf, instant, mayDo, refuseMalformed, userIdOf } from './evaluate.ts';
import { denied, invalid, Refusal } from './refusal.ts';
import type { Knobs } from './knobs.ts';
import type { Principal, Role, Session, State } from './state.ts';
import type { Content } from './xml.ts';

/** What an action answers, as its result element. */
export type Answer = Content | undefined;

const NAME = /^[\w+=,.@-]{2,64}$/;

export async function answerSts(
  state: State,
  knobs: Knobs,
  caller: Principal,
  params: URLSearchParams,
): Promise<Answer> {
  const action = params.get('Action') ?? '';
  if (action === 'AssumeRole') return await assumeRole(state, knobs, caller, params);
  // It needs no permission, and no Deny takes it away.
  if (action === 'GetCallerIdentity') {
    return { Arn: arnOf(state, caller), UserId: userIdOf(caller), Account: state.id };
  }
  if (action === 'GetScopedCredentials') {
    // The evaluator does not know it yet: decided as one that, like it, nobody denies by name.
    if (!(await mayDo(state, caller, 'sts:DecodeAuthorizationMessage', '*'))) throw denied(`sts:${action}`);
    return scopedOf(state, caller);
  }
  if (action === 'GetSessionToken' || action === 'GetFederationToken') throw denied(`sts:${action}`);
  if (action === 'DecodeAuthorizationMessage') {
    if (!(await mayDo(state, caller, `sts:${action}`, '*'))) throw denied(`sts:${action}`);
    throw new Refusal(400, 'InvalidAuthorizationMessageException', 'The message is not valid.');
  }
  throw new Refusal(400, 'InvalidAction', `Could not find operation ${action}`);
}

async function assumeRole(state: State, knobs: Knobs, caller: Principal, params: URLSearchParams): Promise<Answer> {
  const name = params.get('RoleSessionName') ?? '';
  if (!NAME.test(name)) throw invalid(`Value '${name}' at 'roleSessionName' failed to satisfy constraint`);
  const role = [...state.roles.values()].find(({ arn }) => arn === params.get('RoleArn'));
  // AWS does not say whether there is one.
  if (role === undefined) throw denied('sts:AssumeRole');
  const seconds = secondsOf(params, role, caller);
  const inherited = inheritedBy(caller);
  const asked = { tags: tagsOf(params), transitive: membersOf(params, 'TransitiveTagKeys') };
  for (const key of asked.tags.keys()) {
    if (inherited.tags.has(key))
      throw new Refusal(400, 'InvalidParameterValue', `transitive tag ${key} is set already`);
  }
  const sourceIdentity = sourceIdentityOf(params, caller);
  const tags = new Map([...inherited.tags, ...asked.tags]);
  const session: Omit<Session, 'kind' | 'keys'> = {
    role,
    name,
    sourceIdentity,
    tags,
    transitive: new Set([...inherited.tags.keys(), ...asked.transitive]),
    policy: params.get('Policy') ?? undefined,
    issuedAt: Math.floor(state.now() / 1000) * 1000,
    expiresAt: state.now() + seconds * 1000,
  };
  const packed = await packedPercent(state, knobs, session);
  await refuseUntrusted(state, caller, params, session);
  const made = state.addSession(session);
  return {
    AssumedRoleUser: { Arn: arnOf(state, made), AssumedRoleId: userIdOf(made) },
    ...credentialsOf(made),
    ...(made.policy !== undefined || tags.size > 0 ? { PackedPolicySize: packed } : {}),
    ...(sourceIdentity !== undefined && { SourceIdentity: sourceIdentity }),
  };
}

/** A session from a session: identity, tags and policy stay, and its time of issue is its own. */
function scopedOf(state: State, caller: Principal): Answer {
  if (caller.kind === 'user') throw denied('sts:GetScopedCredentials');
  const { kind: _kind, keys: _keys, ...parent } = caller;
  return credentialsOf(state.addSession({ ...parent, issuedAt: Math.floor(state.now() / 1000) * 1000 }));
}

function credentialsOf({ keys, expiresAt }: Session) {
  return {
    Credentials: {
      AccessKeyId: keys.accessKeyId,
      SecretAccessKey: keys.secretAccessKey,
      SessionToken: keys.sessionToken ?? '',
      Expiration: instant(expiresAt),
    },
  };
}

function secondsOf(params: URLSearchParams, role: Role, caller: Principal): number {
  const asked = params.get('DurationSeconds');
  if (asked === null) return 3600;
  const seconds = Number(asked);
  if (!Number.isInteger(seconds) || seconds < 900 || seconds > 43_200) {
    throw invalid(`Value '${asked}' at 'durationSeconds' failed to satisfy constraint: between 900 and 43200`);
  }
  if (seconds > role.maxSeconds) {
    throw invalid('The requested DurationSeconds exceeds the MaxSessionDuration set for this role.');
  }
  if (caller.kind === 'session' && seconds > 3600) {
    throw invalid('The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining');
  }
  return seconds;
}

/** What the sessions of the next role carry of this one. */
function inheritedBy(caller: Principal): { readonly tags: ReadonlyMap<string, string> } {
  if (caller.kind === 'user') return { tags: new Map() };
  return { tags: new Map([...caller.tags].filter(([key]) => caller.transitive.has(key))) };
}

/** Once set it stays, whatever roles follow. */
function sourceIdentityOf(params: URLSearchParams, caller: Principal): string | undefined {
  const asked = params.get('SourceIdentity');
  if (asked !== null && !NAME.test(asked)) {
    throw invalid(`Value '${asked}' at 'sourceIdentity' failed to satisfy constraint: [\\w+=,.@-]*`);
  }
  const own = caller.kind === 'session' ? caller.sourceIdentity : undefined;
  if (own !== undefined && asked !== null && asked !== own) throw denied('sts:SetSourceIdentity');
  return own ?? asked ?? undefined;
}

function tagsOf(params: URLSearchParams): Map<string, string> {
  const tags = new Map<string, string>();
  for (let at = 1; params.has(`Tags.member.${at}.Key`); at += 1) {
    const key = params.get(`Tags.member.${at}.Key`) ?? '';
    const value = params.get(`Tags.member.${at}.Value`) ?? '';
    if (key === '' || key.length > 128 || value.length > 256 || /[^\p{L}\p{Z}\p{N}_.:/=+\-@]/u.test(key + value)) {
      throw invalid(`tag ${key} failed to satisfy constraint`);
    }
    if ([...tags.keys()].some((other) => other.toLowerCase() === key.toLowerCase())) {
      throw new Refusal(400, 'InvalidParameterValue', 'Duplicate tag keys found.');
    }
    tags.set(key, value);
  }
  if (tags.size > 50) throw invalid('at most 50 tags');
  return tags;
}

function membersOf(params: URLSearchParams, name: string): string[] {
  const members: string[] = [];
  for (let at = 1; params.has(`${name}.member.${at}`); at += 1) members.push(params.get(`${name}.member.${at}`) ?? '');
  return members;
}

/** Policy and tags share one budget of a packed form that AWS describes by its percentage alone. */
async function packedPercent(state: State, knobs: Knobs, session: Pick<Session, 'policy' | 'tags'>): Promise<number> {
  const { policy = '', tags } = session;
  if (policy.length > 2048) throw invalid("Value at 'policy' failed to satisfy constraint: length at most 2048");
  if (policy !== '') await refuseMalformed(state, policy);
  const packed = deflateRawSync(policy + JSON.stringify([...tags])).length;
  const percent = Math.ceil((packed / knobs.packedBytes) * 100);
  if (percent <= 100) return percent;
  throw new Refusal(400, 'PackedPolicyTooLarge', `Packed size consumes ${percent}% of allotted space`);
}

/** Its trust policy and the caller's own must both allow what the request does, each by its action. */
async function refuseUntrusted(
  state: State,
  caller: Principal,
  params: URLSearchParams,
  { role, name, sourceIdentity, tags, transitive }: Omit<Session, 'kind' | 'keys'>,
): Promise<void> {
  const externalId = params.get('ExternalId');
  const context = {
    'sts:RoleSessionName': name,
    ...(externalId !== null && { 'sts:ExternalId': externalId }),
    ...(sourceIdentity !== undefined && { 'sts:SourceIdentity': sourceIdentity }),
    ...(tags.size > 0 && { 'aws:TagKeys': [...tags.keys()] }),
    ...(transitive.size > 0 && { 'sts:TransitiveTagKeys': [...transitive] }),
    ...Object.fromEntries([...tags].map(([key, value]) => [`aws:RequestTag/${key}`, value])),
  };
  const needed = [
    'sts:AssumeRole',
    ...(sourceIdentity === undefined ? [] : ['sts:SetSourceIdentity']),
    ...(tags.size === 0 ? [] : ['sts:TagSession']),
  ];
  for (const action of needed) {
    if (!(await mayDo(state, caller, action, role.arn, context, role.trust))) throw denied(action);
  }
}
