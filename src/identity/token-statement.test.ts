import { describe, expect, it } from 'vitest';
import type { TokenIssuer } from '../catalog/types.ts';
import { createIdentity } from './index.ts';
import { changed, draft, finish } from './testing/drafts.ts';
import { signToken } from './testing/keys.ts';
import { AGENT, makeTrust, NOW, operatorClaims, refusal, SECONDS, SOURCE, workloadClaims } from './testing/trust.ts';

const made = makeTrust({ source: { require: { tid: 'tenant' } } });
const [source] = made.trust.workloadSources;
if (source === undefined) throw new Error('no source');

const issuer: TokenIssuer = {
  name: 'logins',
  dev: false,
  issuer: SOURCE,
  jwks: source.jwks,
  algorithms: source.algorithms,
  purposes: ['reconcile.invoices', 'answer.customer'],
  workloads: [`idp:${AGENT}`, 'idp:other'],
  maxTaskSeconds: 3600,
  autonomous: false,
  proofOfPossession: 'none',
  statement: {
    source: 'idp',
    purpose: { claim: 'job' },
    subjectClaim: 'actor',
    workload: null,
    entitlements: ['ledger-db/read-invoices'],
    params: { tenant: { claim: 'tenant' }, region: { value: 'eu' } },
    maxTtlSeconds: 300,
    notAfterSeconds: null,
    externalIdClaims: ['run_id', 'run_attempt'],
  },
};
const claims = {
  ...workloadClaims(),
  jti: 'token-1',
  tid: 'tenant',
  job: 'reconcile.invoices',
  actor: 'octocat',
  tenant: 'acme',
  run_id: '9001',
  run_attempt: 2,
};
type Change = Readonly<Record<string, unknown>>;

function stating(change: Partial<TokenIssuer> = {}, mapping: Partial<TokenIssuer['statement']> = {}) {
  const tokenIssuers = [{ ...issuer, ...change, statement: { ...issuer.statement, ...mapping } }];
  const context = { ...made.context, trust: { ...made.trust, tokenIssuers } };
  const identity = createIdentity();
  const verify = (compact: string) => identity.verifyTaskRequest(compact, context);
  const state = (more: Change = {}) => verify(signToken(made.workloadKey, { ...claims, ...more }));
  return { verify, state, ask: (more: Change = {}) => refusal(state(more)) };
}

