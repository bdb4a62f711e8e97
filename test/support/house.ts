import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { loadCatalog } from '../../src/catalog/load.ts';
import { type ImportPackage, loadProviders } from '../../src/catalog/provider-registry.ts';
import { createDevIssuer, type DevIssuer } from '../../src/cli/dev/issuer.ts';
import { type AgentKey, MayflyClient } from '../../src/client/index.ts';
import { readConfig } from '../../src/config.ts';
import { Secret } from '../../src/domain/secret.ts';
import { createLogger } from '../../src/http/log.ts';
import { startBroker } from '../../src/wiring.ts';
import { type Fall, type ProcessSettings, type RunningBroker, startBrokerProcess } from './broker-process.ts';
import { freePort } from './free-port.ts';
import { type PostgresServer, startPostgres } from './postgres-servers.ts';
import { createStore, migrationsFolder, type TestStore } from './store.ts';

export interface HouseOptions {
  /** Use this server for store and target instead of one of its own. */
  readonly server?: PostgresServer;
  /** The target's server, where it is another. */
  readonly targetServer?: PostgresServer;
  /** Where the broker reaches the target, when something stands between. */
  readonly targetPort?: number;
  /** Where the broker reaches the store, when something stands between. */
  readonly storePort?: number;
  readonly env?: Readonly<Record<string, string>>;
  /** Files over those of the small catalog; undefined takes one away. */
  readonly files?: Readonly<Record<string, string | undefined>>;
  readonly logTo?: NodeJS.WritableStream;
  /** The target's own cap on live roles per template. */
  readonly maxLive?: number;
  /** Whether tasks must name the agent's key. Default: `none`, so that most tests need no keys. */
  readonly proofOfPossession?: 'required' | 'none';
  /** Where providers that are not ours come from. Only in the process of the test. */
  readonly importPackage?: ImportPackage;
  /** False: the broker runs in a process of its own, which `kill` can end. */
  readonly inProcess?: boolean;
}

/** A whole broker on real systems: store, target, issuer, catalog. */
export interface House {
  readonly server: PostgresServer;
  readonly targetServer: PostgresServer;
  readonly store: TestStore;
  readonly issuer: DevIssuer;
  readonly url: string;
  readonly targetDatabase: string;
  readonly files: Readonly<Record<string, string>>;
  /** The password of the broker's own login on the target. */
  readonly targetPassword: string;
  /** For MAYFLY_DIR: the issuer's keys and secret, and where everything is, as dev mode leaves them. */
  readonly devDir: string;
  /** MAYFLY_SECRETS_DIR. */
  readonly secretsDir: string;
  broker: RunningBroker;
  /** The first replica again, on its own port, after it was killed. */
  restart(falls?: readonly Fall[]): Promise<RunningBroker>;
  /** Another replica on the same store and target. */
  startReplica(
    env?: Readonly<Record<string, string>>,
    falls?: readonly Fall[],
    clockOffMillis?: number,
  ): Promise<RunningBroker>;
  client(workload?: string, url?: string, key?: AgentKey, token?: () => Promise<string>): MayflyClient;
  token(workload?: string): Promise<string>;
  sign(options?: Partial<SignOptions>): Promise<string>;
  /** A superuser's query on the target. */
  onTarget<R extends pg.QueryResultRow = pg.QueryResultRow>(text: string, values?: unknown[]): Promise<R[]>;
  /** A query on the store, as its owner. */
  onStore<R extends pg.QueryResultRow = pg.QueryResultRow>(text: string, values?: unknown[]): Promise<R[]>;
  stop(): Promise<void>;
}

export interface SignOptions {
  readonly workload: string;
  readonly subject: string;
  readonly purpose: string;
  readonly phase: string;
  readonly entitlements: string[];
  readonly ttl: number;
  readonly maxTtl: number;
  readonly externalId: string;
  /** Of the key that the task names. */
  readonly keyThumbprint: string;
  /** Of another key that credentials may be sealed to. */
  readonly deliveryThumbprint: string;
  readonly maxDepth: number;
  readonly params: Record<string, string | number | boolean>;
}

