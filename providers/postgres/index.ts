import type { Provider } from '../../src/provider.ts';
import { entitlementSchema, type PostgresEntitlement, type PostgresTarget, targetSchema } from './schema.ts';
import { expireJob } from './expire-job.ts';
import { elsewhereScript } from './prepare-owned.ts';
import { prepare, prepareSql } from './prepare.ts';
import { scramVerifier } from './scram.ts';
import { connect } from './session.ts';

export { prepare, type PrepareEntitlement, type PrepareOptions, prepareSql } from './prepare.ts';
export type { PostgresEntitlement, PostgresTarget };

/** PostgreSQL 14 and newer, on servers of your own and on managed services: roles minted and taken back by SECURITY DEFINER functions. */
export const provider: Provider<PostgresTarget, PostgresEntitlement> = {
  type: 'postgres',
  bindsParams: true,
  targetSchema,
  entitlementSchema,
  connect,
  preparation: {
    script: async (target, entitlements, installation, secret, by) => {
      const brokerVerifier = secret && (await scramVerifier(secret.reveal(), Math.max(target.scram_iterations, 4096)));
      const sql = prepareSql(target, entitlements, installation, {
        ...(brokerVerifier === null ? {} : { brokerVerifier }),
        ...(by === undefined ? {} : { by }),
      });
      return sql + elsewhereScript(target, installation);
    },
    apply: (adminUrl, target, entitlements, installation, secret, by) =>
      prepare(adminUrl.reveal(), target, entitlements, installation, {
        password: secret,
        ...(by === undefined ? {} : { by }),
      }),
    expireJob,
  },
};

/** @alias */
export default provider;
