import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { vi } from 'vitest';
import { createDevIssuer, type DevIssuer } from '../../../src/cli/dev/issuer.ts';
import { type MintedBody, MayflyClient } from '../../../src/client/index.ts';
import { readConfig } from '../../../src/config.ts';
import { createLogger } from '../../../src/http/log.ts';
import { type Broker, startBroker } from '../../../src/wiring.ts';
import { freePort } from '../free-port.ts';
import type { PostgresServer } from '../postgres-servers.ts';
import { createStore, migrationsFolder } from '../store.ts';
import { syntheticProvider } from './provider.ts';
import { type Kind, SyntheticTarget } from './target.ts';

/** What stands in the store for one grant. */
export interface Standing {
  readonly state: string;
  readonly ended_by: string | null;
  readonly revocation: string;
  readonly attempts: number;
  readonly last_error: string | null;
  readonly evidence: Readonly<Record<string, unknown>> | null;
  readonly seconds_to_try: number;
}

/** Brokers as they are wired, a real store, and targets in the memory of the test. */
export interface SyntheticHouse {
  readonly client: MayflyClient;
  readonly url: string;
  readonly issuer: DevIssuer;
  /** @throws Error for a name that is not of this house. */
  target(name: string): SyntheticTarget;
  /** Another replica on the same store and targets. */
  startReplica(): Promise<Broker>;
  /** A connection to the store as its owner, ended with the house. */
  connect(): Promise<pg.Client>;
  /** Ends one grant before its deadline. */
  release(grantId: string): Promise<void>;
  /** A task with these entitlements; each target has one, `<target>/use`. */
  openTask(...targets: string[]): Promise<string>;
  issue(task: string, target: string, ttlSeconds?: number): Promise<MintedBody>;
  standing(grantId: string): Promise<Standing>;
  onStore<R extends pg.QueryResultRow>(text: string, values?: unknown[]): Promise<R[]>;
  stop(): Promise<void>;
}

