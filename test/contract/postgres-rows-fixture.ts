import type pg from 'pg';
import { prepare, type PrepareEntitlement, provider } from '../../providers/postgres/index.ts';
import type { CheckStep } from '../../src/provider.ts';
import type { PostgresServer } from '../support/postgres-servers.ts';
import { entitlementName, type Ledger, type Live, makeLedger, soon } from './postgres-fixture.ts';

export type Params = Readonly<Record<string, string | number | boolean>>;

/** A ledger whose payments belong to the tenants `acme` and `globex`, and an entitlement to those of one of them. */
export interface Rows {
  readonly ledger: Ledger;
  /** Prepares the target for these, or for that one. */
  apply(...entitlements: PrepareEntitlement[]): Promise<void>;
  mint(params: Params, changes?: Parameters<Ledger['mint']>[0]): Promise<Live>;
  agentOf(tenant: string): Promise<{ live: Live; agent: pg.Client }>;
  /** `step: says` of what fails, a line each. */
  faults(config?: PrepareEntitlement['config']): Promise<string>;
  check(config?: PrepareEntitlement['config']): Promise<readonly CheckStep[]>;
}

export const byTenant = { schema: 'billing', table: 'payments', column: 'tenant', param: 'tenant' };

export function declared(changes: Record<string, unknown> = {}): PrepareEntitlement {
  const config = provider.entitlementSchema.parse({
    template: 'mayfly_t_rows',
    privileges: [{ schema: 'billing', tables: ['payments'], grant: ['SELECT', 'INSERT', 'UPDATE', 'DELETE'] }],
    row_security: [byTenant],
    connection_limit: 5,
    ...changes,
  });
  return { name: 'ledger-db/own-payments', maxTtlSeconds: 900, config };
}

/** Whose payments that login sees. */
export async function tenants(agent: pg.Client): Promise<string> {
  const { rows } = await agent.query('SELECT DISTINCT tenant FROM billing.payments ORDER BY 1');
  return rows.map(({ tenant }) => tenant).join();
}

export async function makeRows(server: PostgresServer): Promise<Rows> {
  const ledger = await makeLedger(server, 'ledger');
  await ledger.admin(`
    REVOKE CREATE ON SCHEMA public FROM PUBLIC;
    CREATE TABLE billing.payments (id int PRIMARY KEY, tenant varchar(6) NOT NULL, region int NOT NULL, amount int NOT NULL);
    CREATE INDEX ON billing.payments (tenant);
    INSERT INTO billing.payments
      SELECT n, CASE WHEN n % 2 = 0 THEN 'acme' ELSE 'globex' END, n % 3, n FROM generate_series(1, 3000) n;
    ANALYZE`);
  const apply: Rows['apply'] = async (...entitlements) => {
    const usual = { name: entitlementName, maxTtlSeconds: 900, config: ledger.entitlement };
    const { config, installation, password } = ledger;
    const all = [usual, ...(entitlements.length === 0 ? [declared()] : entitlements)];
    await prepare(server.superuserUrl('ledger'), config, all, installation, { password });
  };
  const mint: Rows['mint'] = (params, changes = {}) => ledger.mint({ config: declared().config, params, ...changes });
  const check: Rows['check'] = (config = declared().config) =>
    ledger.session.check({ name: 'ledger-db/own-payments', config }, soon());
  await apply();
  return {
    ledger,
    apply,
    mint,
    async agentOf(tenant) {
      const live = await mint({ tenant });
      return { live, agent: await ledger.login(live.minted) };
    },
    check,
    async faults(config) {
      const steps = await check(config);
      return steps
        .filter(({ ok }) => !ok)
        .map(({ step, says }) => `${step}: ${says}`)
        .join('\n');
    },
  };
}
