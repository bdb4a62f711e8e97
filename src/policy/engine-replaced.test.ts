import { afterEach, describe, expect, test } from 'vitest';
import type { PolicySet } from '../catalog/types.ts';
import { slotUse } from './cedar.ts';
import { createPolicyEngine, type OwnedPolicyEngine } from './engine.ts';
import { designExample, policySet, sampleRequest } from './testing/sample.ts';

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
