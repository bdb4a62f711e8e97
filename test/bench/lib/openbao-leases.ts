import type { House } from '../../support/house.ts';
import type { OpenbaoServer } from '../../support/openbao.ts';
import type { PostgresServer } from '../../support/postgres-servers.ts';
import { call } from './http.ts';

/** What its documentation gives as creation statements, with a role for the rights, as ours has. */
const creation = (readers: string) => [
  `CREATE ROLE "{{name}}" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'; GRANT ${readers} TO "{{name}}";`,
];
const READERS = 'openbao_readers';

/** `default`: what it does when no revocation statements are given. `bare`: the least that it can be told to. */
export type Statements = 'default' | 'bare';

export interface Leases {
  /** @returns the lease's id. */
  mint(): Promise<string>;
  /** Waits until its revocation statements have run. */
  revoke(lease: string): Promise<void>;
  /** Ends all leases. Answers once that is queued. */
  revokeAll(): Promise<void>;
  /** How its roles' names begin. */
  readonly prefix: string;
}

/** The database secrets engine on the house's target, as a superuser, who has every right that it may want. */
export async function openbaoLeases(
  bao: OpenbaoServer,
  house: House,
  server: PostgresServer,
): Promise<(statements: Statements) => Leases> {
  await house.onTarget(`CREATE ROLE ${READERS}; GRANT CONNECT ON DATABASE ${house.targetDatabase} TO ${READERS};
    GRANT USAGE ON SCHEMA billing TO ${READERS}; GRANT SELECT ON ALL TABLES IN SCHEMA billing TO ${READERS}`);
  const ask = async (method: string, path: string, body?: unknown): Promise<Record<string, unknown>> => {
    const { status, body: answer } = await call(method, `${bao.url}/v1/${path}`, bao.token, body);
    if (status >= 300) throw new Error(`${method} ${path}: ${status} ${JSON.stringify(answer)}`);
    return answer;
  };
  await ask('POST', 'sys/mounts/database', { type: 'database' });
  await ask('POST', 'database/config/ledger', {
    plugin_name: 'postgresql-database-plugin',
    allowed_roles: '*',
    connection_url: `postgresql://{{username}}:{{password}}@${server.host}:${server.port}/${house.targetDatabase}?sslmode=disable`,
    username: 'postgres',
    password: server.password,
  });
  for (const statements of ['default', 'bare'] as const)
    await ask('POST', `database/roles/${statements}`, {
      db_name: 'ledger',
      default_ttl: '600s',
      max_ttl: '600s',
      creation_statements: creation(READERS),
      ...(statements === 'bare' ? { revocation_statements: ['DROP ROLE IF EXISTS "{{name}}";'] } : {}),
    });
  return (statements) => ({
    mint: async () => String((await ask('GET', `database/creds/${statements}`))['lease_id']),
    revoke: async (lease) => {
      await ask('PUT', 'sys/leases/revoke', { lease_id: lease, sync: true });
    },
    revokeAll: async () => {
      await ask('PUT', `sys/leases/revoke-prefix/database/creds/${statements}`, { sync: false });
    },
    prefix: `v-token-${statements}-`,
  });
}
