import pg from 'pg';
import { type PostgresServer, startPostgres } from '../../support/postgres-servers.ts';
import { type House, type HouseOptions, startHouse } from '../../support/house.ts';

export interface BenchHouse extends House {
  /** The broker's own login on the target: what the floor uses. */
  floorClients(count: number): Promise<pg.Client[]>;
  readonly template: string;
}

/** As production: durable writes, store and target on one server, the broker in a process of its own. */
export async function startBenchHouse(
  options: (server: PostgresServer) => Promise<Pick<HouseOptions, 'files' | 'env'>> = async () => ({}),
): Promise<BenchHouse> {
  const server = await startPostgres({
    version: 18,
    settings: { fsync: 'on', full_page_writes: 'on', shared_buffers: '256MB', max_connections: 300 },
  });
  const { files, env } = await options(server);
  const house = await startHouse({
    server,
    inProcess: false,
    maxLive: 50_000,
    files: { 'policies/test.cedar': POLICY, ...files },
    ...(env === undefined ? {} : { env }),
  });
  const login = `${house.targetDatabase}_broker`;
  return {
    ...house,
    template: `mayfly_t_read_invoices${house.targetDatabase.replace('ledger', '')}`,
    floorClients: async (count) =>
      Promise.all(
        Array.from({ length: count }, async () => {
          const client = new pg.Client({
            host: server.host,
            port: server.port,
            user: login,
            password: house.targetPassword,
            database: house.targetDatabase,
          });
          client.on('error', () => {});
          await client.connect();
          return client;
        }),
      ),
    stop: async () => {
      await house.stop();
      await server.stop();
    },
  };
}

const POLICY = `
@id("read-invoices") @max_ttl("10m")
permit (principal is Mayfly::Task, action, resource == Mayfly::Entitlement::"ledger-db/read-invoices");
`;
