import { expect, test } from 'vitest';
import { AgentKey, MayflyClient } from './index.ts';

const credential = { password: 'read-on-the-way' };
const grant = { id: 'grt_1' };
/** What a broker answers that never heard of `delivery`, since a proxy took it away. */
const inClear: typeof fetch = async () => Response.json({ grant, credential }, { status: 201 });
const options = { url: 'https://broker.example', token: () => 'a.b.c', fetch: inClear };

test('a credential in clear where a sealed one was asked for is not taken', async () => {
  const client = new MayflyClient({ ...options, key: await AgentKey.make() });
  await expect(client.issue('task_1', { entitlement: 'ledger-db/read' })).rejects.toThrow('came in clear');
  await expect(client.renew('grt_1', 60)).rejects.toThrow('came in clear');
});

test('and is where none was', async () => {
  for (const more of [{}, { key: await AgentKey.make(), sealed: false }]) {
    const client = new MayflyClient({ ...options, ...more });
    expect((await client.issue('task_1', { entitlement: 'ledger-db/read' })).credential).toEqual(credential);
    expect((await client.renew('grt_1', 60)).credential).toEqual(credential);
  }
});
