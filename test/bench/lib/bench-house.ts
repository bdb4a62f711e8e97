import pg from 'pg';
import { type House, type HouseOptions, startHouse } from '../../support/house.ts';
import { type PostgresServer, type PostgresSettings, startPostgres } from '../../support/postgres-servers.ts';

export interface BenchHouse extends House {
  /** The broker's own login on the target: what the floor uses. */
  floorClients(count: number): Promise<pg.Client[]>;
  readonly template: string;
}

export interface BenchHouseOptions extends Pick<HouseOptions, 'env' | 'targetPort' | 'logTo'> {
  /** Over those that every benchmark has. */
  readonly settings?: PostgresSettings;
  /** More of the house, for which the server must run. */
  readonly also?: (server: PostgresServer) => Promise<Pick<HouseOptions, 'files' | 'env'>>;
}

/** As production: durable writes, the broker in a process of its own. */
export const DURABLE: PostgresSettings = {
  fsync: 'on',
  full_page_writes: 'on',
  shared_buffers: '256MB',
  max_connections: 300,
};

/** A policy that leaves lives as long as the entitlement allows. */
export const BENCH_FILES = {
  'policies/test.cedar': `
@id("read-invoices") @max_ttl("10m")
permit (principal is Mayfly::Task, action, resource == Mayfly::Entitlement::"ledger-db/read-invoices");
`,
};

/** Store and target on one server. */
export async function startBenchHouse(options: BenchHouseOptions = {}): Promise<BenchHouse> {
  const { settings, also, ...more } = options;
  const server = await startPostgres({ version: 18, settings: { ...DURABLE, ...settings } });
  const { files, ...rest } = (await also?.(server)) ?? {};
  const house = await startHouse({
    server,
    inProcess: false,
    maxLive: 50_000,
    ...more,
    ...rest,
    files: { ...BENCH_FILES, ...files },
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
