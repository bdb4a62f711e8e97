import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { applyCatalog } from './broker/apply-catalog.ts';
import type { BrokerDeps } from './broker/deps.ts';
import { KillKeeper } from './broker/keep-kills.ts';
import { DriftSweeper } from './broker/drift-sweeper.ts';
import { expireTasks } from './broker/end-task.ts';
import { digestInForce } from './broker/evidence.ts';
import { lapseOverdueApprovals } from './broker/lapse-approvals.ts';
import { OneAtATime, type Proposals } from './broker/proposals.ts';
import { accessFor } from './broker/target-access.ts';
import { validated } from './broker/what-if.ts';
import { ActiveCatalog } from './catalog/active.ts';
import { checkCatalog } from './catalog/check.ts';
import { loadCatalog } from './catalog/load.ts';
import { type ImportPackage, loadProviders } from './catalog/provider-registry.ts';
import { createSecretResolver } from './catalog/secrets.ts';
import { TargetSessions } from './catalog/target-sessions.ts';
import type { Config } from './config.ts';
import { approvalTerms } from './config/limits.ts';
import { randomIds } from './domain/ids.ts';
import type { Secret } from './domain/secret.ts';
import { bounded } from './domain/within.ts';
import { createApp } from './http/app.ts';
import type { Logger } from './http/log.ts';
import { readyParts } from './http/ready-parts.ts';
import { startServer } from './http/server.ts';
import { readCatalogKeys } from './identity/catalog-signature.ts';
import { scrapeSources } from './broker/scrape-sources.ts';
import { createIdentity } from './identity/index.ts';
import { checkStore } from './store/check-store.ts';
import { createMetrics } from './metrics.ts';
import { createPolicyEngine } from './policy/engine.ts';
import { AlarmClock } from './revocation/alarm-clock.ts';
import type { RevocationDeps } from './revocation/deps.ts';
import { RevocationEngine } from './revocation/engine.ts';
import { EveryWebhook } from './revocation/every-webhook.ts';
import { OutageFencer } from './revocation/outage-fencer.ts';
import { Ownership } from './revocation/ownership.ts';
import type { ReconcileDeps } from './revocation/reconcile-deps.ts';
import { Reconciler } from './revocation/reconciler.ts';
import { findActiveRevisionNumber, findRevision } from './store/catalog-revisions.ts';
import { Changes } from './store/changes.ts';
import { Database } from './store/database.ts';
import { coalescedIssuing } from './store/issuing.ts';
import { coalescedOwnedGrants } from './store/owned-grants.ts';
import { OwnedRoots } from './store/owned-roots.ts';
import { compareSchema } from './store/migrate.ts';
import { SharedNonces } from './store/nonces.ts';
import { coalescedProofs } from './store/proofs.ts';
import { TaskEvaluations } from './store/task-evaluations.ts';
import { TasksAlive } from './store/tasks-alive.ts';
import { readStoreIdentity } from './store/tenures.ts';

/** A replica that lags behind an apply notices at the latest after this. */
const CATALOG_POLL_MILLIS = 5_000;

export interface BrokerOptions {
  readonly config: Config & { readonly database_url: Secret<string> };
  /** `mayfly dev`: believes in dev trust, and insists on a store that dev mode made. */
  readonly dev: boolean;
  readonly migrationsFolder: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly log: Logger;
  /** Where providers that are not ours come from. */
  readonly importPackage?: ImportPackage;
}

export interface Broker {
  readonly url: string;
  readonly port: number;
  readonly installation: string;
  /** Checks the files and makes them the active revision. Undefined when they are it already. */
  apply(files: Readonly<Record<string, string>>, by: string): Promise<number | undefined>;
  /** Drains requests, then revocations in hand. Said again, it is the same stop. */
  stop(): Promise<void>;
}

