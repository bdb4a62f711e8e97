import pg from 'pg';
import { expect, test, vi } from 'vitest';
import type { Credential, GrantBody } from '../../src/client/index.ts';
import { type House, startHouse } from '../support/house.ts';
import { clockOffBy } from '../support/wrong-clock.ts';

const READ = 'ledger-db/read-invoices';
const TEN_MINUTES = 600_000;

/** When the role ends by the target's own clock. */
async function validUntil(house: House, grant: GrantBody): Promise<number> {
  const [role] = await house.onTarget<{ until: Date }>(
    'SELECT rolvaliduntil AS until FROM pg_roles WHERE rolname = $1',
    [`mfy_${grant.id.slice(4).replaceAll('-', '')}`],
  );
  return role?.until.getTime() ?? 0;
}

/** Seconds from now, by the clock of store and target, until the target ends it. */
async function secondsLeft(house: House, grant: GrantBody): Promise<number> {
  const [clock] = await house.onTarget<{ now: Date }>('SELECT clock_timestamp() AS now');
  return ((await validUntil(house, grant)) - (clock?.now.getTime() ?? 0)) / 1000;
}

async function works(credential: Credential): Promise<void> {
  const client = new pg.Client({ connectionString: String(credential['url']) });
  await client.connect();
  await client.query('SELECT 1 FROM invoices');
  await client.end();
}

test.each([
  ['ahead of', TEN_MINUTES],
  ['behind', -TEN_MINUTES],
])('a replica whose clock is ten minutes %s the store’s issues, renews and ends by the store’s', async (_, off) => {
  // The clock of this process is the replica's and the issuer's. Store and target are other processes.
  vi.stubGlobal('Date', clockOffBy(off));
  const house = await startHouse();
  try {
    const [store] = await house.onStore<{ now: Date }>('SELECT clock_timestamp() AS now');
    expect(Math.abs(Date.now() - off - (store?.now.getTime() ?? 0))).toBeLessThan(30_000);

    const client = house.client();
    const { task } = await client.openTask(await house.sign({ ttl: 1_200 }));
    const { grant, credential } = await client.issue(task.id, { entitlement: READ, ttl_seconds: 60 });
    await works(credential);
    expect(Math.abs((await validUntil(house, grant)) - Date.parse(grant.deadline))).toBeLessThan(10_000);
    expect(Math.abs(Date.parse(String(credential['expires_at'])) - Date.parse(grant.deadline))).toBeLessThan(10_000);
    expect(await secondsLeft(house, grant)).toBeLessThanOrEqual(60);

    const renewed = await client.renew(grant.id, 200);
    expect(Math.abs((await validUntil(house, grant)) - Date.parse(renewed.grant.deadline))).toBeLessThan(10_000);
    expect(await secondsLeft(house, grant)).toBeGreaterThan(150);
    expect(await secondsLeft(house, grant)).toBeLessThanOrEqual(200);

    const { grant: short } = await client.issue(task.id, { entitlement: READ, ttl_seconds: 2 });
    await vi.waitFor(
      async () =>
        expect(await client.grant(short.id)).toMatchObject({ ended_by: 'expired', revocation: { state: 'clean' } }),
      { timeout: 60_000, interval: 50 },
    );
    const contained = (await client.timeline(task.id)).find(({ type }) => type === 'revocation.contained');
    expect(contained?.payload['late_seconds']).toBeGreaterThanOrEqual(0);
    expect(contained?.payload['late_seconds']).toBeLessThan(TEN_MINUTES / 2_000);

    const done = await client.complete(task.id, { wait: 30 });
    for (const { state } of done.revocations) expect(state).toMatch(/contained|clean/);
    expect(await validUntil(house, short)).toBe(0);
  } finally {
    await house.stop();
  }
});
