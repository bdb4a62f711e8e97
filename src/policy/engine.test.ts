import { afterEach, describe, expect, test } from 'vitest';
import type { PolicySet } from '../catalog/types.ts';
import { createPolicyEngine, type OwnedPolicyEngine } from './engine.ts';
import { designExample, policySet, sampleRequest } from './testing/sample.ts';
import type { DecisionRequest } from './types.ts';

const opened: OwnedPolicyEngine[] = [];
afterEach(() => {
  for (const engine of opened.splice(0)) engine.close();
});

function engineFor(set: PolicySet | string, digest = 'sha256:one'): OwnedPolicyEngine {
  const engine = createPolicyEngine(typeof set === 'string' ? policySet(set) : set, digest);
  opened.push(engine);
  return engine;
}
const all = '(principal, action, resource)';
const task = (changes: Partial<DecisionRequest['task']>): DecisionRequest => ({
  ...sampleRequest,
  task: { ...sampleRequest.task, ...changes },
});
const inTree = (changes: Partial<DecisionRequest['history']['tree']>): DecisionRequest => ({
  ...sampleRequest,
  history: { ...sampleRequest.history, tree: { ...sampleRequest.history.tree, ...changes } },
});

describe('the design’s example', () => {
  test('permits what it names, for as long as it says', () => {
    const engine = engineFor(designExample);
    expect(engine.digest).toBe('sha256:one');
    expect(engine.decide(sampleRequest)).toMatchObject({
      permitted: true,
      policies: ['reconcile-reads-invoices'],
      maxTtlSeconds: 300,
      reasons: [],
      errors: [],
    });
  });

  test.each([
    ['another purpose', task({ purpose: 'answer.customer' })],
    ['the closing phase', task({ phase: 'closing' })],
    ['a sink in the tree', inTree({ liveGrants: 1, sensitiveSinks: 1 })],
    [
      'another entitlement',
      { ...sampleRequest, entitlement: { ...sampleRequest.entitlement, name: 'ledger-db/other' } },
    ],
  ])('denies %s', (_what, request) => {
    expect(engineFor(designExample).decide(request)).toMatchObject({
      permitted: false,
      policies: [],
      maxTtlSeconds: null,
      errors: [],
    });
  });
});

describe('annotations', () => {
  test('the cap is the least of the permits that determined it', () => {
    const engine = engineFor(`
@id("long") @max_ttl("1h") permit ${all};
@id("short") @max_ttl("90s") permit ${all};
@id("uncapped") permit ${all};
@id("elsewhere") @max_ttl("1s") permit ${all} when { context.tree.live_grants > 100 };`);
    expect(engine.decide(sampleRequest)).toMatchObject({
      policies: ['long', 'short', 'uncapped'],
      maxTtlSeconds: 90,
    });
  });

  test('without one there is no cap', () => {
    expect(engineFor(`@id("a") permit ${all};`).decide(sampleRequest).maxTtlSeconds).toBeNull();
  });

  test('a refusal tells the reasons of the forbids that determined it, and no cap', () => {
    const engine = engineFor(`
@id("a") @max_ttl("1h") permit ${all};
@id("b") @reason("Not in production.") forbid ${all} when { resource is Mayfly::Entitlement && resource.target.environment == "production" };
@id("c") forbid ${all};
@id("d") @reason("Not today.") forbid ${all} when { context.tree.live_grants > 100 };`);
    expect(engine.decide(sampleRequest)).toMatchObject({
      permitted: false,
      policies: ['b', 'c'],
      maxTtlSeconds: null,
      reasons: ['Not in production.'],
    });
  });

  test('malformed ones are refused also when they come from storage', () => {
    const set = policySet(`@id("a") @max_ttl("5m") permit ${all};`);
    const policies = set.policies.map((policy) => ({ ...policy, annotations: { id: 'a', max_ttl: 'soon' } }));
    expect(() => engineFor({ ...set, policies })).toThrow(
      expect.objectContaining({
        code: 'catalog_invalid',
        errors: [expect.objectContaining({ path: 'policies/sample.cedar:1' })],
      }),
    );
  });
});

