import { afterEach, describe, expect, test } from 'vitest';
import type { PolicySet } from '../catalog/types.ts';
import { slotUse } from './cedar.ts';
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
    ['a sink in the tree', { ...sampleRequest, tree: { liveGrants: 1, sensitiveSinks: 1 } }],
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
    ['a count with a fraction', { ...sampleRequest, tree: { liveGrants: 0.5, sensitiveSinks: 0 } }],
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
  ])('%s', (clause) => {
    expect(permits(clause)).toBe(true);
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

  test.each([null, {}, { principal: 'x' }, []])('%j cannot be replayed, so it is denied', (stored) => {
    expect(engineFor(designExample).replay(stored)).toMatchObject({
      permitted: false,
      errors: ['these are not the inputs of a decision'],
    });
  });
});

describe('replacing the policy in force', () => {
  test('a set that does not hold is refused with file and line, and the old engine goes on', () => {
    const engine = engineFor(designExample);
    const before = slotUse().open;
    const broken = policySet('@id("a")\npermit (principal, action, resource) when { principal.nothing };');
    expect(() => engineFor(broken)).toThrow(
      expect.objectContaining({
        code: 'catalog_invalid',
        errors: [expect.objectContaining({ path: 'policies/sample.cedar:2' })],
      }),
    );
    expect(slotUse().open).toBe(before);
    expect(engine.decide(sampleRequest).permitted).toBe(true);
  });

  test('under load no decision mixes two sets', async () => {
    const setOf = (mark: string, seconds: number): PolicySet =>
      policySet(
        `@id("${mark}-1") @max_ttl("${seconds}s") permit ${all};\n@id("${mark}-2") @max_ttl("1h") permit ${all};`,
      );
    const sets = { a: setOf('a', 60), b: setOf('b', 120) };
    let current = engineFor(sets.a, 'a');
    const stop = new AbortController();
    const seen = new Map<string, number>();
    const decide = async (): Promise<void> => {
      while (!stop.signal.aborted) {
        const decision = current.decide(sampleRequest);
        const said = JSON.stringify([current.digest, decision.policies, decision.maxTtlSeconds, decision.errors]);
        seen.set(said, (seen.get(said) ?? 0) + 1);
        await new Promise((resolve) => setImmediate(resolve));
      }
    };
    const deciders = Array.from({ length: 8 }, decide);
    const { made } = slotUse();
    for (let round = 0; round < 100; round += 1) {
      const digest = round % 2 === 0 ? 'b' : 'a';
      const next = engineFor(sets[digest], digest);
      const old = current;
      current = next;
      old.close();
      await new Promise((resolve) => setImmediate(resolve));
    }
    stop.abort();
    await Promise.all(deciders);
    expect([...seen.keys()].sort()).toEqual(['["a",["a-1","a-2"],60,[]]', '["b",["b-1","b-2"],120,[]]']);
    expect(slotUse().made).toBeLessThanOrEqual(made + 1);
  });
});