/** Everything that makes a broker, joined. Nothing else knows how. */
export async function startBroker(options: BrokerOptions): Promise<Broker> {
  const { config, log } = options;
  const trouble = (error: unknown) => log.warn({ error }, 'a connection to the store is in trouble');
  const metrics = createMetrics();

  const changes = new Changes({
    url: config.database_url,
    onError: trouble,
    onCatalog: () => void catalog.refresh(),
    onDrift: () => drift.wake(),
  });
  const db = new Database({
    url: config.database_url,
    connections: config.database_connections,
    onError: trouble,
    onChanged: (ids) => changes.publish(ids),
  });
  const schema = async () =>
    compareSchema((text) => db.query<{ name: string }>({ text, values: [] }), options.migrationsFolder);
  const installation = await checkStore(db, schema, options);

  const providers = await loadProviders(config.providers, options.importPackage);
  const proposals: Proposals = {
    check: (files) => checkCatalog(files, { providers, allowDev: options.dev }),
    turn: new OneAtATime(),
    maxDriftShare: config.max_drift_share,
    keys: readCatalogKeys(config),
    published: () => changes.publishCatalog(),
  };
  const load = (files: Readonly<Record<string, string>>) => loadCatalog(files, { providers, allowDev: options.dev });
  const resolveSecret = createSecretResolver({ secretsDir: config.secrets_dir, env: options.env });
  const sessions = new TargetSessions({
    providers,
    ...{ installation: installation.id, secret: resolveSecret, troubled: metrics.loginFailing },
    log: (event, message) => log[event['alert'] === undefined ? 'info' : 'warn'](event, message),
  });
  const identity = createIdentity({
    // No target's name begins so: no target reaches the secrets of a workload source, nor the reverse.
    secret: (source, reference) => resolveSecret(`_sources/${source}`, reference),
    ...{ observer: metrics, certificates: config.tls_client_certificates !== 'off' },
    log: (event) => log[/_(loaded|fetched)$/.test(event.event) ? 'debug' : 'warn'](event, 'keys of an issuer'),
  });

  const catalog = new ActiveCatalog({
    readActiveNumber: () => findActiveRevisionNumber(db),
    readFiles: async (number) => (await findRevision(db, number))?.files,
    load,
    vouch: async (number, loaded) =>
      void (await proposals.keys?.verify((await findRevision(db, number))?.signature ?? null, loaded)),
    createPolicy: (loaded) => createPolicyEngine(loaded.policySet, loaded.digest),
    onChange: (active) => {
      log.info({ revision: active.number, digest: active.catalog.digest }, 'this catalog revision answers now');
      metrics.catalogRevision(active.number);
      engine.watch(active.catalog.targets.keys());
      drift.revise();
      void identity.warmUp(active.catalog.trust);
    },
    onError: (error) => log.error({ error }, 'the active catalog can not be loaded; the one before stays'),
  });

  const revocationDeps: RevocationDeps = {
    db,
    targetAt: (name, revision, asGranted) => catalog.targetAt(name, revision, asGranted),
    session: (target) => ownership.guard(target.name, sessions.get(target)),
    unclaimed: (target, millis) => outage.unclaimed(target, millis),
    policyDigest: () => digestInForce(catalog),
    observer: metrics,
    worker: `${hostname()}-${process.pid}-${randomUUID().slice(0, 8)}`,
    random: Math.random,
    log: (event, message) => log.warn(event, message),
  };
  const outage = new OutageFencer(revocationDeps);
  const clock = new AlarmClock({
    backend:
      config.redis_url === undefined
        ? { kind: 'postgres', url: config.database_url }
        : { kind: 'redis', url: config.redis_url },
    ring: (target) => engine.wake(target),
    rang: (backend, lagSeconds) => metrics.rang(backend, lagSeconds),
    log: (event, message) => log.warn(event, message),
  });
  const engine = new RevocationEngine({
    deps: revocationDeps,
    clock,
    sweepSeconds: config.sweep_seconds,
    overdueSeconds: config.overdue_seconds,
    expireTasks: (limit) => expireTasks({ db, catalog, alarms: engine }, limit),
    lapseApprovals: (limit) => lapseOverdueApprovals({ db, catalog }, limit),
  });

  const reconcileDeps: ReconcileDeps = {
    ...revocationDeps,
    found: metrics,
    targets: () => (catalog.ready ? catalog.current().catalog.targets.values() : []),
    ...{ revision: () => catalog.current().number, maxChangedShare: config.max_changed_share },
    entitlement: (name) => catalog.current().catalog.entitlements.get(name)?.provider,
    wake: (target) => engine.now(target),
  };
  const ownership = new Ownership({
    ...{ deps: reconcileDeps, db, installation: installation.id },
    store: await readStoreIdentity(db),
  });
  const reconciler = new Reconciler({
    ...{ deps: reconcileDeps, ownership, installation: installation.id },
    graceSeconds: config.orphan_grace_seconds,
    everySeconds: config.reconcile_seconds,
  });

  const drift = new DriftSweeper({
    deps: { db, catalog, alarms: engine, ids: randomIds },
    everySeconds: config.sweep_seconds,
    observer: metrics,
    spread: () => changes.publishDrift(),
    log: (event, message) => log.error(event, message),
  });

  const kept = new KillKeeper({
    deps: { db, catalog, alarms: engine },
    worker: revocationDeps.worker,
    log: (event, message) => log.error(event, message),
  });

  const broker: BrokerDeps = {
    db,
    ...{ issuing: coalescedIssuing(db), ownedGrants: coalescedOwnedGrants(db), ownedRoots: new OwnedRoots(db) },
    proofs: coalescedProofs(db),
    nonces: config.dpop_nonce === 'required' ? new SharedNonces(db) : null,
    ...{ changes, catalog, identity },
    access: accessFor(catalog, revocationDeps.session),
    ...{ alarms: engine, living: outage, drift, kept, observer: metrics, ids: randomIds, proposals },
    ...{ audience: config.public_url, mintSeconds: config.mint_seconds },
    ...{ mintsPerTask: config.mints_per_task, sessionSeconds: config.session_seconds },
    approvals: approvalTerms(config),
    tasksAlive: new TasksAlive(db, config.tasks_per_issuer),
    taskEvaluations: new TaskEvaluations(db, config.evaluations_per_task),
    log: (event, message) => log.error(event, message),
  };

  const { webhook_url: endpointUrl, webhook_secret: signedBy } = config;
  const webhooks = new EveryWebhook({
    ...{ db, observer: metrics, random: Math.random, secret: resolveSecret, url: config.public_url },
    endpoint: endpointUrl === undefined || signedBy === undefined ? undefined : { url: endpointUrl, secret: signedBy },
    webhooks: () => (catalog.ready ? catalog.current().catalog.webhooks : []),
    log: (event, message) => log.warn(event, message),
  });

  let draining = false;
  let stopped: Promise<void> | undefined;
  const readiness = readyParts({
    schema,
    activeRevision: () => findActiveRevisionNumber(db),
    catalog,
    sweepAge: () => engine.sweepAge,
    sweepSeconds: config.sweep_seconds,
    draining: () => draining,
  });
  const app = createApp({
    broker,
    config,
    readiness,
    metrics,
    ...scrapeSources(db, catalog),
    sweepAge: () => engine.sweepAge,
    log,
    draining: () => draining,
  });

  let poll: NodeJS.Timeout | undefined;
  let server: Awaited<ReturnType<typeof startServer>>;
  try {
    await changes.start();
    await catalog.refresh();
    engine.start();
    drift.start();
    kept.start();
    webhooks.start();
    ownership.start(() => [...reconcileDeps.targets()].map((target) => [target.name, sessions.get(target)] as const));
    reconciler.start();
    outage.start();
    poll = setInterval(() => void catalog.refresh(), CATALOG_POLL_MILLIS);
    server = await startServer({ app, config, log });
  } catch (error) {
    await release();
    throw error;
  }

  return {
    url: server.url,
    port: server.port,
    installation: installation.id,
    apply: async (files, by) => {
      const { check, published } = proposals;
      const applied = await applyCatalog({ db, published }, validated(check(files)), by, 'cli');
      await catalog.refresh();
      return applied?.number;
    },
    stop: () => (stopped ??= stop()),
  };

  async function stop(): Promise<void> {
    draining = true;
    await server.close(config.shutdown_seconds);
    await release();
  }

  /** Lets go of everything but the listener: after a stop, and when the start failed half way. */
  async function release(): Promise<void> {
    clearInterval(poll);
    await webhooks.stop();
    // What still works on a sick target then is left to its lease: another replica takes it over.
    await bounded(config.shutdown_seconds * 1000, [], () =>
      Promise.all([drift.stop(), kept.stop(), engine.stop(), reconciler.stop(), outage.stop(), ownership.stop()]),
    ).catch((error: unknown) => log.warn({ error }, 'revocations in hand did not end with the broker'));
    identity.close();
    await changes.close();
    await sessions.close();
    catalog.close();
    await db.close();
  }
}
