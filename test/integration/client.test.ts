import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { AgentKey, type Credential, type MayflyClient, ProblemError } from '../../src/client/index.ts';
import { type House, startHouse } from '../support/house.ts';

const READ = { entitlement: 'ledger-db/read-invoices' };

let house: House;
let key: AgentKey;
let client: MayflyClient;
beforeAll(async () => {
  house = await startHouse({ proofOfPossession: 'required' });
  key = await AgentKey.make();
  client = house.client('agent-recon', house.url, key);
});
afterAll(() => house?.stop());

const request = async (ttl = 900) => await house.sign({ keyThumbprint: key.thumbprint, ttl });

async function canRead(credential: Credential): Promise<boolean> {
  const login = new pg.Client({ connectionString: String(credential['url']) });
  login.on('error', () => {});
  try {
    await login.connect();
    await login.query('SELECT count(*) FROM billing.invoices');
    return true;
  } catch {
    return false;
  } finally {
    await login.end();
  }
}

describe('a held task', () => {
  test('is completed when its scope is left, and with it what was issued', async () => {
    let credential: Credential = {};
    let id = '';
    {
      await using task = await client.hold(await request());
      id = task.task.id;
      ({ credential } = await task.issue(READ));
      expect(await canRead(credential)).toBe(true);
    }
    expect(await client.task(id)).toMatchObject({ state: 'completed', ended_by: 'completed' });
    await vi.waitFor(async () => expect(await canRead(credential)).toBe(false), { timeout: 60_000 });
  });

  test('is completed too when its scope is left by an error, which goes on', async () => {
    let id = '';
    const work = async () => {
      await using task = await client.hold(await request());
      id = task.task.id;
      throw new Error('the work failed');
    };
    await expect(work()).rejects.toThrow('the work failed');
    expect(await client.task(id)).toMatchObject({ state: 'completed' });
  });

  test('that was cancelled stays so', async () => {
    let id = '';
    {
      await using task = await client.hold(await request());
      id = task.task.id;
      await task.cancel({ wait: 10 });
    }
    expect(await client.task(id)).toMatchObject({ state: 'cancelled' });
  });

  test('that was ended by another leaves its scope quietly', async () => {
    await using task = await client.hold(await request());
    await client.cancel(task.task.id);
    expect(await client.task(task.task.id)).toMatchObject({ state: 'cancelled' });
  });
});

describe('a held grant', () => {
  test('is renewed while its scope lasts, and released with it', async () => {
    await using task = await client.hold(await request());
    let id = '';
    {
      await using held = await task.issue({ ...READ, ttl_seconds: 6 });
      const first = held.grant.deadline;
      id = held.grant.id;
      await vi.waitFor(() => expect(held.grant.deadline > first).toBe(true), { timeout: 60_000 });
      expect(await canRead(held.credential)).toBe(true);
    }
    expect(await client.grant(id)).toMatchObject({ ended_by: 'released' });
  });

  test('that can not be renewed says so, and when it ends', async () => {
    const onLost = vi.fn<(error: unknown, deadline: string) => void>();
    await using task = await client.hold(await request());
    const held = await task.issue({ ...READ, ttl_seconds: 6 }, { onLost });
    await client.release(held.grant.id);
    await vi.waitFor(() => expect(onLost).toHaveBeenCalledOnce(), { timeout: 60_000 });
    const [error, deadline] = onLost.mock.calls[0] ?? [];
    expect([error instanceof ProblemError && error.is('grant_ended'), deadline]).toEqual([true, held.grant.deadline]);
  });

  test('is let run out where it was asked so', async () => {
    await using task = await client.hold(await request());
    const held = await task.issue({ ...READ, ttl_seconds: 1 }, { renew: false });
    await vi.waitFor(async () => expect(await client.grant(held.grant.id)).toMatchObject({ ended_by: 'expired' }), {
      timeout: 60_000,
    });
  });
});
