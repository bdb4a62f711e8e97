import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { MayflyError } from '../domain/errors.ts';
import { createIdentity } from './index.ts';
import { changed, details, draft, finish, parts, task } from './testing/drafts.ts';
import { signInput } from './testing/keys.ts';
import { AGENT, makeTrust, NOW, refusal, SECONDS } from './testing/trust.ts';

const { trust, context, issuerKey } = makeTrust();
const identity = createIdentity();
const valid = finish(draft(issuerKey));

describe('a task request', () => {
  it('says all that was stated, and nothing else', async () => {
    const request = valid;
    const payloadBytes = Buffer.from(request.split('.')[1] ?? '', 'base64url');
    expect(await identity.verifyTaskRequest(request, context)).toStrictEqual({
      issuer: trust.taskIssuers[0],
      jti: 'request-1',
      txn: 'txn-1',
      externalId: 'run-4711',
      subject: 'user:ana',
      actor: AGENT,
      actorSources: ['idp'],
      keyThumbprint: null,
      deliveryThumbprint: null,
      purpose: 'reconcile.invoices',
      phase: 'execute',
      notAfter: new Date(NOW.getTime() + 1_800_000),
      maxDepth: 1,
      intentHash: `sha-256:${'0'.repeat(64)}`,
      ceiling: { entitlements: ['ledger-db/read-invoices'], params: { tenant: 'acme' }, maxTtlSeconds: 300 },
      payloadDigest: createHash('sha256').update(payloadBytes).digest(),
    });
  });

  it('has defaults for what may be left out', async () => {
    const request = changed(issuerKey, (r) => {
      for (const name of ['phase', 'max_depth', 'intent_hash']) Reflect.deleteProperty(r.claims.task, name);
      Reflect.deleteProperty(r.claims, 'txn');
      details(r, { params: undefined, max_ttl_seconds: undefined, entitlements: ['b/b', 'a/a', 'b/b'] });
    });
    expect(await identity.verifyTaskRequest(request, context)).toMatchObject({
      txn: null,
      phase: null,
      maxDepth: 0,
      intentHash: null,
      ceiling: { entitlements: ['b/b', 'a/a'], params: {}, maxTtlSeconds: null },
    });
  });

  it('is the same request under another spelling of a valid signature', async () => {
    const order = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;
    const request = valid;
    const twin = parts(request, (header, body) => {
      const signature = signInput(issuerKey, `${header}.${body}`);
      const s = BigInt(`0x${signature.subarray(32).toString('hex')}`);
      const flipped = Buffer.from((order - s).toString(16).padStart(64, '0'), 'hex');
      return `${header}.${body}.${Buffer.concat([signature.subarray(0, 32), flipped]).toString('base64url')}`;
    });
    expect(twin).not.toBe(request);
    const [first, second] = await Promise.all(
      [request, twin].map((token) => identity.verifyTaskRequest(token, context)),
    );
    expect(second?.payloadDigest).toStrictEqual(first?.payloadDigest);
  });

  it('names the key of its workload, and must unless its issuer is exempt', async () => {
    const jkt = 'A'.repeat(43);
    const required = makeTrust({ issuer: { proofOfPossession: 'required' } });
    const bound = (own: typeof issuerKey) => changed(own, (r) => (r.claims['cnf'] = { jkt }));
    expect(await identity.verifyTaskRequest(bound(required.issuerKey), required.context)).toMatchObject({
      keyThumbprint: jkt,
    });
    expect(await identity.verifyTaskRequest(bound(issuerKey), context)).toMatchObject({ keyThumbprint: jkt });
    const unbound = finish(draft(required.issuerKey));
    expect(await refusal(identity.verifyTaskRequest(unbound, required.context))).toBe('request_key_missing');
  });

  it('may be autonomous where the catalog says so', async () => {
    const { context: lenient, issuerKey: key } = makeTrust({ issuer: { autonomous: true } });
    const request = changed(key, (r) => (r.claims.sub = AGENT));
    expect(await identity.verifyTaskRequest(request, lenient)).toMatchObject({ subject: AGENT, actor: AGENT });
  });

  it('names the sources from which its workload may come, fewer where act.iss stands', async () => {
    const [idp] = trust.workloadSources;
    if (!idp) throw new Error('no source');
    const more = ['ci', 'unlisted'].map((name) => ({ ...idp, name, issuer: `https://${name}.example` }));
    const { context: wide, issuerKey: key } = makeTrust({ issuer: { workloads: [`idp:${AGENT}`, `ci:${AGENT}`] } });
    const sources = { ...wide, trust: { ...wide.trust, workloadSources: [...wide.trust.workloadSources, ...more] } };
    const statement = (iss?: string) =>
      identity.verifyTaskRequest(
        changed(key, (r) => Object.assign(r.claims.act, { iss })),
        sources,
      );
    expect((await statement()).actorSources).toStrictEqual(['idp', 'ci']);
    expect((await statement('https://ci.example')).actorSources).toStrictEqual(['ci']);
    expect(await refusal(statement('https://unlisted.example'))).toBe('issuer_may_not_state');
  });

  it('is refused when two issuers have one name', async () => {
    const twice = { ...trust, taskIssuers: [...trust.taskIssuers, ...trust.taskIssuers] };
    expect(await refusal(identity.verifyTaskRequest(valid, { ...context, trust: twice }))).toBe(
      'request_issuer_unknown',
    );
  });

  it('is refused though the catalog should list a symmetric algorithm, or none at all', async () => {
    const { context: careless, issuerKey: key } = makeTrust({ issuer: { algorithms: ['HS256', 'none', 'ES256'] } });
    for (const alg of ['HS256', 'none']) {
      const request = changed(key, (r) => (r.header['alg'] = alg));
      expect(await refusal(identity.verifyTaskRequest(request, careless))).toBe('request_algorithm_refused');
    }
  });

  it('is judged by the time that it is given, to the second', async () => {
    const request = valid;
    const at = (seconds: number) =>
      refusal(identity.verifyTaskRequest(request, { ...context, now: new Date((SECONDS + seconds) * 1000) }));
    expect(await Promise.all([-31, -30, 0, 124.999, 125].map(at))).toStrictEqual([
      'request_not_yet_valid',
      'accepted',
      'accepted',
      'accepted',
      'request_expired',
    ]);
  });

  it('tells where a claim is wrong, by path, without repeating its value', async () => {
    const request = changed(issuerKey, (r) => {
      task(r, { max_depth: 99, secret_plan: 1 });
      r.claims.jti = 'x'.repeat(300);
    });
    const error: unknown = await identity.verifyTaskRequest(request, context).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(MayflyError);
    if (!(error instanceof MayflyError)) return;
    expect(error.errors.map(({ path }) => path).sort()).toStrictEqual(['$.jti', '$.task', '$.task.max_depth']);
    expect(JSON.stringify(error.errors)).not.toContain('xxxx');
    const entry: unknown = await identity
      .verifyTaskRequest(
        changed(issuerKey, (r) => details(r, { entitlements: ['ok/ok', 'Bad'] })),
        context,
      )
      .catch((reason: unknown) => reason);
    expect(entry).toMatchObject({ errors: [{ path: '$.authorization_details[0].entitlements[1]' }] });
  });
});
