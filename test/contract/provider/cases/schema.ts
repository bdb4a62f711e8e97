import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { NotApplicable } from '../not-applicable.ts';
import type { CaseOf } from './case.ts';

export const schemaCases: readonly CaseOf[] = [
  {
    name: 'schema: unknown keys in a connection or an entitlement are refused',
    run: async ({ driver: { provider }, system }) => {
      const surplus = { mayfly_unknown_key: 1 };
      assert.ok(provider.targetSchema.safeParse(system.connection).success);
      assert.ok(!provider.targetSchema.safeParse({ ...system.connection, ...surplus }).success, 'In a connection');
      for (const { config } of system.entitlements) {
        assert.ok(provider.entitlementSchema.safeParse(config).success);
        const wider = { ...Object(config), ...surplus };
        assert.ok(!provider.entitlementSchema.safeParse(wider).success, 'In an entitlement');
      }
    },
  },
  {
    name: 'schema: a secret stands in a connection as a reference only',
    run: async ({ driver: { provider }, system }) => {
      const references = Object.entries(system.connection).filter(([, value]) => isReference(value));
      if (references.length === 0) throw new NotApplicable('its connection has no secret');
      for (const [name] of references) {
        const clear = { ...system.connection, [name]: 'a secret in clear' };
        assert.ok(!provider.targetSchema.safeParse(clear).success, `${name} was taken in clear`);
      }
    },
  },
  {
    name: 'handle: chosen from the grant alone, and touches nothing',
    run: async ({ session, system }) => {
      const [one, other] = [randomUUID(), randomUUID()];
      const handle = session.reserve(one);
      assert.equal(session.reserve(one), handle, 'One grant has two handles');
      assert.notEqual(session.reserve(other), handle, 'Two grants have one handle');
      assert.deepEqual(await system.look(handle, null), [], 'It was made by being chosen');
    },
  },
];

function isReference(value: unknown): boolean {
  return typeof value === 'string' && /^(env|file):/.test(value);
}