/** One agent at one address is a whole fleet here. */
const plenty = {
  MAYFLY_CALLS_PER_ADDRESS: '999999999',
  MAYFLY_CALLS_PER_CALLER: '999999999',
  MAYFLY_EVALUATIONS_PER_CALLER: '999999999',
  MAYFLY_EVALUATIONS_PER_TASK: '999999999',
  MAYFLY_POLLS_PER_CALLER: '999999999',
  MAYFLY_MINTS_PER_TASK: '999999999',
};

let made = 0;

export async function startHouse(options: HouseOptions = {}): Promise<House> {
  const closing: (() => Promise<unknown>)[] = [];
  const stop = async () => {
    for (const close of closing.splice(0).reverse()) await close();
  };
  try {
    const server = options.server ?? (await startPostgres({ version: 18 }));
    if (options.server === undefined) closing.push(() => server.stop());
    const targetServer = options.targetServer ?? server;
    const folder = mkdtempSync(join(tmpdir(), 'mayfly-house-'));
    closing.push(async () => rmSync(folder, { recursive: true, force: true }));
    const store = await createStore(server);
    const targetDatabase = await makeTarget(targetServer);

    const issuerPort = await freePort();
    const devDir = join(folder, 'dev');
    const issuer = await createDevIssuer({ dir: devDir, port: issuerPort });
    await issuer.start();
    closing.push(() => issuer.stop());

    const secretsDir = join(folder, 'secrets');
    mkdirSync(join(secretsDir, 'ledger-db'), { recursive: true });
    writeFileSync(join(secretsDir, 'ledger-db', 'password'), `pw-${store.database}`, { mode: 0o600 });
    const files = catalogFiles(
      issuerPort,
      options.targetPort ?? targetServer.port,
      targetDatabase,
      brokerLogin(targetDatabase),
      options.files,
      options.maxLive,
      options.proofOfPossession,
    );

    const port = await freePort();
    const url = `http://127.0.0.1:${port}`;
    const state = { url, issuer_url: `http://127.0.0.1:${issuerPort}`, postgres_port: server.port };
    writeFileSync(join(devDir, 'dev.json'), JSON.stringify(state));
    const brokers: RunningBroker[] = [];
    closing.push(() => Promise.all(brokers.map((broker) => broker.stop())));
    const storeUrl = new URL(store.runtimeUrl.reveal());
    storeUrl.port = String(options.storePort ?? server.port);
    const start = async (
      listen: number,
      env: Readonly<Record<string, string>> = {},
      falls: readonly Fall[] = [],
      clockOffMillis = 0,
    ) => {
      const settings: ProcessSettings = {
        env: {
          MAYFLY_PORT: String(listen),
          MAYFLY_LOG_LEVEL: 'silent',
          MAYFLY_SECRETS_DIR: secretsDir,
          // Every replica believes itself to be the one public URL.
          MAYFLY_PUBLIC_URL: url,
          ...plenty,
          ...options.env,
          ...env,
        },
        databaseUrl: storeUrl.href,
        falls,
        clockOffMillis,
      };
      const broker =
        options.inProcess === false
          ? await startBrokerProcess(settings, options.logTo)
          : await startHere(settings, options);
      brokers.push(broker);
      return broker;
    };
    const targetPassword = `pw-${store.database}`;
    const [installation] = await query<{ id: string }>(
      store.ownerUrl.reveal(),
      'SELECT id FROM mayfly.installation',
      [],
    );
    await prepareTarget(targetServer, files, installation?.id ?? '', targetPassword);
    const broker = await start(port);
    await broker.apply(files);

    const token = async (workload = 'agent-recon') =>
      (await issuer.signWorkloadToken({ subject: workload, audience: url, ttl_seconds: 900 })).token;
    return {
      server,
      targetServer,
      store,
      issuer,
      url,
      targetDatabase,
      files,
      targetPassword,
      devDir,
      secretsDir,
      broker,
      restart: (falls) => start(port, {}, falls),
      startReplica: async (env, falls, clockOffMillis) => start(await freePort(), env, falls, clockOffMillis),
      client: (workload, at = url, key, own) =>
        new MayflyClient({ url: at, token: own ?? (() => token(workload)), ...(key === undefined ? {} : { key }) }),
      token,
      sign: async (wanted = {}) =>
        (
          await issuer.signTaskRequest({
            audience: url,
            workload_subject: wanted.workload ?? 'agent-recon',
            subject: wanted.subject ?? 'user:dana',
            purpose: wanted.purpose ?? 'reconcile.invoices',
            entitlements: wanted.entitlements ?? ['ledger-db/read-invoices'],
            ttl_seconds: wanted.ttl ?? 900,
            ...(wanted.phase === undefined ? {} : { phase: wanted.phase }),
            ...(wanted.maxTtl === undefined ? {} : { max_ttl_seconds: wanted.maxTtl }),
            ...(wanted.externalId === undefined ? {} : { external_id: wanted.externalId }),
            ...(wanted.keyThumbprint === undefined ? {} : { key_thumbprint: wanted.keyThumbprint }),
            ...(wanted.deliveryThumbprint === undefined ? {} : { delivery_thumbprint: wanted.deliveryThumbprint }),
            ...(wanted.maxDepth === undefined ? {} : { max_depth: wanted.maxDepth }),
            ...(wanted.params === undefined ? {} : { params: wanted.params }),
          })
        ).token,
      onTarget: (text, values = []) => query(targetServer.superuserUrl(targetDatabase), text, values),
      onStore: (text, values = []) => query(store.ownerUrl.reveal(), text, values),
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** A login of its own for each target database: roles are the cluster's. */
function brokerLogin(database: string): string {
  return `${database}_broker`;
}

/**
 * Store and target are often one server here. Whoever takes longer to log in there than a tenth of a second, as on a busy machine, is
 * taken for a login that sleeps when something is fenced meanwhile, and its connection is ended: then it is asked anew.
 */
const TERMINATED = '57P01';

async function query<R extends pg.QueryResultRow>(
  connectionString: string,
  text: string,
  values: unknown[],
): Promise<R[]> {
  for (;;) {
    const client = new pg.Client({ connectionString });
    client.on('error', () => {});
    try {
      await client.connect();
      return (await client.query<R>(text, values)).rows;
    } catch (error) {
      if (!(error instanceof pg.DatabaseError) || error.code !== TERMINATED) throw error;
    } finally {
      await client.end().catch(() => {});
    }
  }
}

async function startHere(
  { env, databaseUrl }: ProcessSettings,
  { logTo, importPackage }: HouseOptions,
): Promise<RunningBroker> {
  const config = { ...readConfig(env), database_url: new Secret(databaseUrl) };
  const broker = await startBroker({
    config,
    dev: true,
    migrationsFolder,
    env,
    log: createLogger(config.log_level, logTo),
    ...(importPackage === undefined ? {} : { importPackage }),
  });
  return {
    url: broker.url,
    installation: broker.installation,
    apply: async (files) => {
      await broker.apply(files, 'test');
    },
    stop: () => broker.stop(),
    signal: ownProcess,
    fallAt: ownProcess,
    reached: ownProcess,
  };
}

async function ownProcess(): Promise<never> {
  throw new Error('this broker runs in the process of the test');
}

/** A database with something to read, for a target. */
export async function makeTarget(server: PostgresServer): Promise<string> {
  const name = `ledger_${process.pid}_${++made}`;
  const client = new pg.Client({ connectionString: await server.createDatabase(name) });
  await client.connect();
  await client.query(`REVOKE CREATE ON SCHEMA public FROM PUBLIC;
    REVOKE TEMPORARY ON DATABASE ${name} FROM PUBLIC;
    CREATE SCHEMA billing;
    CREATE TABLE billing.invoices AS SELECT n AS id, 'open' AS status, n * 10 AS total FROM generate_series(1, 100) n;
    CREATE TABLE billing.payments AS SELECT n AS id, n * 10 AS amount FROM generate_series(1, 100) n;
    ALTER DATABASE ${name} SET search_path = billing, public;`);
  await client.end();
  return name;
}

/** What a person with more rights than the broker does once for a target. */
export async function prepareTarget(
  server: PostgresServer,
  files: Readonly<Record<string, string>>,
  installation: string,
  password: string,
  name = 'ledger-db',
): Promise<void> {
  const providers = await loadProviders(['postgres']);
  const provider = providers.get('postgres');
  const catalog = loadCatalog(files, { providers, allowDev: true });
  const target = catalog.targets.get(name);
  if (provider?.preparation?.apply === undefined || target === undefined) throw new Error('nothing to prepare');
  const connection = { ...record(target.connection), port: server.port };
  const entitlements = [...catalog.entitlements.values()]
    .filter((entitlement) => entitlement.target === name)
    .map((entitlement) => ({
      name: entitlement.name,
      maxTtlSeconds: entitlement.maxTtlSeconds,
      config: entitlement.provider,
    }));
  await provider.preparation.apply(
    new Secret(server.superuserUrl()),
    connection,
    entitlements,
    installation,
    new Secret(password),
  );
}

function record(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? { ...value } : {};
}

/** Small, and permissive where the example is strict: tests change what they are about. */
function catalogFiles(
  issuerPort: number,
  port: number,
  database: string,
  user: string,
  over: HouseOptions['files'],
  maxLive = 500,
  proofOfPossession: 'required' | 'none' = 'none',
): Record<string, string> {
  const issuer = `http://127.0.0.1:${issuerPort}`;
  const suffix = database.replace('ledger', '');
  const files: Record<string, string | undefined> = {
    'trust.yaml': `
task_issuers:
  - { name: dev-orchestrator, dev: true, issuer: ${issuer}/orchestrator, jwks: { url: ${issuer}/orchestrator/jwks.json }, algorithms: [ES256],
      purposes: [reconcile.invoices, answer.customer], workloads: ["dev:agent-recon", "dev:agent-support"], max_task_seconds: 3600,
      proof_of_possession: ${proofOfPossession} }
workload_sources:
  - { name: dev, kind: oidc, dev: true, issuer: ${issuer}/workloads, jwks: { url: ${issuer}/workloads/jwks.json }, algorithms: [ES256] }
operators:
  - { name: dev-operators, dev: true, issuer: ${issuer}/operators, jwks: { url: ${issuer}/operators/jwks.json }, algorithms: [ES256], claim: roles,
      roles: { viewer: [viewer], operator: [operator], auditor: [auditor], admin: [admin] } }
`,
    'purposes.yaml': `
- { name: reconcile.invoices, description: match payments, phases: [plan, execute, closing], max_life_seconds: 3600 }
- { name: answer.customer, description: answer, phases: [], max_life_seconds: 1800 }
`,
    'targets/ledger-db.yaml': `
name: ledger-db
provider: postgres
connection: { host: 127.0.0.1, port: ${port}, database: ${database}, user: ${user}, password: "file:password", sslmode: disable }
environment: demo
owner: team-finance
sensitivity: confidential
labels: {}
`,
    'entitlements/ledger-db.yaml': `
- name: ledger-db/read-invoices
  target: ledger-db
  sensitivity: confidential
  actions: [read]
  max_ttl_seconds: 600
  provider: { template: mayfly_t_read_invoices${suffix}, privileges: [{ schema: billing, tables: [invoices], grant: [SELECT] }], connection_limit: 4, max_live: ${maxLive} }
- name: ledger-db/read-payments
  target: ledger-db
  sensitivity: restricted
  actions: [read]
  max_ttl_seconds: 300
  provider: { template: mayfly_t_read_payments${suffix}, privileges: [{ schema: billing, tables: [payments], grant: [SELECT] }], connection_limit: 4, max_live: ${maxLive} }
`,
    'policies/test.cedar': `
@id("read-invoices") @max_ttl("5m")
permit (principal is Mayfly::Task, action, resource == Mayfly::Entitlement::"ledger-db/read-invoices");
@id("payments-while-executing") @max_ttl("2m")
permit (principal is Mayfly::Task, action in [Mayfly::Action::"issue", Mayfly::Action::"retain"], resource == Mayfly::Entitlement::"ledger-db/read-payments")
when { principal.phase == "execute" };
@id("no-payments-for-support") @reason("Support does not see payments.")
forbid (principal is Mayfly::Task, action, resource == Mayfly::Entitlement::"ledger-db/read-payments")
when { principal.purpose == "answer.customer" };
`,
    ...over,
  };
  return Object.fromEntries(
    Object.entries(files).flatMap(([path, text]) => (text === undefined ? [] : [[path, text]])),
  );
}
