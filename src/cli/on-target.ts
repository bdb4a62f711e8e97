import { readFileSync } from 'node:fs';
import { loadCatalog } from '../catalog/load.ts';
import { createSecretResolver } from '../catalog/secrets.ts';
import { TargetSessions } from '../catalog/target-sessions.ts';
import type { Catalog, TargetDefinition } from '../catalog/types.ts';
import { Secret } from '../domain/secret.ts';
import type { PreparedEntitlement, Provider } from '../provider.ts';
import { Ownership } from '../revocation/ownership.ts';
import { findActiveRevisionNumber, findRevision } from '../store/catalog-revisions.ts';
import type { Database } from '../store/database.ts';
import { findInstallation } from '../store/installation.ts';
import { readStoreIdentity } from '../store/tenures.ts';
import { CliError } from './fail.ts';
import { note } from './output.ts';
import { openStore } from './store.ts';

/** @param file `-` for stdin. */
export function readAdminUrl(file: string): Secret<string> {
  return new Secret(readFileSync(file === '-' ? 0 : file, 'utf8').trim());
}

interface TargetContext {
  readonly db: Database;
  /** What tells this store from a copy of it. */
  readonly store: string;
  readonly policyDigest: string;
  readonly definition: TargetDefinition;
  readonly provider: Provider;
  readonly session: ReturnType<TargetSessions['get']>;
  readonly entitlements: readonly PreparedEntitlement[];
  readonly installation: string;
  /** The password of the broker's own login on the target; null where the catalog names none, as it logs in otherwise. */
  readonly secret: () => Secret<string> | null;
}

/** A target of the active catalog, to be worked on as the broker of this store would. */
export async function onTarget(name: string, work: (context: TargetContext) => Promise<void>): Promise<void> {
  const { db, providers, secretsDir } = await openStore();
  try {
    const installation = await findInstallation(db);
    const number = await findActiveRevisionNumber(db);
    const revision = number === null ? undefined : await findRevision(db, number);
    if (installation === undefined || revision === undefined)
      throw new CliError('No catalog is active yet: mayfly catalog apply DIR.');
    const catalog = loadCatalog(revision.files, { providers, allowDev: installation.dev });
    const definition = catalog.targets.get(name);
    const provider = definition && providers.get(definition.provider);
    if (definition === undefined || provider === undefined) {
      throw new CliError(
        `The active catalog has no target ${name}. It has: ${[...catalog.targets.keys()].join(', ')}.`,
      );
    }
    const secret = createSecretResolver({ secretsDir, env: process.env });
    const sessions = new TargetSessions({
      providers,
      installation: installation.id,
      secret,
      log: (_event, message) => note(message),
    });
    const store = await readStoreIdentity(db);
    const deps = {
      ...{ policyDigest: () => revision.digest, worker: 'cli', found: { stranger: () => {} } },
      log: (_event: Readonly<Record<string, unknown>>, message: string) => note(message),
    };
    const ownership = new Ownership({ deps, db, installation: installation.id, store });
    try {
      await work({
        db,
        store,
        policyDigest: revision.digest,
        definition,
        provider,
        session: ownership.guard(name, sessions.get(definition)),
        entitlements: entitlementsOf(catalog, definition),
        installation: installation.id,
        secret: () => {
          const reference = passwordReference(definition);
          return reference === undefined ? null : secret(name, reference);
        },
      });
    } finally {
      await sessions.close();
    }
  } finally {
    await db.close();
  }
}

export function entitlementsOf(catalog: Catalog, target: TargetDefinition): PreparedEntitlement[] {
  return [...catalog.entitlements.values()]
    .filter((entitlement) => entitlement.target === target.name)
    .map(({ name, maxTtlSeconds, params, provider, onOwnedObjects }) => ({
      ...{ name, maxTtlSeconds, params, onOwnedObjects },
      config: provider,
    }));
}

/** Where the password of the broker's own login stands, if it has one. */
export function passwordReference(definition: TargetDefinition): string | undefined {
  const { connection } = definition;
  const reference =
    typeof connection === 'object' && connection !== null && 'password' in connection ? connection.password : undefined;
  return typeof reference === 'string' ? reference : undefined;
}
