import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import type { Credential, MintedBody } from '../../src/client/index.ts';
import {
  entitlements,
  haveSystems,
  startThreeSystems,
  type System,
  SYSTEMS,
  type ThreeSystems,
} from '../support/three-systems.ts';

describe.skipIf(!haveSystems)('one task holds credentials in three systems', () => {
  let systems: ThreeSystems;
  beforeAll(async () => {
    systems = await startThreeSystems();
  });
  afterAll(async () => {
    await systems?.stop();
  });

  interface Held {
    readonly system: System;
    readonly grant: MintedBody;
    readonly credential: Credential;
  }

  async function hold(kind: 'confidential' | 'restricted', each: number): Promise<{ task: string; held: Held[] }> {
    const { house } = systems;
    const client = house.client();
    const names = SYSTEMS.map((system) => entitlements[system][kind]);
    const { task } = await client.openTask(await house.sign({ entitlements: names }));
    const held = await Promise.all(
      SYSTEMS.flatMap((system) =>
        Array.from({ length: each }, async () => ({
          system,
          ...(await client.issue(task.id, { entitlement: entitlements[system][kind], ttl_seconds: 300 })),
        })),
      ),
    );
    return { task: task.id, held };
  }

  async function working(held: readonly Held[]): Promise<boolean[]> {
    return await Promise.all(held.map(({ system, credential }) => systems.works(system, credential)));
  }

  test('one end takes them all back, each proven by looking', async () => {
    const client = systems.house.client();
    const { task, held } = await hold('confidential', 1);
    expect(await working(held)).toEqual([true, true, true]);
    const { revocations } = await client.complete(task, { wait: 60 });
    expect(new Set(revocations.map(({ target }) => target))).toEqual(new Set(SYSTEMS));
    for (const { state, evidence } of revocations) {
      expect(['contained', 'clean']).toContain(state);
      expect(evidence).toBeDefined();
    }
    expect(await working(held)).toEqual([false, false, false]);
  });

  test('one apply ends the right grants in each system at once, and leaves the others untouched', async () => {
    const { house, files } = systems;
    const client = house.client();
    const { held: drifting } = await hold('restricted', 2);
    const { held: staying } = await hold('confidential', 2);
    expect(new Set(await working([...drifting, ...staying]))).toEqual(new Set([true]));
    await house.broker.apply({
      ...files,
      'policies/test.cedar': `${files['policies/test.cedar'] ?? ''}
@id("no-restricted-data") forbid (principal, action, resource is Mayfly::Entitlement) when { resource.sensitivity == "restricted" };`,
    });
    await vi.waitFor(
      async () => {
        for (const { grant } of drifting)
          expect(await client.grant(grant.id)).toMatchObject({ state: 'revoked', ended_by: 'drift' });
      },
      { timeout: 120_000, interval: 50 },
    );
    expect(new Set(await working(drifting))).toEqual(new Set([false]));
    expect(new Set(await working(staying))).toEqual(new Set([true]));
    for (const { grant } of staying)
      expect(await client.grant(grant.id)).toMatchObject({ state: 'active', revocation: { state: 'scheduled' } });

    const rows = await house.onStore<{ target: string; n: number; millis: number }>(
      `SELECT g.target, count(*)::int AS n, max(extract(epoch FROM r.contained_at - c.applied_at) * 1000)::float8 AS millis
       FROM mayfly.grants g JOIN mayfly.revocations r ON r.grant_id = g.id, mayfly.catalog_active a JOIN mayfly.catalog_revisions c ON c.number = a.revision
       WHERE g.ended_by = 'drift' GROUP BY 1`,
    );
    expect(Object.fromEntries(rows.map(({ target, n }) => [target, n]))).toEqual({ 'ledger-db': 2, aws: 2, vault: 2 });
    for (const { target, n, millis } of rows)
      console.log(`drift: ${n} grants on ${target} contained ${millis.toFixed(0)} ms after the apply`);
  });
});
