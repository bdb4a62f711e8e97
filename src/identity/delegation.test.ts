import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import type { TaskIssuer } from '../catalog/types.ts';
import type { TaskId } from '../domain/ids.ts';
import { createIdentity } from './index.ts';
import { makeKey, signText, type TestKey } from './testing/keys.ts';
import { makeProof } from './testing/proofs.ts';
import { AUDIENCE, ISSUER, makeTrust, NOW, refusal, SECONDS, SOURCE } from './testing/trust.ts';
import type { Delegating } from './types.ts';
import { vetPublicKey } from './vet-keys.ts';

const PARENT = '0198c0de-7a11-7000-8000-000000000001' as TaskId;
const OTHER = 'spiffe://prod.example/agent/other';
const identity = createIdentity();
const workloads = [`idp:${OTHER}`];
const key = makeKey('agent');
const jkt = thumbprintOf(key);
const childsKey = thumbprintOf(makeKey('child'));
const made = makeTrust({ issuer: { workloads, proofOfPossession: 'required' } });

function thumbprintOf({ jwk, alg }: TestKey): string {
  return vetPublicKey(jwk, [alg]).thumbprint;
}

interface Draft {
  header: Record<string, unknown>;
  claims: Record<string, unknown>;
  task: Record<string, unknown>;
  details: Record<string, unknown>;
  key: TestKey;
  payload?: string;
  parent: Partial<Delegating>;
  trust: ReturnType<typeof makeTrust>;
  spell?: (token: string) => string;
}
type Change = (draft: Draft) => void;

/** A delegation by the task's own key, or by its issuer, that holds but for the change. */
function verify(change: Change = () => {}, by: 'owner' | 'issuer' = 'owner') {
  const { kid: _, alg: _alg, use: _use, ...jwk } = key.jwk;
  const draft: Draft = {
    header: { typ: 'agent-delegation+jwt', alg: 'ES256', ...(by === 'owner' ? { jwk } : { kid: made.issuerKey.kid }) },
    claims: {
      ...{ aud: AUDIENCE, jti: 'd-1', iat: SECONDS, exp: SECONDS + 120, act: { sub: OTHER }, cnf: { jkt: childsKey } },
      ...(by === 'owner' ? { iss: `task_${PARENT}` } : { iss: ISSUER, parent_task_id: `task_${PARENT}` }),
    },
    task: { purpose: 'reconcile.invoices', not_after: SECONDS + 900 },
    details: { type: 'mayfly', entitlements: ['ledger-db/read-invoices'] },
    key: by === 'owner' ? key : made.issuerKey,
    parent: {},
    trust: made,
  };
  change(draft);
  const { header, claims, task, details } = draft;
  const payload = draft.payload ?? JSON.stringify({ ...claims, task, authorization_details: [details] });
  const token = signText(draft.key, JSON.stringify(header), payload);
  const parent: Delegating = {
    ...{ id: PARENT, issuer: ISSUER, subject: 'user:ana', keyThumbprint: jkt },
    ...draft.parent,
  };
  return identity.verifyDelegation(draft.spell?.(token) ?? token, parent, draft.trust.context);
}

const claims =
  (members: object): Change =>
  (draft) =>
    void Object.assign(draft.claims, members);
const header =
  (members: object): Change =>
  (draft) =>
    void Object.assign(draft.header, members);
const task =
  (members: object): Change =>
  (draft) =>
    void Object.assign(draft.task, members);
const details =
  (members: object): Change =>
  (draft) =>
    void Object.assign(draft.details, members);
const trusting =
  (issuer: Partial<TaskIssuer>, source: object = {}): Change =>
  (draft) => {
    const other = makeTrust({ issuer: { workloads, ...issuer }, source });
    draft.trust = other;
  };