describe('a permit that demands something', () => {
  const without = task({ proofOfPossession: false });

  test('of the task’s key does not hold without one, and the caller is told why', () => {
    const engine = engineFor(`@id("a") @require_dpop permit ${all};\n@id("b") permit ${all};`);
    expect(engine.decide(sampleRequest)).toMatchObject({ permitted: true, policies: ['a', 'b'] });
    const decision = engine.decide(without);
    expect(decision).toMatchObject({ permitted: false, policies: ['a'], errors: [] });
    expect(decision.reasons).toEqual([expect.stringContaining('@require_dpop')]);
    expect(engine.replay(decision.inputs)).toEqual(decision);
    expect(engineFor(`@id("b") permit ${all};`).decide(without).permitted).toBe(true);
  });

  test('of an approval names each group once, whatever the others say', () => {
    const engine = engineFor(`@id("a") @require_approval("finance") permit ${all};
      @id("b") permit ${all}; @id("c") @require_approval("security") permit ${all};
      @id("d") @require_approval("finance") permit ${all};`);
    expect(engine.decide(sampleRequest)).toMatchObject({ permitted: true, approvalGroups: ['finance', 'security'] });
    expect(engineFor(`@id("b") permit ${all};`).decide(sampleRequest).approvalGroups).toEqual([]);
  });

  test('of sealed delivery says so, whatever the others say', () => {
    const engine = engineFor(`@id("a") @require_sealed_delivery permit ${all};\n@id("b") permit ${all};`);
    expect(engine.decide(sampleRequest)).toMatchObject({ permitted: true, sealedDelivery: true });
    expect(engineFor(`@id("b") permit ${all};`).decide(sampleRequest).sealedDelivery).toBe(false);
  });

  test('of one call at a time says so, and caps the life at a minute', () => {
    const decide = (text: string) => engineFor(text).decide(sampleRequest);
    const call = `@id("a") @per_call permit ${all};`;
    expect(decide(`${call}\n@id("b") @max_ttl("1h") permit ${all};`)).toMatchObject({
      perCall: true,
      maxTtlSeconds: 60,
    });
    expect(decide(`${call}\n@id("b") @max_ttl("30s") permit ${all};`)).toMatchObject({
      perCall: true,
      maxTtlSeconds: 30,
    });
    expect(decide(`@id("b") permit ${all};`)).toMatchObject({ perCall: false, maxTtlSeconds: null });
  });

  test('demands nothing where it does not hold', () => {
    const engine =
      engineFor(`@id("a") @require_dpop @require_sealed_delivery permit ${all} when { context.own.grants > 100 };
@id("b") permit ${all};`);
    expect(engine.decide(without)).toMatchObject({ permitted: true, sealedDelivery: false });
  });
});

describe('what can not be taken back', () => {
  const irrevocable: DecisionRequest = { ...sampleRequest, guarantee: 'irrevocable' };
  const broad = `@id("broad") @max_ttl("1h") permit ${all};`;
  const byName = `@id("by-name") @accepts("irrevocable") permit ${all} when { principal.purpose == "reconcile.invoices" };`;

  test('is denied by a permit that does not accept it by name, and the caller is told why', () => {
    const engine = engineFor(broad);
    const decision = engine.decide(irrevocable);
    expect(decision).toMatchObject({ permitted: false, policies: [], maxTtlSeconds: null, errors: [] });
    expect(decision.reasons).toEqual([expect.stringContaining('irrevocable')]);
    expect(engine.replay(decision.inputs)).toEqual(decision);
    for (const guarantee of ['immediate', 'propagating', 'expiry-only'] as const)
      expect(engine.decide({ ...irrevocable, guarantee }).permitted).toBe(true);
  });

  test('is permitted by one that does, as long as that one itself permits', () => {
    const engine = engineFor(broad + byName);
    expect(engine.decide(irrevocable)).toMatchObject({
      permitted: true,
      policies: ['broad', 'by-name'],
      maxTtlSeconds: 3600,
    });
    const other = { ...irrevocable, task: { ...irrevocable.task, purpose: 'answer.customer' } };
    expect(engine.decide(other).permitted).toBe(false);
    expect(engine.decide({ ...other, guarantee: 'immediate' }).permitted).toBe(true);
  });

  test('a forbid stands above it', () => {
    const engine = engineFor(`${broad}${byName}@id("no") @reason("Never.") forbid ${all};`);
    expect(engine.decide(irrevocable)).toMatchObject({ permitted: false, policies: ['no'], reasons: ['Never.'] });
  });
});

describe('a decision that cannot be made is a deny with an error', () => {
  test('a forbid that fails', () => {
    const decision = engineFor(`
@id("a") permit ${all};
@id("b") forbid ${all} when { context.tree.live_grants * 9223372036854775807 > 0 };`).decide(sampleRequest);
    expect(decision).toMatchObject({ permitted: false, maxTtlSeconds: null });
    expect(decision.errors).toEqual([expect.stringMatching(/^b: integer overflow/)]);
  });

  test.each([
    ['a date that is none', { ...sampleRequest, now: new Date(Number.NaN) }],
    ['a TTL that is none', { ...sampleRequest, ttlSeconds: Number.NaN }],
    ['a count with a fraction', inTree({ liveGrants: 0.5 })],
    ['half a character', task({ subject: '\ud800' })],
  ])('%s', (_what, request) => {
    const decision = engineFor(`@id("a") permit ${all};`).decide(request);
    expect(decision.permitted).toBe(false);
    expect(decision.errors).not.toEqual([]);
  });

  test('an engine that was closed', () => {
    const engine = engineFor(`@id("a") permit ${all};`);
    engine.close();
    expect(engine.decide(sampleRequest)).toMatchObject({ permitted: false, errors: ['this policy set is closed'] });
  });
});

