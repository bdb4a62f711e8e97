import { describe, expect, it } from 'vitest';
import type { TokenIssuer } from '../catalog/types.ts';
import { createIdentity } from './index.ts';
import { signText } from './testing/keys.ts';
import { AUDIENCE, ISSUER, makeTrust, NOW, refusal, SECONDS, SOURCE } from './testing/trust.ts';

// What is wrong with an event, and what passes for none, is shown over HTTP: test/integration/task-events.test.ts.

const TASK = '0198c0de-7a11-7000-8000-000000000001';
const made = makeTrust();
const identity = createIdentity();

function verify(more: object, key = made.issuerKey, context = made.context) {
  const claims = { iss: ISSUER, aud: AUDIENCE, jti: 'e-1', iat: SECONDS, exp: SECONDS + 60, task_id: `task_${TASK}` };
  const header = { typ: 'agent-task-event+jwt', alg: 'ES256', kid: key.kid };
  return identity.verifyTaskEvent(
    signText(key, JSON.stringify(header), JSON.stringify({ ...claims, ...more })),
    context,
  );
}

describe('an event', () => {
  it('says one thing of one task', async () => {
    const event = { issuer: made.trust.taskIssuers[0], jti: 'e-1', payloadDigest: expect.any(Buffer), taskId: TASK };
    expect(await verify({ op: 'complete' })).toEqual({ ...event, op: 'complete', reason: null });
    expect(await verify({ op: 'cancel', reason: 'by hand' })).toEqual({ ...event, op: 'cancel', reason: 'by hand' });
    expect(await verify({ op: 'phase', phase: 'closing' })).toEqual({
      ...event,
      ...{ op: 'phase', phase: 'closing', reason: null },
    });
  });

  it('is not signed by who states tasks by tokens, with a word why', async () => {
    const [source] = made.trust.workloadSources;
    const [orchestrator] = made.trust.taskIssuers;
    if (source === undefined || orchestrator === undefined) throw new Error('there is one of each');
    const issuer: TokenIssuer = {
      ...{ ...orchestrator, name: 'logins', issuer: SOURCE, jwks: source.jwks, algorithms: source.algorithms },
      statement: {
        ...{ source: 'idp', purpose: { value: 'reconcile.invoices' }, subjectClaim: 'sub', workload: null },
        ...{ entitlements: [], params: {}, maxTtlSeconds: null, notAfterSeconds: null, externalIdClaims: [] },
      },
    };
    const context = { trust: { ...made.trust, tokenIssuers: [issuer] }, audience: AUDIENCE, now: NOW };
    const told = verify({ iss: SOURCE, op: 'cancel' }, made.workloadKey, context);
    await expect(told).rejects.toThrow('states tasks by tokens');
    expect(await refusal(told)).toBe('request_issuer_unknown');
  });
});