describe('a delegation', () => {
  it('by the task’s own key says what is given to whom', async () => {
    expect(await verify()).toEqual({
      iss: `task_${PARENT}`,
      jti: 'd-1',
      payloadDigest: expect.any(Buffer),
      expiresAt: new Date(NOW.getTime() + 120_000),
      workload: { source: 'idp', subject: OTHER },
      keyThumbprint: childsKey,
      deliveryThumbprint: null,
      purpose: 'reconcile.invoices',
      phase: null,
      notAfter: new Date(NOW.getTime() + 900_000),
      maxDepth: 0,
      ceiling: { entitlements: ['ledger-db/read-invoices'], params: {}, maxTtlSeconds: null },
    });
  });

  it('by the issuer says the same, in the issuer’s name', async () => {
    expect(await verify(undefined, 'issuer')).toMatchObject({ iss: ISSUER, jti: 'd-1', maxDepth: 0 });
  });

  it('is known by its payload, whatever its signature', async () => {
    const tokens: string[] = [];
    const spied: Change = (draft) => void (draft.spell = (token) => tokens[tokens.push(token) - 1] ?? '');
    const [one, two] = [await verify(spied), await verify(spied)];
    expect(new Set(tokens).size).toBe(2);
    const payload = Buffer.from(tokens[0]?.split('.')[1] ?? '', 'base64url');
    for (const { payloadDigest } of [one, two])
      expect(payloadDigest).toEqual(createHash('sha256').update(payload).digest());
  });

  it.each<[string, string, Change]>([
    ['request_malformed', 'padded', (draft) => void (draft.spell = (token) => `${token}=`)],
    ['request_malformed', 'that is no JSON', (draft) => void (draft.payload = 'x')],
    ['duplicate_member', 'that says something twice', (draft) => void (draft.payload = '{"iss":"a","iss":"b"}')],
    ['request_type_wrong', 'of no type', header({ typ: undefined })],
    ['request_type_wrong', 'that is a task request', header({ typ: 'agent-task+jwt' })],
    ['request_type_wrong', 'that is an event', header({ typ: 'agent-task-event+jwt' })],
    ['request_type_wrong', 'that is a proof', header({ typ: 'dpop+jwt' })],
    ['request_type_wrong', 'in capitals', header({ typ: 'AGENT-DELEGATION+JWT' })],
    ['request_algorithm_refused', 'signed by nobody', header({ alg: 'none' })],
    ['request_algorithm_refused', 'signed with a shared secret', header({ alg: 'HS256' })],
    ['request_header_refused', 'that names a key beside its own', header({ kid: 'one' })],
    ['request_header_refused', 'that points to a key', header({ jku: 'https://evil.example' })],
    ['request_header_refused', 'with a critical header', header({ crit: ['exp'] })],
    ['request_key_unknown', 'without a key', header({ jwk: undefined })],
    [
      'request_key_unknown',
      'by another key',
      (draft) => {
        const other = makeKey('other');
        draft.key = other;
        draft.header['jwk'] = { kty: other.jwk['kty'], crv: other.jwk['crv'], x: other.jwk['x'], y: other.jwk['y'] };
      },
    ],
    ['request_key_unknown', 'with a private key', header({ jwk: key.privateKey.export({ format: 'jwk' }) })],
    ['request_key_unknown', 'of a task that names no key', (draft) => void (draft.parent = { keyThumbprint: null })],
    ['request_signature_invalid', 'signed by another', (draft) => void (draft.key = makeKey('other'))],
    ['request_issuer_unknown', 'of another task', claims({ iss: 'task_0198c0de-7a11-7000-8000-000000000002' })],
    ['request_issuer_unknown', 'of a bare id', claims({ iss: PARENT })],
    ['request_issuer_unknown', 'of nobody', claims({ iss: undefined })],
    ['request_audience_wrong', 'for somebody else', claims({ aud: 'https://other.example' })],
    ['request_audience_wrong', 'for two', claims({ aud: [AUDIENCE, AUDIENCE] })],
    ['request_not_yet_valid', 'from the future', claims({ iat: SECONDS + 31 })],
    ['request_expired', 'that expired', claims({ iat: SECONDS - 60, exp: SECONDS - 5 })],
    ['request_lifetime_too_long', 'that lives too long', claims({ exp: SECONDS + 301 })],
    ['request_claims_invalid', 'that never expires', claims({ exp: undefined })],
    ['request_claims_invalid', 'that ends before it begins', claims({ exp: SECONDS })],
    ['request_claims_invalid', 'without a jti', claims({ jti: undefined })],
    ['request_claims_invalid', 'to nobody', claims({ act: undefined })],
    ['request_claims_invalid', 'with a depth below nothing', task({ max_depth: -1 })],
    ['request_claims_invalid', 'with a purpose of no kind', task({ purpose: 5 })],
    ['request_claims_invalid', 'that names its task', task({ id: 'mine' })],
    ['request_claims_invalid', 'with an intent of its own', task({ intent_hash: `sha-256:${'0'.repeat(64)}` })],
    ['request_deadline_past', 'of a task that is over', task({ not_after: SECONDS })],
    ['key_binding_unsupported', 'for a key in another way', claims({ cnf: { jwk: {} } })],
    ['request_key_missing', 'to a workload without a key', (draft) => Reflect.deleteProperty(draft.claims, 'cnf')],
    ['invalid_authorization_details', 'of nothing', details({ entitlements: [] })],
    ['invalid_authorization_details', 'of another kind', details({ type: 'other' })],
    ['invalid_authorization_details', 'with an unknown field', details({ actions: ['read'] })],
    [
      'issuer_may_not_state',
      'to a workload that the issuer may not name',
      claims({ act: { sub: 'spiffe://prod.example/x' } }),
    ],
    ['issuer_may_not_state', 'to a workload of another source', claims({ act: { sub: OTHER, iss: ISSUER } })],
    ['issuer_may_not_state', 'to who it is on behalf of', (draft) => void (draft.parent = { subject: OTHER })],
    [
      'issuer_may_not_state',
      'below a task whose issuer is not trusted any more',
      (draft) => void (draft.parent = { issuer: 'https://gone.example' }),
    ],
  ])('is refused as %s: one %s', async (code, _what, change) => {
    expect(await refusal(verify(change))).toBe(code);
  });

  it.each<[string, string, Change]>([
    [
      'request_task_wrong',
      'for another parent',
      claims({ parent_task_id: 'task_0198c0de-7a11-7000-8000-000000000002' }),
    ],
    ['request_task_wrong', 'for no parent', claims({ parent_task_id: undefined })],
    [
      'request_task_wrong',
      'for a task of another issuer',
      (draft) => void (draft.parent = { issuer: 'https://o.example' }),
    ],
    ['request_header_refused', 'with a key in its header', header({ jwk: {} })],
    ['request_key_unknown', 'by an unknown key', header({ kid: 'other' })],
    ['request_algorithm_refused', 'with an algorithm that the catalog does not list', header({ alg: 'ES384' })],
    ['request_issuer_unknown', 'by a source of workloads', claims({ iss: SOURCE })],
    ['request_signature_invalid', 'signed by the owner', (draft) => void (draft.key = key)],
  ])('by an issuer is refused as %s: one %s', async (code, _what, change) => {
    expect(await refusal(verify(change, 'issuer'))).toBe(code);
  });

  it('may leave the key out where the issuer is exempt', async () => {
    const exempt = trusting({ proofOfPossession: 'none' });
    const without: Change = (draft) => {
      exempt(draft);
      Reflect.deleteProperty(draft.claims, 'cnf');
    };
    expect((await verify(without)).keyThumbprint).toBeNull();
  });

  it('to an agent on its own behalf holds where the issuer may state that', async () => {
    const autonomous: Change = (draft) => {
      trusting({ autonomous: true })(draft);
      draft.parent = { subject: OTHER };
    };
    expect((await verify(autonomous)).workload.subject).toBe(OTHER);
  });

  it('says which source its workload is of where several have one of that name', async () => {
    const several = (act: object): Change => {
      return (draft) => {
        const { trust, context } = makeTrust({ issuer: { workloads: [...workloads, `two:${OTHER}`] } });
        const [source] = trust.workloadSources;
        if (source === undefined) throw new Error('there is one');
        const workloadSources = [source, { ...source, name: 'two', issuer: 'https://two.example' }];
        draft.trust = { ...made, context: { ...context, trust: { ...trust, workloadSources } } };
        draft.claims['act'] = act;
      };
    };
    expect(await refusal(verify(several({ sub: OTHER })))).toBe('issuer_may_not_state');
    expect((await verify(several({ sub: OTHER, iss: 'https://two.example' }))).workload.source).toBe('two');
  });

  it('is not a proof by the same key, however alike', async () => {
    const call = { method: 'POST', url: `${AUDIENCE}/v1/tasks`, token: 'x', now: NOW };
    const parent = { id: PARENT, issuer: ISSUER, subject: 'user:ana', keyThumbprint: jkt };
    expect(await refusal(identity.verifyDelegation(makeProof(key, call), parent, made.context))).toBe(
      'request_type_wrong',
    );
  });
});