describe('what policies know', () => {
  const permits = (clause: string, request = sampleRequest): boolean =>
    engineFor(
      `@id("a") permit (principal is Mayfly::Task, action, resource is Mayfly::Entitlement) when { ${clause} };`,
    ).decide(request).permitted;

  test.each([
    'principal in Mayfly::Workload::"dev:agent-recon"',
    'principal.workload.source == "dev" && principal.workload.subject == "agent-recon"',
    'principal.issuer == "orchestrator" && principal.subject == "user:ada" && principal.depth == 0',
    'principal.hasTag("tenant") && principal.getTag("tenant") == "acme"',
    'principal.hasTag("limit") && principal.getTag("limit") == "3"',
    'principal.hasTag("dry") && principal.getTag("dry") == "true"',
    'resource in Mayfly::Target::"ledger-db" && resource.target == Mayfly::Target::"ledger-db"',
    'resource.target.provider == "postgres" && resource.target.owner == "team-finance"',
    'resource.target.hasTag("team") && resource.target.getTag("team") == "finance"',
    'resource.sensitivity == "confidential" && resource.target.sensitivity == "confidential" && !resource.sink',
    'resource.actions == ["read"] && resource.max_ttl == duration("15m")',
    'context.ttl == duration("10m") && context.guarantee == "immediate" && context.tree.live_grants == 2',
    'context.now == datetime("2026-01-05T10:00:00Z") && principal.not_after == datetime("2026-01-05T11:00:00Z")',
    'context.now.durationSince(principal.created_at) == duration("1m")',
    'context.now.toTime() >= duration("8h") && context.now.toTime() < duration("18h")',
    'context.proof_of_possession && principal.instance == ""',
    'resource.data_classes.contains("invoices")',
    'context.own.live_grants == 1 && context.own.grants == 2 && context.tree.grants == 3',
    'context.tree.held.contains(Mayfly::Entitlement::"crm/read-names") && context.tree.held.contains(resource)',
    'context.tree.touched == [Mayfly::Target::"crm", Mayfly::Target::"ledger-db"]',
    'context.tree.data_classes == ["invoices"] && context.tree.held_minutes == 2',
  ])('%s', (clause) => {
    expect(permits(clause)).toBe(true);
  });

  test('which running copy asks, where it is told', () => {
    expect(permits('principal.instance == "pod-1"', task({ instance: 'pod-1' }))).toBe(true);
  });

  test('no phase is the empty text', () => {
    expect(permits('principal.phase == ""', task({ phase: null }))).toBe(true);
  });

  test('a fraction of a second does not make a TTL invalid', () => {
    expect(permits('context.ttl <= duration("1s")', { ...sampleRequest, ttlSeconds: 0.9999 })).toBe(true);
  });
});

describe('inputs', () => {
  test('hold no connection and no provider section', () => {
    const { inputs } = engineFor(designExample).decide(sampleRequest);
    expect(JSON.stringify(inputs)).not.toMatch(/password|db\.example|mayfly_t_/);
  });

  test('replayed from JSON they give the same decision', () => {
    const engine = engineFor(designExample);
    for (const request of [
      sampleRequest,
      task({ phase: 'closing' }),
      { ...sampleRequest, action: 'retain' } as const,
    ]) {
      const decision = engine.decide(request);
      const stored: unknown = JSON.parse(JSON.stringify(decision.inputs));
      expect(engine.replay(stored)).toEqual(decision);
    }
  });

  test('of a release whose schema had less give the same decision', () => {
    const engine = engineFor(designExample);
    const decision = engine.decide(sampleRequest);
    const { context, entities } = structuredClone(decision.inputs) as {
      context: Record<string, unknown>;
      entities: { attrs: Record<string, unknown> }[];
    };
    const later = ['proof_of_possession', 'own', 'incident', 'change_freeze', 'device', 'user', 'signals'];
    for (const name of later) delete context[name];
    context['tree'] = { live_grants: 2, sensitive_sinks: 0 };
    for (const { attrs } of entities) for (const name of ['instance', 'data_classes', 'risk']) delete attrs[name];
    const { inputs: _, ...same } = decision;
    expect(engine.replay({ ...decision.inputs, context, entities })).toMatchObject(same);
    const counts = { grants_of_this: undefined, evaluations: undefined, evaluations_permitted: undefined };
    const { own, tree, ...others } = structuredClone(decision.inputs['context']) as Record<string, object>;
    const before = JSON.parse(JSON.stringify({ ...others, own: { ...own, ...counts }, tree: { ...tree, ...counts } }));
    expect(engine.replay({ ...decision.inputs, context: before })).toMatchObject(same);
  });

  test.each([null, {}, { principal: 'x' }, []])('%j cannot be replayed, so it is denied', (stored) => {
    expect(engineFor(designExample).replay(stored)).toMatchObject({
      permitted: false,
      errors: ['these are not the inputs of a decision'],
    });
  });
});
