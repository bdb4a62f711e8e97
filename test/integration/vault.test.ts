import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  ask,
  entitlement,
  type Json,
  mountDatabase,
  openbaoFolder,
  opens,
  startVaultHouse,
  type VaultHouse,
} from '../contract/vault-fixture.ts';
import { type House, startHouse } from '../support/house.ts';
import { operatorsOf } from '../support/operators.ts';

const configs = {
  token: { mode: 'token', policies: ['agent'] },
  readers: { mode: 'dynamic', policies: ['db-readers'], path: 'database/creds/readers' },
  tenant: { mode: 'kv', policies: ['agent'], mount: 'secret', path: 'agents/${tenant}' },
  wrapped: { mode: 'dynamic', policies: ['db-readers'], path: 'database/creds/readers', wrap_seconds: 60 },
} as const;
const names = Object.keys(configs).map((name) => `vault/${name}`);

function catalog(house: House, vault: VaultHouse): Record<string, string> {
  return {
    ...house.files,
    'targets/vault.yaml': `
name: vault
provider: vault
connection: ${JSON.stringify(vault.connection)}
environment: demo
owner: team-platform
sensitivity: confidential
labels: {}
`,
    'entitlements/vault.yaml': Object.entries(configs)
      .map(
        ([name, provider]) => `
- name: vault/${name}
  target: vault
  sensitivity: confidential
  actions: [read]
  max_ttl_seconds: 600
  ${name === 'tenant' ? 'params: { tenant: { type: string, pattern: "^[a-z0-9-]{1,40}$" } }' : ''}
  provider: ${JSON.stringify(provider)}`,
      )
      .join('\n'),
    'policies/vault.cedar': names
      .map(
        (name, index) => `@id("vault-${index}") @accepts("irrevocable")
permit (principal is Mayfly::Task, action, resource == Mayfly::Entitlement::"${name}");`,
      )
      .join('\n'),
  };
}

