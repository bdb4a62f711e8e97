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
      const places = [...referencesIn(system.connection)];
      if (places.length === 0) {
        assert.deepEqual(Object.keys(system.secrets), [], 'There are secrets, and the connection names none of them');
        throw new NotApplicable('its connection has no secret');
      }
      for (const place of places) {
        const clear = { ...Object(replaced(system.connection, place, 'a secret in clear')) };
        assert.ok(!provider.targetSchema.safeParse(clear).success, `${place.join('.')} was taken in clear`);
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

type Place = readonly string[];

/** Where a reference stands in it, at any depth. */
function* referencesIn(value: unknown, at: Place = []): Generator<Place> {
  if (typeof value === 'string' && /^(env|file):/.test(value)) yield at;
  if (typeof value !== 'object' || value === null) return;
  for (const [name, member] of Object.entries(value)) yield* referencesIn(member, [...at, name]);
}

/** A copy with something else in that place. */
function replaced(value: unknown, [name, ...rest]: Place, by: string): unknown {
  if (name === undefined) return by;
  if (Array.isArray(value)) return value.map((one, index) => (String(index) === name ? replaced(one, rest, by) : one));
  return { ...Object(value), [name]: replaced(Object(value)[name], rest, by) };
}