describe('a token that states a task', () => {
  it('states what the catalog reads in its claims', async () => {
    expect(await stating().state()).toMatchObject({
      issuer: { name: 'logins', issuer: SOURCE },
      jti: 'token-1',
      txn: null,
      externalId: '9001/2',
      subject: 'octocat',
      actor: AGENT,
      actorSources: ['idp'],
      purpose: 'reconcile.invoices',
      phase: null,
      notAfter: new Date(NOW.getTime() + 600_000),
      maxDepth: 0,
      ceiling: {
        entitlements: ['ledger-db/read-invoices'],
        params: { tenant: 'acme', region: 'eu' },
        maxTtlSeconds: 300,
      },
    });
  });

  it('names itself by its digest when it has no jti', async () => {
    const { state } = stating({}, { externalIdClaims: [] });
    const [one, two] = await Promise.all([state({ jti: undefined }), state({ jti: undefined, exp: SECONDS + 601 })]);
    expect(one.jti).toMatch(/^sha-256:[\w-]{43}$/);
    expect(one.externalId).toBe(one.jti);
    expect(two.jti).not.toBe(one.jti);
    expect((await state({ jti: undefined })).jti).toBe(one.jti);
    expect((await state()).externalId).toBe('token-1');
  });

  it('ends some seconds after its birth, however late it is told', async () => {
    const { state } = stating({}, { notAfterSeconds: 900 });
    expect((await state({ iat: SECONDS - 100 })).notAfter).toEqual(new Date((SECONDS + 800) * 1000));
    expect((await state({ iat: SECONDS + 20 })).notAfter).toEqual(new Date((SECONDS + 900) * 1000));
    expect((await state({ iat: undefined })).notAfter).toEqual(new Date((SECONDS + 900) * 1000));
  });

  it('may name another workload than its own, by a claim or always the same', async () => {
    const byClaim = stating({}, { workload: { source: 'idp', claim: 'azp' } });
    expect(await byClaim.state({ azp: 'other' })).toMatchObject({ actor: 'other', actorSources: ['idp'] });
    expect(await byClaim.ask({ azp: 'stranger' })).toBe('issuer_may_not_state');
    expect(await byClaim.ask()).toBe('request_claims_invalid');
    const fixed = stating({}, { workload: { source: 'idp', subject: 'other' } });
    expect(await fixed.state()).toMatchObject({ actor: 'other' });
  });

  it.each<readonly [name: string, change: Change, code: string]>([
    ['as it comes', {}, 'accepted'],
    ['of another workload', { sub: 'stranger' }, 'issuer_may_not_state'],
    ['for a purpose that is not its issuer’s', { job: 'send.money' }, 'issuer_may_not_state'],
    ['on behalf of the agent itself', { actor: AGENT }, 'issuer_may_not_state'],
    ['without its purpose', { job: undefined }, 'request_claims_invalid'],
    ['with a list of purposes', { job: ['reconcile.invoices'] }, 'request_claims_invalid'],
    ['without the one it is for', { actor: undefined }, 'request_claims_invalid'],
    ['without a param', { tenant: undefined }, 'request_claims_invalid'],
    ['with a param that is an object', { tenant: {} }, 'request_claims_invalid'],
    ['without its run', { run_id: undefined }, 'request_claims_invalid'],
    ['with a run that is empty', { run_id: '' }, 'request_claims_invalid'],
    ['with a jti that is no text', { jti: 7 }, 'request_claims_invalid'],
    ['with a jti that is null', { jti: null }, 'request_claims_invalid'],
    ['that its source would not believe', { tid: 'other' }, 'workload_token_invalid'],
    ['for another audience', { aud: 'https://other.example' }, 'workload_token_audience_wrong'],
    ['that has expired', { exp: SECONDS - 5 }, 'workload_token_expired'],
    ['of an unknown issuer', { iss: 'https://other.example' }, 'workload_token_issuer_unknown'],
  ])('%s', async (_name, change, code) => {
    expect(await stating().ask(change)).toBe(code);
  });

  it('on behalf of the agent itself only where its issuer may', async () => {
    expect(await stating({ autonomous: true }).ask({ actor: AGENT })).toBe('accepted');
  });

  it('states nothing when it is an operator’s, or of a source that states none', async () => {
    expect(await refusal(stating().verify(signToken(made.operatorKey, operatorClaims())))).toBe(
      'request_issuer_unknown',
    );
    expect(await stating({}, { source: 'elsewhere' }).ask()).toBe('request_issuer_unknown');
  });
});

describe('a task request beside it', () => {
  it('is still verified as one', async () => {
    const { verify } = stating();
    expect(await verify(finish(draft(made.issuerKey)))).toMatchObject({ issuer: { name: 'orchestrator' } });
  });

  it('is no token, and no token is a task request', async () => {
    const { verify } = stating();
    const asToken = changed(made.issuerKey, ({ header }) => void (header['typ'] = 'JWT'));
    expect(await refusal(verify(asToken))).toBe('workload_token_issuer_unknown');
    const asRequest = signToken(made.workloadKey, claims, { typ: 'agent-task+jwt' });
    expect(await refusal(verify(asRequest))).toBe('request_issuer_unknown');
  });

  it('is all there is where the catalog knows no issuer of tokens', async () => {
    const identity = createIdentity();
    const token = signToken(made.workloadKey, claims);
    expect(await refusal(identity.verifyTaskRequest(token, made.context))).toBe('request_type_wrong');
  });
});

it('states no task where it is bound to a certificate: that will be another before the task ends', async () => {
  expect(await stating().ask({ cnf: { 'x5t#S256': 'A'.repeat(43) } })).toBe('key_binding_unsupported');
});
