import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { mixesUp, poisonedBy, skips } from '../support/synthetic/faults.ts';
import { type Standing, startSyntheticHouse, type SyntheticHouse } from '../support/synthetic/house.ts';

const WAIT = { timeout: 60_000, interval: 25 };

let server: PostgresServer;
let house: SyntheticHouse;
beforeAll(async () => {
  server = await startPostgres({ version: 18 });
  house = await startSyntheticHouse(
    server,
    { vault: 'handles', kept: 'handles' },
    { MAYFLY_SWEEP_SECONDS: '1', MAYFLY_RECONCILE_SECONDS: '86400' },
  );
});
afterAll(async () => {
  await house?.stop();
  await server?.stop();
});
afterEach(() => house.target('vault').faults.clear());

async function live(name: string, count: number) {
  const task = await house.openTask(name);
  const issued = await Promise.all(Array.from({ length: count }, () => house.issue(task, name)));
  return { task, grants: issued.map(({ id }) => ({ id, handle: id.replace('grt_', 'syn-') })) };
}

const until = (id: string, expected: Partial<Standing>) =>
  vi.waitFor(async () => expect(await house.standing(id)).toMatchObject(expected), WAIT);

async function returnsOf(id: string): Promise<readonly unknown[]> {
  const rows = await house.onStore<{ payload: Record<string, unknown> }>(
    `SELECT payload FROM mayfly.audit_events WHERE type = 'revocation.returned' AND grant_id = $1`,
    [id.replace('grt_', '')],
  );
  return rows.map(({ payload }) => payload['clean_at']);
}

async function countReturned(): Promise<number> {
  const text = await (await fetch(`${house.url}/metrics`)).text();
  const found = /^mayfly_reconcile_findings_total\{target="vault",kind="returned"\} (\d+)$/m.exec(text);
  return Number(found?.[1] ?? 0);
}

describe('what was contained and is not clean yet', () => {
  test('is told loudly when it can be used again, and is ended again', async () => {
    const vault = house.target('vault');
    vault.reapDelayMillis = 3_000;
    try {
      const { task, grants } = await live('vault', 2);
      const [back, quiet] = [grants[0], grants[1]];
      if (back === undefined || quiet === undefined) throw new Error('nothing was issued');
      await house.client.complete(task);
      for (const { id } of grants) await until(id, { revocation: 'contained' });
      expect(vault.system.accepts(back.handle)).toBe(false);
      const before = await countReturned();
      const fence = vault.holds.hold('fence.sent');
      vault.system.forgetCut(back.handle);
      expect(vault.system.accepts(back.handle)).toBe(true);
      // Not called revoked while it can be used.
      await vi.waitFor(async () => expect(await returnsOf(back.id)).toEqual([null]), WAIT);
      expect(await house.standing(back.id)).toMatchObject({ state: 'revoking' });
      fence.release();
      for (const { id } of grants) await until(id, { state: 'revoked', revocation: 'clean' });
      expect(vault.system.accepts(back.handle)).toBe(false);
      expect(await returnsOf(back.id)).toHaveLength(1);
      const notices = await house.onStore(
        `SELECT FROM mayfly.notices n JOIN mayfly.audit_events e ON e.id = n.event_id WHERE e.type = 'revocation.returned'`,
      );
      expect(notices).toHaveLength(1);
      expect(await returnsOf(quiet.id)).toEqual([]);
      expect(await countReturned()).toBe(before + 1);
    } finally {
      vault.reapDelayMillis = 0;
    }
  });
});

test('what waits to be cleaned and can be used again is found by a comparison, too', async () => {
  const vault = house.target('vault');
  vault.reapDelayMillis = 600_000;
  try {
    const { task, grants } = await live('vault', 1);
    const [back] = grants;
    if (back === undefined) throw new Error('nothing was issued');
    await house.client.complete(task);
    await until(back.id, { revocation: 'contained' });
    await vi.waitFor(async () => expect((await house.standing(back.id)).seconds_to_try).toBeGreaterThan(60), WAIT);
    vault.system.forgetCut(back.handle);
    await house.onStore(`UPDATE mayfly.reconciliations SET next_at = clock_timestamp() WHERE target = 'vault'`);
    await vi.waitFor(async () => expect(await returnsOf(back.id)).toEqual([null]), WAIT);
    await until(back.id, { revocation: 'contained' });
    expect(vault.system.accepts(back.handle)).toBe(false);
    expect(await returnsOf(back.id)).toHaveLength(1);
  } finally {
    vault.reapDelayMillis = 0;
    await house.onStore(`UPDATE mayfly.revocations SET try_at = clock_timestamp() WHERE state = 'contained'`);
  }
});

