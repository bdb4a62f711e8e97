import { afterEach, describe, expect, test } from 'vitest';
import { createPolicyEngine, type OwnedPolicyEngine } from './engine.ts';
import { policySet, sampleRequest } from './testing/sample.ts';

const opened: OwnedPolicyEngine[] = [];
afterEach(() => {
  for (const engine of opened.splice(0)) engine.close();
});

function engineFor(text: string): OwnedPolicyEngine {
  const engine = createPolicyEngine(policySet(text), 'sha256:one');
  opened.push(engine);
  return engine;
}
const all = '(principal, action, resource)';

describe('a forbid that is only told', () => {
  const told = `@id("new") @enforce("report") forbid ${all};`;

  test('denies nothing, and says what it would', () => {
    const engine = engineFor(`@id("a") permit ${all};\n${told}`);
    const decision = engine.decide(sampleRequest);
    expect(decision).toMatchObject({ permitted: true, policies: ['a'], errors: [], reported: ['new'] });
    expect(engine.replay(decision.inputs)).toEqual(decision);
    const never = `@id("new") @enforce("report") forbid ${all} when { principal.purpose == "nothing" };`;
    expect(engineFor(`@id("a") permit ${all};\n${never}`).decide(sampleRequest)).not.toHaveProperty('reported');
  });

  test('says nothing where it is denied anyway', () => {
    const engine = engineFor(`@id("a") permit ${all};\n${told}\n@id("old") @reason("No.") forbid ${all};`);
    expect(engine.decide(sampleRequest)).toMatchObject({ permitted: false, policies: ['old'], reasons: ['No.'] });
    expect(engine.decide(sampleRequest)).not.toHaveProperty('reported');
    expect(engineFor(told).decide(sampleRequest)).toMatchObject({ permitted: false, policies: [] });
  });

  test('and fails is told, since it would deny everything, and denies nothing', () => {
    const failing = `@id("bad") @enforce("report") forbid ${all} when { context.own.grants + 9223372036854775807 + 9223372036854775807 > 0 };`;
    const decision = engineFor(`@id("a") permit ${all};\n${failing}`).decide(sampleRequest);
    expect(decision).toMatchObject({ permitted: true, errors: [] });
    expect(decision.reported?.join()).toContain('bad');
  });
});
