import { makeKey, signToken, type TestKey } from '../../../src/identity/testing/keys.ts';
import { delegationByIssuer, eventOf, type Named } from '../delegating.ts';
import type { Change, Draft } from '../forge.ts';
import { call, READ, refused, refuses, type Send } from '../refusals.ts';

type Members = Record<string, unknown>;
type ChangeOf<D> = (draft: D) => void;

const now = () => Math.floor(Date.now() / 1000);
const another = (id: string) => `${id.slice(0, -1)}${id.endsWith('0') ? '1' : '0'}`;
const stranger = makeKey('stranger');
/** Who a part of the caller's task is given to. */
const heir: Named = { workload: 'agent-support', key: { thumbprint: 'A'.repeat(43) } };

function changing<D extends { header: Members; claims: Members }>(send: (change: ChangeOf<D>) => Send) {
  return {
    claims: (members: object): Send => send(({ claims }) => void Object.assign(claims, members)),
    header: (members: object): Send => send(({ header }) => void Object.assign(header, members)),
    stated: (members: object): Send => send(({ claims }) => void Object.assign(Object(claims['task']), members)),
    detail: (members: object): Send =>
      send(({ claims }) => {
        claims['authorization_details'] = [{ type: 'mayfly', entitlements: [READ], ...members }];
      }),
  };
}

async function delegate(delegation: string, to = refused().task.id) {
  return await call('POST', () => `/v1/tasks/${to}/children`, { body: { delegation } })();
}

const delegated =
  (change: Change): Send =>
  async () => {
    const { house, task } = refused();
    return await delegate(await delegationByIssuer(house, task, heir, change));
  };

/** One right delegation by the issuer of its parent, each time with one thing changed. */
export function refuseChangedDelegations(): void {
  const { claims, header, stated, detail } = changing<Draft>(delegated);

  refuses(400, 'request_malformed', { padding: delegated((draft) => void (draft.spell = (text) => `${text}=`)) });
  refuses(401, 'request_type_wrong', {
    'the type of a request': header({ typ: 'agent-task+jwt' }),
    'the type of an event': header({ typ: 'agent-task-event+jwt' }),
  });
  refuses(401, 'request_algorithm_refused', { 'no algorithm': header({ alg: 'none' }) });
  refuses(401, 'request_key_unknown', { 'an unknown key': header({ kid: 'another' }) });
  refuses(401, 'request_issuer_unknown', { 'an unknown issuer': claims({ iss: 'https://evil.example' }) });
  refuses(401, 'request_audience_wrong', { 'another audience': claims({ aud: 'https://another.example' }) });
  refuses(401, 'request_task_wrong', {
    'no parent': claims({ parent_task_id: undefined }),
    'another parent': delegated((draft) => void (draft.claims['parent_task_id'] = another(refused().task.id))),
  });
  refuses(401, 'request_expired', { 'one that has expired': claims({ exp: now() - 6, iat: now() - 60 }) });
  refuses(401, 'request_lifetime_too_long', { 'one that lives too long': claims({ exp: now() + 900 }) });
  refuses(401, 'request_deadline_past', { 'a task that is over': stated({ not_after: now() - 1 }) });
  refuses(401, 'request_key_missing', { 'no key': claims({ cnf: undefined }) });
  refuses(400, 'request_claims_invalid', {
    'nobody who acts': [claims({ act: undefined }), '$.act'],
    'an id of its own': [stated({ id: 'mine' }), '$.task'],
  });
  refuses(400, 'key_binding_unsupported', { 'a key that is none': claims({ cnf: { jkt: 'x' } }) });
  refuses(403, 'issuer_may_not_state', {
    'a workload that is not on the list': claims({ act: { sub: 'agent-else' } }),
    'who acts for itself': claims({ act: { sub: 'user:dana' } }),
  });
  refuses(400, 'invalid_authorization_details', { 'a wildcard': detail({ entitlements: ['ledger-db/*'] }) });
  refuses(403, 'excessive_delegation', {
    'an entitlement more': detail({ entitlements: [READ, 'ledger-db/read-payments'] }),
    'a param with another value': detail({ params: { tenant: 'evil' } }),
    'a param more': detail({ params: { region: 'eu' } }),
    'another purpose': stated({ purpose: 'answer.customer' }),
    'another phase': stated({ phase: 'closing' }),
    'a phase that there is not': stated({ phase: 'nowhere' }),
    'the same depth': stated({ max_depth: 1 }),
  });
}

const offered =
  (change: ChangeOf<{ header: Members; claims: Members; key: TestKey }>, to?: () => string): Send =>
  async () => {
    const { house, task } = refused();
    const key = refused().key ?? stranger;
    const header: Members = { typ: 'agent-delegation+jwt', kid: undefined, jwk: publicOf(key) };
    const claims: Members = {
      ...{ iss: task.id, aud: house.url, jti: crypto.randomUUID(), iat: now(), exp: now() + 60 },
      ...{ act: { sub: heir.workload }, cnf: { jkt: heir.key.thumbprint } },
      task: { purpose: task.purpose, not_after: Math.floor(Date.parse(task.not_after) / 1000), max_depth: 0 },
      authorization_details: [{ type: 'mayfly', entitlements: [READ] }],
    };
    const draft = { header, claims, key };
    change(draft);
    return await delegate(signToken(draft.key, draft.claims, draft.header), to?.());
  };