describe.skipIf(openbaoFolder === undefined)('grants in OpenBao', () => {
  let house: House;
  let vault: VaultHouse;
  const at = (own: Json, path: string) => ask(vault.bao.url, String(own), 'GET', path);

  beforeAll(async () => {
    house = await startHouse({
      inProcess: false,
      env: { MAYFLY_PROVIDERS: 'postgres,vault', MAYFLY_OVERDUE_SECONDS: '2', MAYFLY_MINT_SECONDS: '5' },
    });
    vault = await startVaultHouse({
      entitlements: Object.values(configs).map((config) => entitlement(config)),
      installation: house.broker.installation,
    });
    await mountDatabase(vault, house.server);
    await vault.root('POST', 'sys/policies/acl/agent', {
      policy: 'path "secret/data/agents/*" { capabilities = ["read"] }',
    });
    await vault.root('POST', 'secret/data/agents/acme', { data: { api_key: 'of-acme' } });
    mkdirSync(join(house.secretsDir, 'vault'), { recursive: true });
    writeFileSync(join(house.secretsDir, 'vault', 'secret-id'), vault.secrets.get('file:secret-id') ?? '');
    await house.broker.apply(catalog(house, vault));
  });
  afterAll(async () => {
    await house?.stop();
    await vault?.stop();
  });

  async function open() {
    const params = { tenant: 'acme' };
    return (await house.client().openTask(await house.sign({ entitlements: names, params }))).task;
  }

  async function standing(grantId: string) {
    const [row] = await house.onStore<{ state: string; revocation: string; evidence: Json; last_error: string | null }>(
      `SELECT g.state, r.state AS revocation, r.evidence, r.last_error FROM mayfly.grants g
       JOIN mayfly.revocations r ON r.grant_id = g.id WHERE g.id = $1`,
      [grantId.slice(4)],
    );
    return row;
  }

  test('in each mode: issued, used, and after the task refused and gone', async () => {
    const client = house.client();
    const task = await open();
    const issued = await Promise.all(names.map((name) => client.issue(task.id, { entitlement: name })));
    const [token, readers, tenant, wrapped] = issued.map(({ credential }) => credential as Json);
    expect((await at(token.token, 'secret/data/agents/acme')).status).toBe(200);
    expect(await opens(house.server, readers)).toBe(true);
    expect(tenant).toMatchObject({ api_key: 'of-acme', guarantee: { revocation: 'irrevocable' } });
    const unwrapped = await ask(vault.bao.url, wrapped.wrapping_token, 'POST', 'sys/wrapping/unwrap', {});
    expect(await opens(house.server, unwrapped.body.data)).toBe(true);
    const done = await client.complete(task.id, { wait: 30 });
    expect(done.revocations).toHaveLength(4);
    expect((await at(token.token, 'secret/data/agents/acme')).status).toBe(403);
    expect([await opens(house.server, readers), await opens(house.server, unwrapped.body.data)]).toEqual([
      false,
      false,
    ]);
    for (const { grant } of issued)
      expect(await standing(grant.id)).toMatchObject({ state: 'revoked', evidence: { token: 'absent' } });
    expect((await standing(issued[2]?.grant.id ?? ''))?.evidence).toMatchObject({ residual: 'value may be known' });
  });

  test('the broker killed between the mint and its record: what it left is found by its metadata and ended', async () => {
    const task = await open();
    await house.broker.fallAt([{ step: 'mint.after', signal: 'SIGKILL' }]);
    const asking = house.client().issue(task.id, { entitlement: 'vault/readers' });
    asking.catch(() => {});
    await house.broker.reached('mint.after');
    await expect(asking).rejects.toThrow(/fetch failed/);
    const [grant] = await house.onStore<{ id: string; facts: Json }>(
      `SELECT id, facts FROM mayfly.grants WHERE task_id = $1`,
      [task.id.slice(5)],
    );
    expect(grant?.facts).toBeNull();
    const login = `SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-%'`;
    expect(await house.onTarget(login)).toHaveLength(1);
    house.broker = await house.restart();
    await expect.poll(() => standing(`grt_${grant?.id}`)).toMatchObject({ state: 'revoked' });
    expect(await house.onTarget(login)).toEqual([]);
  });

  test('sealed while an end is owed: it is told, and goes on when it is unsealed', async () => {
    const client = house.client();
    const task = await open();
    const { grant, credential } = await client.issue(task.id, { entitlement: 'vault/readers' });
    await vault.root('POST', 'sys/seal', {});
    await client.complete(task.id);
    await expect.poll(() => standing(grant.id)).toMatchObject({ state: 'revoking', last_error: 'retryable' });
    expect(await opens(house.server, credential)).toBe(true);
    const key = /Unseal Key: (\S+)/.exec(vault.bao.log())?.[1];
    await ask(vault.bao.url, '', 'POST', 'sys/unseal', { key });
    await expect.poll(() => standing(grant.id)).toMatchObject({ state: 'revoked' });
    expect(await opens(house.server, credential)).toBe(false);
  });

  test('its rights taken away while an end is owed: denied is never success', async () => {
    const client = house.client();
    const task = await open();
    const { grant, credential } = await client.issue(task.id, { entitlement: 'vault/token' });
    const { data } = await vault.root('GET', 'sys/policies/acl/mayfly-broker');
    await vault.root('POST', 'sys/policies/acl/mayfly-broker', {
      policy: 'path "auth/token/lookup-self" { capabilities = ["read"] }',
    });
    await client.complete(task.id);
    await expect.poll(() => standing(grant.id)).toMatchObject({ state: 'revoking', last_error: 'denied' });
    const operators = operatorsOf(house);
    expect((await operators.queue()).counts.find(({ target }) => target === 'vault')).toMatchObject({
      target: 'vault',
    });
    expect((await at((credential as Json).token, 'secret/data/agents/acme')).status).toBe(200);
    await vault.root('POST', 'sys/policies/acl/mayfly-broker', { policy: data.policy });
    await expect.poll(() => standing(grant.id)).toMatchObject({ state: 'revoked' });
    expect((await at((credential as Json).token, 'secret/data/agents/acme')).status).toBe(403);
  });
});
