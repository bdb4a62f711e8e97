import pg from 'pg';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import type { Credential, GrantBody } from '../../src/client/index.ts';
import { type House, makeTarget, prepareTarget, startHouse } from '../support/house.ts';
import { type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { syntheticProvider } from '../support/synthetic/provider.ts';
import { SyntheticTarget } from '../support/synthetic/target.ts';

const SYSTEMS = ['ledger-db', 'other-db', 'toy'] as const;
type System = (typeof SYSTEMS)[number];
const OTHER_PASSWORD = 'pw-of-the-other';
/** Of each kind on each system. */
const COUNT = 3;

const toy = new SyntheticTarget('handles');
let servers: PostgresServer[];
let house: House;
let otherDatabase: string;
let files: Readonly<Record<string, string>>;

beforeAll(async () => {
  servers = await Promise.all([startPostgres({ version: 18 }), startPostgres({ version: 18 })]);
  const [first, second] = servers;
  if (first === undefined || second === undefined) throw new Error('two were started');
  house = await startHouse({
    server: first,
    env: { MAYFLY_PROVIDERS: 'postgres,synthetic', MAYFLY_TARGET_OTHER_DB_PASSWORD: OTHER_PASSWORD },
    importPackage: async () => ({ provider: syntheticProvider(new Map([['toy', toy]])) }),
  });
  otherDatabase = await makeTarget(second);
  const other = {
    ...house.files,
    'targets/other-db.yaml': `
name: other-db
provider: postgres
connection: { host: 127.0.0.1, port: ${second.port}, database: ${otherDatabase}, user: ${otherDatabase}_broker, password: "env:MAYFLY_TARGET_OTHER_DB_PASSWORD", sslmode: disable }
environment: demo
owner: team-finance
sensitivity: confidential
labels: {}
`,
    'entitlements/other-db.yaml': ['read', 'look']
      .map(
        (name) => `
- name: other-db/${name}
  target: other-db
  sensitivity: ${name === 'read' ? 'confidential' : 'restricted'}
  actions: [read]
  max_ttl_seconds: 600
  provider: { template: mayfly_t_${name}_${otherDatabase}, privileges: [{ schema: billing, tables: [invoices], grant: [SELECT] }] }`,
      )
      .join(''),
    'policies/test.cedar': '@id("all") permit (principal, action, resource is Mayfly::Entitlement);',
  };
  await prepareTarget(second, other, house.broker.installation, OTHER_PASSWORD, 'other-db');
  files = {
    ...other,
    'targets/toy.yaml':
      '{ name: toy, provider: synthetic, connection: { system: toy }, environment: test, owner: team, sensitivity: internal }',
    'entitlements/toy.yaml': `
- { name: toy/read, target: toy, sensitivity: confidential, actions: [read], max_ttl_seconds: 600, provider: {} }
- { name: toy/look, target: toy, sensitivity: restricted, actions: [read], max_ttl_seconds: 600, provider: {} }`,
  };
  await house.broker.apply(files);
});
afterAll(async () => {
  await house?.stop();
  await Promise.all((servers ?? []).map((server) => server.stop()));
});

/** What drifts, and what does not, on each system. */
const entitlements: Readonly<Record<System, { readonly drifting: string; readonly staying: string }>> = {
  'ledger-db': { drifting: 'ledger-db/read-payments', staying: 'ledger-db/read-invoices' },
  'other-db': { drifting: 'other-db/look', staying: 'other-db/read' },
  toy: { drifting: 'toy/look', staying: 'toy/read' },
};

interface Held {
  readonly system: System;
  readonly grant: GrantBody;
  readonly credential: Credential;
}

async function hold(kind: 'drifting' | 'staying'): Promise<Held[]> {
  const client = house.client();
  const names = SYSTEMS.map((system) => entitlements[system][kind]);
  const { task } = await client.openTask(await house.sign({ entitlements: names }));
  return await Promise.all(
    SYSTEMS.flatMap((system) =>
      Array.from({ length: COUNT }, async () => ({
        system,
        ...(await client.issue(task.id, { entitlement: entitlements[system][kind], ttl_seconds: 300 })),
      })),
    ),
  );
}

/** Handles of these grants that the systems themselves still know. */
async function livingIn(system: System, held: readonly Held[]): Promise<number> {
  const ids = held.filter((each) => each.system === system).map(({ grant }) => grant.id.slice(4));
  if (system === 'toy') return ids.filter((id) => toy.system.accepts(`syn-${id}`)).length;
  const [first, second] = servers;
  const server = system === 'ledger-db' ? first : second;
  const client = new pg.Client({
    connectionString: server?.superuserUrl(system === 'ledger-db' ? house.targetDatabase : otherDatabase),
  });
  await client.connect();
  try {
    const { rowCount } = await client.query('SELECT FROM pg_roles WHERE rolname = ANY($1) AND rolcanlogin', [
      ids.map((id) => `mfy_${id.replaceAll('-', '')}`),
    ]);
    return rowCount ?? 0;
  } finally {
    await client.end();
  }
}

test('when policy drifts it is revoked in every system: one apply ends the right grants in each, and leaves the others alone', async () => {
  const [drifting, staying] = [await hold('drifting'), await hold('staying')];
  for (const system of SYSTEMS) expect(await livingIn(system, [...drifting, ...staying])).toBe(2 * COUNT);
  await house.broker.apply({
    ...files,
    'policies/test.cedar': `${files['policies/test.cedar'] ?? ''}
@id("no-restricted-data") forbid (principal, action, resource is Mayfly::Entitlement) when { resource.sensitivity == "restricted" };`,
  });

  const client = house.client();
  await vi.waitFor(
    async () => {
      for (const { grant } of drifting)
        expect(await client.grant(grant.id)).toMatchObject({ state: 'revoked', ended_by: 'drift' });
    },
    { timeout: 60_000, interval: 20 },
  );
  for (const system of SYSTEMS) {
    expect([system, await livingIn(system, drifting)]).toEqual([system, 0]);
    expect([system, await livingIn(system, staying)]).toEqual([system, COUNT]);
  }
  for (const { grant } of staying)
    expect(await client.grant(grant.id)).toMatchObject({ state: 'active', revocation: { state: 'scheduled' } });
  for (const { system, credential } of staying.filter((each) => each.system !== 'toy')) {
    const agent = new pg.Client({ connectionString: String(credential['url']) });
    await agent.connect();
    expect([system, (await agent.query('SELECT 1 FROM billing.invoices LIMIT 1')).rowCount]).toEqual([system, 1]);
    await agent.end();
  }

  const rows = await house.onStore<{ target: string; n: number; millis: number }>(
    `SELECT g.target, count(*)::int AS n, max(extract(epoch FROM r.contained_at - c.applied_at) * 1000)::float8 AS millis
     FROM mayfly.grants g JOIN mayfly.revocations r ON r.grant_id = g.id, mayfly.catalog_active a JOIN mayfly.catalog_revisions c ON c.number = a.revision
     WHERE g.ended_by = 'drift' GROUP BY 1 ORDER BY 1`,
  );
  expect(rows.map(({ target, n }) => [target, n])).toEqual(SYSTEMS.map((system) => [system, COUNT]));
  for (const { target, n, millis } of rows)
    console.log(`drift: ${n} grants on ${target} verified gone ${millis.toFixed(0)} ms after the apply`);
});
