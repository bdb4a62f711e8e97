import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { uuidv7 } from '../../src/domain/ids.ts';
import {
  type Facts,
  type Minted,
  type MintRequest,
  ProviderError,
  type Ref,
  Secret,
  type Session,
} from '../../src/provider.ts';
import { provider } from '../../providers/vault/index.ts';
import { entitlementSchema, targetSchema, type VaultEntitlement } from '../../providers/vault/schema.ts';
import { findGoServer } from '../support/go-server.ts';
import { openbaoSources, type OpenbaoServer, startOpenbao, type VaultFlavour } from '../support/openbao.ts';
import type { PostgresServer } from '../support/postgres-servers.ts';

/** Undefined, and said aloud, where there is no OpenBao; in CI that is a failure. */
export const openbaoFolder = await findGoServer(openbaoSources);

/** What a server answered, read as it comes. */
export type Json = ReturnType<typeof JSON.parse>;

export interface Answered {
  readonly status: number;
  readonly body: Json;
}

/** A call as somebody else: the test, an administrator, an agent. */
export async function ask(
  url: string,
  token: string,
  method: string,
  path: string,
  body?: unknown,
  namespace?: string,
): Promise<Answered> {
  const headers: Record<string, string> = { 'x-vault-token': token };
  if (namespace !== undefined) headers['x-vault-namespace'] = namespace;
  const response = await fetch(`${url}/v1/${path}`, {
    method,
    headers,
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const text = await response.text();
  return { status: response.status, body: text === '' ? null : JSON.parse(text) };
}

export interface VaultHouse {
  readonly bao: OpenbaoServer;
  readonly session: Session<VaultEntitlement>;
  readonly installation: string;
  /** What a session logged. */
  readonly logged: Record<string, unknown>[];
  /** What a session said of its login, or null when it was well again. */
  readonly troubles: (string | null)[];
  readonly secrets: Map<string, string>;
  readonly connection: Record<string, unknown>;
  /** As root, in the namespace of the target. @throws for a status of 400 and more. */
  root(method: string, path: string, body?: unknown): Promise<Json>;
  /** Another broker of the same installation, or of another one. */
  connect(over?: Record<string, unknown>, installation?: string): Session<VaultEntitlement>;
  stop(): Promise<void>;
}

export interface VaultHouseOptions {
  readonly bao?: OpenbaoServer;
  /** OpenBao, unless another is named. */
  readonly flavour?: VaultFlavour;
  readonly namespace?: string;
  readonly entitlements: readonly VaultEntitlement[];
  /** Of a broker that is there already. */
  readonly installation?: string;
  readonly over?: Record<string, unknown>;
  /** Where the broker reaches the server, when something stands between. */
  readonly address?: string;
}

/** An entitlement as the catalog would read it. */
export function entitlement(config: unknown): VaultEntitlement {
  return entitlementSchema.parse(config);
}

/** OpenBao or the flavour that is named, prepared as an administrator would, and a broker's session that is logged in by AppRole. */
export async function startVaultHouse(options: VaultHouseOptions): Promise<VaultHouse> {
  const { folder, binary } = options.flavour ?? { folder: openbaoFolder, binary: 'bao' };
  if (folder === undefined) throw new Error('no such server');
  const bao = options.bao ?? (await startOpenbao(folder, binary));
  const { namespace } = options;
  const root = async (method: string, path: string, body?: unknown): Promise<Json> => {
    const { status, body: answer } = await ask(bao.url, bao.token, method, path, body, namespace);
    if (status >= 400) throw new Error(`${method} ${path}: ${status} ${JSON.stringify(answer)}`);
    return answer;
  };
  if (namespace !== undefined) await ask(bao.url, bao.token, 'POST', `sys/namespaces/${namespace}`, {});
  const installation = options.installation ?? randomUUID();
  const connection = {
    addresses: [options.address ?? bao.url],
    auth: { approle: { role_id: 'mayfly-test', secret_id: 'file:secret-id' } },
    ...(namespace === undefined ? {} : { namespace }),
    ...options.over,
  };
  const secrets = new Map<string, string>();
  const admin = new URL(bao.url);
  admin.password = bao.token;
  await provider.preparation?.apply?.(
    new Secret(admin.href),
    targetSchema.parse(connection),
    options.entitlements.map((config, index) => ({ name: `vault/e${index}`, maxTtlSeconds: 3600, config })),
    installation,
    new Secret(''),
  );
  const { data } = await root('POST', 'auth/approle/role/mayfly-broker/secret-id', {});
  secrets.set('file:secret-id', data.secret_id);
  const logged: Record<string, unknown>[] = [];
  const troubles: (string | null)[] = [];
  const sessions: Session<VaultEntitlement>[] = [];
  const connect = (over: Record<string, unknown> = {}, as = installation): Session<VaultEntitlement> => {
    const session = provider.connect(targetSchema.parse({ ...connection, ...over }), {
      target: 'vault',
      installation: as,
      secret: (reference) => {
        const value = secrets.get(reference);
        if (value === undefined) throw new ProviderError('misconfigured', `${reference} is not there`);
        return new Secret(value);
      },
      log: (event, message) => void logged.push({ ...event, message }),
      troubled: (says) => void troubles.push(says),
    });
    sessions.push(session);
    return session;
  };
  return {
    bao,
    session: connect(),
    ...{ installation, logged, troubles, secrets, connection, root, connect },
    stop: async () => {
      for (const session of sessions) await session.close();
      if (options.bao === undefined) await bao.stop();
    },
  };
}

export interface Granted {
  readonly ref: Ref;
  readonly request: MintRequest<VaultEntitlement>;
}

/** A grant as the broker would intend it. */
export function intend(
  session: Session<VaultEntitlement>,
  config: VaultEntitlement,
  over: Partial<MintRequest<VaultEntitlement>> & { seconds?: number; grantId?: string } = {},
): Granted {
  const grantId = over.grantId ?? uuidv7();
  const { seconds = 60, ...request } = over;
  const deadline = new Date(Date.now() + seconds * 1000);
  const ref: Ref = { grantId, handle: session.reserve(grantId), facts: null, deadline };
  return {
    ref,
    request: {
      ...{ entitlement: 'vault/e0', config, params: {}, deadline, notAfter: deadline },
      mintBy: new Date(Date.now() + 10_000),
      ...request,
      grantId,
    },
  };
}

export interface Made {
  readonly ref: Ref & { readonly facts: Facts };
  readonly minted: Minted;
  readonly secret: Readonly<Record<string, Json>>;
}

export async function make(session: Session<VaultEntitlement>, { ref, request }: Granted): Promise<Made> {
  const minted = await session.mint(ref, request, AbortSignal.timeout(20_000));
  return { ref: { ...ref, facts: minted.facts }, minted, secret: minted.secret.reveal() };
}

export const soon = (): AbortSignal => AbortSignal.timeout(20_000);

/** The database engine on a real PostgreSQL, with one role, `readers`. */
export async function mountDatabase(
  house: Pick<VaultHouse, 'root'>,
  server: PostgresServer,
  port = server.port,
): Promise<void> {
  await house.root('POST', 'sys/mounts/database', { type: 'database' });
  await house.root('POST', 'database/config/ledger', {
    plugin_name: 'postgresql-database-plugin',
    allowed_roles: '*',
    connection_url: `postgresql://{{username}}:{{password}}@127.0.0.1:${port}/postgres?sslmode=disable&connect_timeout=2`,
    username: 'postgres',
    password: server.password,
  });
  await house.root('POST', 'database/roles/readers', {
    ...{ db_name: 'ledger', default_ttl: '600s', max_ttl: '90000s' },
    creation_statements: [`CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';`],
  });
  await house.root('POST', 'sys/policies/acl/db-readers', {
    policy: 'path "database/creds/readers" { capabilities = ["read"] }',
  });
}

/** Whether these open a session in the database. */
export async function opens(server: PostgresServer, secret: Readonly<Record<string, Json>>): Promise<boolean> {
  const { username: user, password } = secret;
  const client = new pg.Client({ host: '127.0.0.1', port: server.port, database: 'postgres', user, password });
  client.on('error', () => {});
  try {
    await client.connect();
    await client.query('SELECT 1');
    return true;
  } catch (error) {
    if (error instanceof pg.DatabaseError && error.code?.startsWith('28')) return false;
    throw error;
  } finally {
    await client.end().catch(() => {});
  }
}