describe('a provider', () => {
  test.each(['fence', 'verify', 'reap'] as const)(
    'that throws for a whole batch because of one in it keeps no other from its end: %s',
    async (operation) => {
      const vault = house.target('vault');
      const { task, grants } = await live('vault', 20);
      const [bad, ...others] = grants;
      if (bad === undefined) throw new Error('nothing was issued');
      vault.faults.set(operation, poisonedBy(bad.handle));
      await house.client.complete(task);
      for (const { id } of others) await until(id, { revocation: 'clean' });
      for (const { id } of others) expect((await house.standing(id)).attempts).toBeLessThanOrEqual(2);
      const left = operation === 'reap' ? 'contained' : 'due';
      await vi.waitFor(async () => {
        const { revocation, last_error: error } = await house.standing(bad.id);
        expect([left, 'running']).toContain(revocation);
        expect(error).toBe('retryable');
      }, WAIT);
      vault.faults.clear();
      await until(bad.id, { revocation: 'clean' });
    },
  );

  test('whose answers come in another order than they were asked for is believed of nobody but by name', async () => {
    const vault = house.target('vault');
    const { task, grants } = await live('vault', 2);
    const [skipped, other] = grants;
    if (skipped === undefined || other === undefined) throw new Error('nothing was issued');
    vault.faults.set('fence', skips(skipped.handle));
    vault.faults.set('verify', mixesUp);
    await house.client.complete(task);
    await until(other.id, { revocation: 'clean' });
    await vi.waitFor(async () => expect((await house.standing(skipped.id)).last_error).toBe('retryable'), WAIT);
    expect(vault.system.accepts(skipped.handle)).toBe(true);
    expect((await house.standing(skipped.id)).state).toBe('revoking');
    vault.faults.clear();
    await until(skipped.id, { state: 'revoked' });
  });
});

describe('a grant whose facts a crash has lost', () => {
  const tenures = (count: number) =>
    vi.waitFor(async () => {
      const rows = await house.onStore(`SELECT FROM mayfly.tenures WHERE target = 'kept'`);
      if (rows.length !== count) throw new Error(`there are ${rows.length} tenures`);
    }, WAIT);

  async function withoutFacts() {
    const { task, grants } = await live('kept', 1);
    const [grant] = grants;
    if (grant === undefined) throw new Error('nothing was issued');
    await house.onStore('UPDATE mayfly.grants SET facts = NULL WHERE id = $1', [grant.id.replace('grt_', '')]);
    return { task, ...grant };
  }

  test('is ended where its target has been held since before it was intended', async () => {
    const { task, id, handle } = await withoutFacts();
    await house.client.complete(task);
    await until(id, { state: 'revoked', revocation: 'clean' });
    expect(house.target('kept').system.accepts(handle)).toBe(false);
  });

  test('is not called gone where it is absent while the target shows no record of who holds it', async () => {
    const kept = house.target('kept');
    const { task, id, handle } = await withoutFacts();
    kept.keepsRecord = false;
    const real = kept.replace();
    await house.client.complete(task);
    await until(id, { state: 'revoking', last_error: 'misconfigured' });
    kept.system = real;
    kept.keepsRecord = true;
    await until(id, { state: 'revoked' });
    expect(real.accepts(handle)).toBe(false);
  });

  test('is not called gone because another system, behind the same address, does not know it', async () => {
    const { task, id, handle } = await withoutFacts();
    const kept = house.target('kept');
    const real = kept.replace();
    await house.client.complete(task);
    await until(id, { last_error: 'misconfigured' });
    // Nor when that system is held, too.
    await tenures(2);
    const { attempts } = await house.standing(id);
    await vi.waitFor(async () => expect((await house.standing(id)).attempts).toBeGreaterThan(attempts + 1), WAIT);
    expect(await house.standing(id)).toMatchObject({ state: 'revoking', last_error: 'misconfigured' });
    expect(real.accepts(handle)).toBe(true);
    kept.system = real;
    await until(id, { state: 'revoked' });
    expect(real.accepts(handle)).toBe(false);
  });
});