export async function startSyntheticHouse(
  server: PostgresServer,
  kinds: Readonly<Record<string, Kind>>,
  env: Readonly<Record<string, string>> = {},
  policies = '@id("all") permit (principal, action, resource);',
): Promise<SyntheticHouse> {
  const closing: (() => Promise<unknown>)[] = [];
  const stop = async () => {
    for (const close of closing.splice(0).reverse()) await close();
  };
  try {
    const targets = new Map(Object.entries(kinds).map(([name, kind]) => [name, new SyntheticTarget(kind)]));
    const folder = mkdtempSync(join(tmpdir(), 'mayfly-synthetic-'));
    closing.push(async () => rmSync(folder, { recursive: true, force: true }));
    const store = await createStore(server);
    const issuerPort = await freePort();
    const issuer = await createDevIssuer({ dir: join(folder, 'dev'), port: issuerPort });
    await issuer.start();
    closing.push(() => issuer.stop());

    const port = await freePort();
    const url = `http://127.0.0.1:${port}`;
    const start = async (listen: number) => {
      const config = readConfig({
        MAYFLY_PORT: String(listen),
        MAYFLY_PUBLIC_URL: url,
        MAYFLY_LOG_LEVEL: 'silent',
        MAYFLY_PROVIDERS: 'synthetic',
        MAYFLY_SHUTDOWN_SECONDS: '1',
        ...env,
      });
      const broker = await startBroker({
        config: { ...config, database_url: store.runtimeUrl },
        dev: true,
        migrationsFolder,
        env: {},
        log: createLogger(config.log_level, process.stderr),
        importPackage: async () => ({ provider: syntheticProvider(targets) }),
      });
      closing.push(() => broker.stop());
      return broker;
    };
    const owner = new pg.Pool({ connectionString: store.ownerUrl.reveal(), max: 2 });
    owner.on('error', () => {});
    closing.push(() => owner.end());
    const onStore: SyntheticHouse['onStore'] = async (text, values = []) => (await owner.query(text, values)).rows;
    const broker = await start(port);
    await broker.apply(catalogFiles(issuerPort, Object.keys(kinds), policies), 'test');
    // Held before anything is asked for: what loses its facts is then known to have been intended under that tenure.
    await vi.waitFor(
      async () => {
        const held = await onStore('SELECT DISTINCT target FROM mayfly.tenures');
        if (held.length < targets.size) throw new Error('not every target is held yet');
      },
      { timeout: 60_000, interval: 25 },
    );
    const token = async () =>
      (await issuer.signWorkloadToken({ subject: 'agent', audience: url, ttl_seconds: 900 })).token;
    const client = new MayflyClient({ url, token });

    return {
      client,
      url,
      issuer,
      target: (name) => {
        const target = targets.get(name);
        if (target === undefined) throw new Error(`no target ${name}`);
        return target;
      },
      connect: async () => {
        const connection = new pg.Client({ connectionString: store.ownerUrl.reveal() });
        await connection.connect();
        closing.push(() => connection.end());
        return connection;
      },
      release: async (grantId) => {
        const headers = { authorization: `Bearer ${await token()}` };
        const { status } = await fetch(`${url}/v1/grants/${grantId}`, { method: 'DELETE', headers });
        if (status !== 202) throw new Error(`release answered ${status}`);
      },
      startReplica: async () => await start(await freePort()),
      openTask: async (...names) => {
        const signed = await issuer.signTaskRequest({
          audience: url,
          workload_subject: 'agent',
          subject: 'user:dana',
          purpose: 'test',
          entitlements: names.map((name) => `${name}/use`),
          ttl_seconds: 900,
        });
        return (await client.openTask(signed.token)).task.id;
      },
      issue: async (task, target, ttl = 300) =>
        (await client.issue(task, { entitlement: `${target}/use`, ttl_seconds: ttl })).grant,
      standing: async (grantId) => {
        const [row] = await onStore<Standing & pg.QueryResultRow>(
          `SELECT g.state, g.ended_by, r.state AS revocation, r.attempts, r.last_error, r.evidence,
             extract(epoch FROM r.try_at - clock_timestamp())::float8 AS seconds_to_try
           FROM mayfly.grants g JOIN mayfly.revocations r ON r.grant_id = g.id WHERE g.id = $1`,
          [grantId.replace('grt_', '')],
        );
        if (row === undefined) throw new Error(`no grant ${grantId}`);
        return row;
      },
      onStore,
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

function catalogFiles(issuerPort: number, targets: readonly string[], policies: string): Record<string, string> {
  const issuer = `http://127.0.0.1:${issuerPort}`;
  const jwks = (kind: string) =>
    `dev: true, issuer: ${issuer}/${kind}, jwks: { url: ${issuer}/${kind}/jwks.json }, algorithms: [ES256]`;
  return {
    'trust.yaml': `
task_issuers:
  - { name: orchestrator, ${jwks('orchestrator')}, purposes: [test], workloads: ["dev:agent"], max_task_seconds: 3600, proof_of_possession: none }
workload_sources:
  - { name: dev, kind: oidc, ${jwks('workloads')} }
operators:
  - { name: dev-operators, ${jwks('operators')}, claim: roles, roles: { viewer: [viewer], operator: [operator], auditor: [auditor] } }
`,
    'purposes.yaml': `[{ name: test, description: to test, phases: [], max_life_seconds: 3600 }]`,
    'policies/test.cedar': policies,
    ...Object.fromEntries(
      targets.flatMap((name) => [
        [
          `targets/${name}.yaml`,
          `{ name: ${name}, provider: synthetic, connection: { system: ${name} }, environment: test, owner: team, sensitivity: internal }`,
        ],
        [
          `entitlements/${name}.yaml`,
          `[{ name: ${name}/use, target: ${name}, sensitivity: internal, actions: [read], max_ttl_seconds: 900, provider: {} }]`,
        ],
      ]),
    ),
  };
}