/** One right delegation by the key of its parent, each time with one thing changed. */
export function refuseChangedOffers(): void {
  const { claims, header } = changing(offered);

  refuses(401, 'request_key_unknown', {
    'another’s key': offered((draft) => {
      draft.header['jwk'] = publicOf(stranger);
      draft.key = stranger;
    }),
    'no key': header({ jwk: undefined }),
  });
  refuses(401, 'request_signature_invalid', { 'another’s signature': offered((draft) => void (draft.key = stranger)) });
  refuses(401, 'request_header_refused', { 'a name of a key': header({ kid: 'caller' }) });
  refuses(401, 'request_algorithm_refused', { 'a shared secret': header({ alg: 'HS256' }) });
  refuses(401, 'request_issuer_unknown', {
    'the name of another task': offered((draft) => void (draft.claims['iss'] = another(refused().task.id))),
  });
  refuses(401, 'request_audience_wrong', { 'no audience': claims({ aud: undefined }) });
  refuses(404, 'not_found', {
    'a parent that there is not': offered(
      () => {},
      () => another(refused().task.id),
    ),
  });
  refuses(409, 'task_ended', {
    'a parent that has ended': offered(
      (draft) => void (draft.claims['iss'] = refused().ended.id),
      () => refused().ended.id,
    ),
  });
}

const told =
  (change: Change): Send =>
  async () => {
    const { house, task } = refused();
    const event = await eventOf(house, task.id, { op: 'phase', phase: 'closing' }, change);
    return await call('POST', () => `/v1/tasks/${task.id}/events`, { body: { event } })();
  };

/** One right event of the caller's task, each time with one thing changed. */
export function refuseChangedEvents(): void {
  const { claims, header } = changing<Draft>(told);

  refuses(400, 'request_malformed', { padding: told((draft) => void (draft.spell = (text) => `${text}=`)) });
  refuses(400, 'duplicate_member', {
    'a claim twice': told((draft) => void (draft.payload = `{"op":"cancel",${JSON.stringify(draft.claims).slice(1)}`)),
  });
  refuses(401, 'request_type_wrong', {
    'the type of a request': header({ typ: 'agent-task+jwt' }),
    'the type of a delegation': header({ typ: 'agent-delegation+jwt' }),
    'the type of a token': header({ typ: 'JWT' }),
    'no type': header({ typ: undefined }),
  });
  refuses(401, 'request_algorithm_refused', {
    'a shared secret': header({ alg: 'HS256' }),
    'no algorithm': header({ alg: 'none' }),
  });
  refuses(401, 'request_header_refused', { 'a key of its own': header({ jwk: {} }) });
  refuses(401, 'request_key_unknown', { 'an unknown key': header({ kid: 'another' }) });
  refuses(401, 'request_issuer_unknown', { 'an unknown issuer': claims({ iss: 'https://evil.example' }) });
  refuses(401, 'request_audience_wrong', {
    'another audience': claims({ aud: 'https://another.example' }),
    'ours twice': told((draft) => void (draft.claims['aud'] = [draft.claims['aud'], draft.claims['aud']])),
  });
  refuses(401, 'request_expired', { 'one that has expired': claims({ iat: now() - 100, exp: now() - 6 }) });
  refuses(401, 'request_not_yet_valid', {
    'one from the future': told((draft) => void Object.assign(draft.claims, { iat: now() + 60, exp: now() + 90 })),
  });
  refuses(401, 'request_lifetime_too_long', { 'one that lives too long': claims({ exp: now() + 900 }) });
  refuses(401, 'request_task_wrong', {
    'another task': told((draft) => void (draft.claims['task_id'] = another(refused().task.id))),
  });
  refuses(400, 'request_claims_invalid', {
    'no task': [claims({ task_id: undefined }), '$.task_id'],
    'a task by another name': [
      told((draft) => void (draft.claims['task_id'] = refused().task.id.slice(5))),
      '$.task_id',
    ],
    'no jti': [claims({ jti: undefined }), '$.jti'],
    'nothing said': [claims({ op: undefined }), '$.op'],
    'something else said': [claims({ op: 'suspend' }), '$.op'],
    'no phase': [claims({ phase: undefined }), '$.phase'],
    'a reason that nobody could print': [claims({ reason: 'a\nb' }), '$.reason'],
  });
  refuses(409, 'phase_passed', { 'an earlier phase': claims({ phase: 'plan' }) });
  refuses(403, 'issuer_may_not_state', { 'a phase that there is not': claims({ phase: 'nowhere' }) });
}

function publicOf({ jwk: { kty, crv, x, y } }: TestKey): Members {
  return { kty, crv, x, y };
}

/** As they are right. */
export const rightDelegation = delegated(() => {});
export const rightOffer = offered(() => {});
export const rightEvent = told(() => {});
