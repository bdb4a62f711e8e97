import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  ask,
  entitlement,
  type Json,
  mountDatabase,
  opens,
  startVaultHouse,
  type VaultHouse,
} from '../contract/vault-fixture.ts';
import { flavours } from '../contract/vault-flavours.ts';
import { type House, startHouse } from '../support/house.ts';
import type { VaultFlavour } from '../support/openbao.ts';
import { operatorsOf } from '../support/operators.ts';

const configs = {
  token: { mode: 'token', policies: ['agent'] },
  readers: { mode: 'dynamic', policies: ['db-readers'], path: 'database/creds/readers' },
  tenant: { mode: 'kv', policies: ['agent'], mount: 'secret', path: 'agents/${tenant}' },
  wrapped: { mode: 'dynamic', policies: ['db-readers'], path: 'database/creds/readers', wrap_seconds: 60 },
  // Waits in the database for whoever holds the lock.
  waiting: { mode: 'dynamic', policies: ['db-waiting'], path: 'database/creds/waiting' },
} as const;
const all = Object.keys(configs).map((name) => `vault/${name}`);
const names = all.slice(0, 4);

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
    'policies/vault.cedar': all
      .map(
        (name, index) => `@id("vault-${index}") @accepts("irrevocable")
permit (principal is Mayfly::Task, action, resource == Mayfly::Entitlement::"${name}");`,
      )
      .join('\n'),
  };
}

const lock = 424242;
const logins = `SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-%'`;

function grantsIn(flavour: VaultFlavour): void {
  let house: House;
  let vault: VaultHouse;
  const at = (own: Json, path: string) => ask(vault.bao.url, String(own), 'GET', path);

  beforeAll(async () => {
    house = await startHouse({
      inProcess: false,
      env: { MAYFLY_PROVIDERS: 'postgres,vault', MAYFLY_OVERDUE_SECONDS: '2', MAYFLY_MINT_SECONDS: '5' },
    });
    vault = await startVaultHouse({
      flavour,
      entitlements: Object.values(configs).map((config) => entitlement(config)),
      installation: house.broker.installation,
    });
    await mountDatabase(vault, house.server);
    await vault.root('POST', 'database/roles/waiting', {
      ...{ db_name: 'ledger', default_ttl: '600s', max_ttl: '3600s' },
      creation_statements: [
        `SELECT pg_advisory_xact_lock(${lock});`,
        `CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';`,
      ],
    });
    await vault.root('POST', 'sys/policies/acl/db-waiting', {
      policy: 'path "database/creds/waiting" { capabilities = ["read"] }',
    });
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
    return (await house.client().openTask(await house.sign({ entitlements: all, params }))).task;
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
    expect(await house.onTarget(logins)).toHaveLength(1);
    house.broker = await house.restart();
    await expect.poll(() => standing(`grt_${grant?.id}`)).toMatchObject({ state: 'revoked' });
    expect(await house.onTarget(logins)).toEqual([]);
  });

  test('its task ends while the login is being made: nobody is given it, and it is gone before the end is called contained', async () => {
    const client = house.client();
    const task = await open();
    const holder = new pg.Client({
      ...{ host: '127.0.0.1', port: house.server.port, user: 'postgres', password: house.server.password },
      database: 'postgres',
    });
    await holder.connect();
    try {
      await holder.query('SELECT pg_advisory_lock($1)', [lock]);
      const asked = client.issue(task.id, { entitlement: 'vault/waiting' }).then(
        () => 'issued',
        () => 'refused',
      );
      const waits = `SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = ${lock} AND NOT granted`;
      await expect.poll(() => house.onTarget(waits)).toHaveLength(1);
      await client.complete(task.id);
      const [grant] = await house.onStore<{ id: string }>(`SELECT id FROM mayfly.grants WHERE task_id = $1`, [
        task.id.slice(5),
      ]);
      const fate = () => standing(`grt_${grant?.id}`);
      // Ended, and not contained: what is being made may still come.
      await expect.poll(async () => (await fate())?.last_error).toBe('retryable');
      expect(await fate()).toMatchObject({ state: 'revoking' });
      await holder.query('SELECT pg_advisory_unlock($1)', [lock]);
      expect(await asked).toBe('refused');
      await expect.poll(fate).toMatchObject({ state: 'revoked' });
      expect(await house.onTarget(logins)).toEqual([]);
    } finally {
      await holder.end();
    }
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

  test('its login taken away: it is told before anything fails by it, and when it is given back', async () => {
    const file = join(house.secretsDir, 'vault', 'secret-id');
    const kept = readFileSync(file, 'utf8');
    const failing = async () => {
      const text = await (await fetch(`${house.url}/metrics`)).text();
      return /^mayfly_target_login_failing\{target="vault"\} (\d)$/m.exec(text)?.[1];
    };
    const task = await open();
    const issue = () => house.client().issue(task.id, { entitlement: 'vault/token' });
    await issue();
    expect(await failing()).toBe('0');
    writeFileSync(file, 'of another time');
    const { data } = await vault.root('LIST', 'auth/token/accessors');
    for (const accessor of data.keys as string[]) {
      const known = await ask(vault.bao.url, vault.bao.token, 'POST', 'auth/token/lookup-accessor', { accessor });
      if (known.body.data?.path === 'auth/approle/login')
        await vault.root('POST', 'auth/token/revoke-accessor', { accessor });
    }
    // A login that is young is not doubted at once.
    await expect.poll(async () => [await issue().catch(() => null), await failing()]).toEqual([null, '1']);
    writeFileSync(file, kept);
    await expect.poll(async () => [await issue().catch(() => null), await failing()]).toEqual([expect.anything(), '0']);
    await house.client().complete(task.id, { wait: 30 });
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
}

// One is enough in `npm test`, beside what each shows by itself.
for (const flavour of process.env['MAYFLY_TEST_EVERY_BACKEND'] === undefined ? flavours.slice(0, 1) : flavours) {
  describe.skipIf(flavour.folder === undefined)(`grants in ${flavour.name}`, () => {
    grantsIn(flavour);
  });
}
